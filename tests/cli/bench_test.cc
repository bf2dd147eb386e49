// bench, on a tiny model; and against a stand-in for a peer's llama-bench.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "cli/program.h"
#include "store/json.h"

namespace mkv {
namespace {

using ::testing::HasSubstr;

Json bench(std::vector<std::string> more) {
  std::vector<std::string> arguments{"bench",  golden_model("llama.gguf"),
                                     "--json", "--prefill",
                                     "9",      "--decode",
                                     "4",      "--repetitions",
                                     "3",      "--depths",
                                     "0,40"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return json_of(matryoshka(arguments));
}

// A program that behaves like llama-bench, as far as bench asks: it keeps its arguments in a file
// and reports what `report` says.
void write_llama_bench(const std::filesystem::path& folder, const std::string& report) {
  const std::filesystem::path program = folder / "llama-bench";
  std::ofstream(program) << "#!/bin/sh\necho \"$@\" >> '" << (folder / "calls").string()
                         << "'\necho noise >&2\n"
                         << report << "\n";
  std::filesystem::permissions(program, std::filesystem::perms::owner_all);
}

void expect_speed(const Json& entry, const std::string& name) {
  const double median = entry.at(name), least = entry.at(name + "_min"),
               most = entry.at(name + "_max");
  EXPECT_GT(least, 0) << name;
  EXPECT_LE(least, median) << name;
  EXPECT_LE(median, most) << name;
}

TEST(Bench, ListsEachDepth) {
  const Json list = bench({"--threads", "2"});
  ASSERT_EQ(list.size(), 2u);
  EXPECT_EQ(list[0].at("depth"), 0);
  EXPECT_EQ(list[1].at("depth"), 40);
  for (const Json& entry : list) {
    expect_speed(entry, "prefill_tokens_per_s");
    expect_speed(entry, "decode_tokens_per_s");
    EXPECT_GT(entry.at("peak_rss_bytes"), 1 << 20);
    EXPECT_GT(entry.at("decode_gb_per_s"), 0);
    EXPECT_GT(entry.at("read_peak_gb_per_s"), 0);
    EXPECT_EQ(entry.at("output_hash").get<std::string>().size(), 16u);
    EXPECT_FALSE(entry.contains("against"));
  }
  EXPECT_EQ(list[0].at("kv_bytes"), 0);
  EXPECT_GT(list[1].at("kv_bytes"), 0);
  EXPECT_NE(list[0].at("output_hash"), list[1].at("output_hash"));
}

TEST(Bench, OutputDoesNotDependOnThreads) {
  const Json one = bench({"--threads", "1"}), three = bench({"--threads", "3"});
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(one[i].at("output_hash"), three[i].at("output_hash"));
  }
}

TEST(Bench, RunsAPeerByTurns) {
  const ScratchFolder folder;
  write_llama_bench(folder.path(),
                    "echo '[{\"n_gen\": 0, \"avg_ts\": 1.5}, {\"n_gen\": 4, \"avg_ts\": 0.5}]'");
  const Json list =
      bench({"--against", folder.path().string(), "--against-kv", "f16,q4_0", "--threads", "2"});
  ASSERT_EQ(list.size(), 2u);
  for (const Json& entry : list) {
    const Json& against = entry.at("against");
    ASSERT_EQ(against.size(), 2u);
    EXPECT_EQ(against[0].at("kv_type"), "f16");
    EXPECT_EQ(against[1].at("kv_type"), "q4_0");
    EXPECT_EQ(against[1].at("prefill_tokens_per_s"), 1.5);
    EXPECT_EQ(against[1].at("decode_tokens_per_s_max"), 0.5);
    EXPECT_DOUBLE_EQ(against[0].at("decode_ratio"),
                     entry.at("decode_tokens_per_s").get<double>() / 0.5);
  }
  std::ifstream calls(folder.path() / "calls");
  std::vector<std::string> lines;
  for (std::string line; std::getline(calls, line);) lines.push_back(line);
  ASSERT_EQ(lines.size(), 3u * 2 * 2);
  EXPECT_THAT(lines[0], HasSubstr("-p 9 -n 4 -d 0 -t 2 -ctk f16 -ctv f16 -fa 1"));
  EXPECT_THAT(lines[1], HasSubstr("-d 0 -t 2 -ctk q4_0 -ctv q4_0"));
  EXPECT_THAT(lines[2], HasSubstr("-d 40 -t 2 -ctk f16 -ctv f16"));
}

TEST(Bench, RunsSeveralPeersWithAndWithoutFlashAttention) {
  const ScratchFolder fast, slow;
  write_llama_bench(fast.path(),
                    "echo '[{\"n_gen\": 0, \"avg_ts\": 4}, {\"n_gen\": 4, \"avg_ts\": 2}]'");
  write_llama_bench(slow.path(),
                    "echo '[{\"n_gen\": 0, \"avg_ts\": 2}, {\"n_gen\": 4, \"avg_ts\": 1}]'");
  const Json list = bench({"--against", fast.path().string(), slow.path().string(), "--against-kv",
                           "f16,q8_0", "--against-flash", "on,off"});
  const Json& against = list[1].at("against");
  ASSERT_EQ(against.size(), 6u);
  EXPECT_EQ(against[0].at("peer"), fast.path().string());
  EXPECT_EQ(against[1].at("flash_attention"), false);
  EXPECT_EQ(against[2].at("kv_type"), "q8_0");
  EXPECT_EQ(against[2].at("flash_attention"), true);
  EXPECT_EQ(against[3].at("peer"), slow.path().string());
  EXPECT_EQ(against[3].at("decode_tokens_per_s"), 1);
  std::ifstream calls(slow.path() / "calls");
  std::string first, second;
  std::getline(calls, first);
  std::getline(calls, second);
  EXPECT_THAT(first, HasSubstr("-ctk f16 -ctv f16 -fa 1"));
  EXPECT_THAT(second, HasSubstr("-ctk f16 -ctv f16 -fa 0"));
}

TEST(Bench, TablesAreForPeople) {
  const Outcome outcome = matryoshka({"bench", golden_model("llama.gguf"), "--prefill", "3",
                                      "--decode", "2", "--repetitions", "1"});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("prefill tokens/s"));
  EXPECT_THAT(outcome.out, HasSubstr("memory reads at most"));
}

void expect_error(const std::vector<std::string>& more, int exit_code, const std::string& words) {
  std::vector<std::string> arguments{
      "bench", golden_model("llama.gguf"), "--decode", "2", "--prefill", "2", "--repetitions", "1"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  const Outcome outcome = matryoshka(arguments);
  EXPECT_EQ(outcome.exit_code, exit_code) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr(words));
  EXPECT_EQ(outcome.out, "");
}

TEST(Bench, WrongUse) {
  expect_error({"--depths", "99999"}, 2, "--depths 99999");
  expect_error({"--depths", "-4"}, 2, "--depths");
  expect_error({"--prefill", "0"}, 2, "--prefill");
  expect_error({"--repetitions", "0"}, 2, "--repetitions");
  expect_error({"--against-kv", "f16"}, 2, "--against");
  expect_error({"--against", "nowhere", "--against-kv", "q4_0", "--against-flash", "off"}, 2,
               "--against-flash off");
  expect_error({"--against", "/", "--against-kv", "q9"}, 2, "q9");
  expect_error({"--budget", "2bits"}, 2, "--nest");
}

TEST(Bench, PeersThatFail) {
  const ScratchFolder folder;
  const std::string path = folder.path().string();
  expect_error({"--against", path}, 1, path + "/llama-bench: cannot run");
  write_llama_bench(folder.path(), "exit 3");
  expect_error({"--against", path}, 1, "exit code 3");
  write_llama_bench(folder.path(), "echo no json");
  expect_error({"--against", path}, 1, "llama-bench");
  write_llama_bench(folder.path(), "echo '[{\"n_gen\": 0, \"avg_ts\": 1.5}]'");
  expect_error({"--against", path}, 1, "expected the speed of 2 tests, found 1");
  write_llama_bench(folder.path(),
                    "echo '[{\"n_gen\": 0, \"avg_ts\": 0}, {\"n_gen\": 4, \"avg_ts\": 0.5}]'");
  expect_error({"--against", path}, 1, "no speed");
}

}  // namespace
}  // namespace mkv
