// run and chat, on tiny models whose greedy text is known.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "cli/program.h"
#include "store/json.h"

namespace mkv {
namespace {

Json json_of(const std::string& text) {
  auto json = parse_json(text, "output");
  EXPECT_TRUE(json) << text;
  return json ? *json : Json::object();
}

class RunTest : public ::testing::TestWithParam<const char*> {};

TEST_P(RunTest, GreedyTextIsThatOfTransformers) {
  const std::string golden_path =
      std::string(MKV_SOURCE_DIR) + "/tests/golden/logits/" + GetParam() + ".json";
  const auto golden = read_json_file(golden_path, size_t{1} << 24);
  ASSERT_TRUE(golden);
  const std::string prompt = golden->at("prompt");
  for (const std::string& model : {golden_model(GetParam()) + ".gguf", golden_model(GetParam())}) {
    const Outcome outcome =
        matryoshka({"run", model, "-p", prompt, "-n", "24", "--temperature", "0", "--json"});
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
    const Json result = json_of(outcome.out);
    const Json tokens = result.at("tokens");
    const Json& expected = golden->at("greedy_ids");
    ASSERT_LE(tokens.size(), expected.size());
    for (size_t i = 0; i < tokens.size(); ++i) EXPECT_EQ(tokens[i], expected[i]) << i;
    EXPECT_EQ(result.at("completion_tokens"), tokens.size());
    EXPECT_EQ(result.at("prompt_tokens"), golden->at("prompt_ids").size());
  }
}

INSTANTIATE_TEST_SUITE_P(Models, RunTest,
                         ::testing::Values("llama", "llama3", "mistral", "qwen2", "qwen3",
                                           "llama_spm"));

TEST(Run, SeedsDecide) {
  const auto text_of = [](const char* seed, const char* threads) {
    const Outcome outcome =
        matryoshka({"run", golden_model("llama.gguf"), "-p", "Once", "-n", "24", "--temperature",
                    "1", "--seed", seed, "--threads", threads});
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    return outcome.out;
  };
  EXPECT_EQ(text_of("7", "1"), text_of("7", "2"));
  EXPECT_NE(text_of("7", "1"), text_of("8", "1"));
}

TEST(Run, ReadsThePromptFromAFileAndFromStdin) {
  const ScratchFolder folder;
  const std::string file = (folder.path() / "prompt.txt").string();
  std::ofstream(file) << "Once upon\n";
  const auto with = [](std::vector<std::string> more, const std::string& input) {
    std::vector<std::string> arguments{
        "run", golden_model("llama.gguf"), "-n", "8", "--temperature", "0"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Outcome outcome = matryoshka(arguments, {.input = input});
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    return outcome.out;
  };
  const std::string direct = with({"-p", "Once upon"}, "");
  EXPECT_EQ(with({"-f", file}, ""), direct);
  EXPECT_EQ(with({"-f", "-"}, "Once upon\n"), direct);
}

TEST(Run, StopsInFrontOfAStopString) {
  const auto result_of = [](std::vector<std::string> more) {
    std::vector<std::string> arguments{
        "run",   golden_model("qwen3.gguf"), "-p", "Once", "-n", "24", "--temperature", "0",
        "--json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return json_of(matryoshka(arguments).out);
  };
  const std::string whole = result_of({}).at("text");
  ASSERT_GE(whole.size(), 6u);
  const std::string stop = whole.substr(whole.size() / 2, 2);
  const std::string cut = result_of({"--stop", stop}).at("text");
  EXPECT_EQ(cut, whole.substr(0, whole.find(stop)));
}

TEST(Run, APromptLongerThanTheContextIsAnError) {
  std::string prompt;
  for (int i = 0; i < 200; ++i) prompt += "once upon a time ";
  const Outcome outcome =
      matryoshka({"run", golden_model("llama.gguf"), "-p", prompt, "--context", "64"});
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_THAT(outcome.err, ::testing::HasSubstr("64"));
}

TEST(Chat, EachLineIsATurnAndTheCacheIsReused) {
  const Outcome outcome = matryoshka({"chat", golden_model("llama.gguf"), "-n", "8",
                                      "--temperature", "0", "--json", "--system", "Be brief."},
                                     {.input = "Hello\n\nWho are you?\n"});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  ASSERT_EQ(count_lines(outcome.out), 2u) << outcome.out;
  const size_t second = outcome.out.find('\n') + 1;
  EXPECT_EQ(json_of(outcome.out.substr(0, second)).at("reused_tokens"), 0);
  EXPECT_GT(json_of(outcome.out.substr(second)).at("reused_tokens"), 0);
}

TEST(Chat, ATemplateThatRefusesIsCode1) {
  const ScratchFolder folder;
  const std::filesystem::path model = folder.path() / "model";
  std::filesystem::copy(golden_model("llama"), model);
  std::ofstream(model / "tokenizer_config.json")
      << R"({"chat_template": "{{ raise_exception('no chat') }}"})";
  const Outcome outcome = matryoshka({"chat", model.string()}, {.input = "Hello\n"});
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_EQ(count_lines(outcome.err), 1u) << outcome.err;
  EXPECT_THAT(outcome.err, ::testing::HasSubstr("no chat"));
}

TEST(Chat, NoInputIsNoAnswer) {
  const Outcome outcome = matryoshka({"chat", golden_model("llama.gguf")});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_EQ(outcome.out, "");
}

}  // namespace
}  // namespace mkv
