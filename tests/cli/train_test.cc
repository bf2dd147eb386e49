// A training run that is killed again and again, as machines are: it goes on from its checkpoint to
// the same losses and the same nest as one that was left alone.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>

#include "base/rng.h"
#include "cli/training_run.h"
#include "store/json.h"

namespace mkv {
namespace {

using ::testing::HasSubstr;
using Clock = std::chrono::steady_clock;

// Whether this program can train: it says so before it looks at anything else.
bool can_train() {
  const Outcome asked = matryoshka({"train", "model", "--nest", "nest", "-o", "trained"});
  return asked.err.find("without the training module") == std::string::npos;
}

class TrainingRuns : public TrainingRun {
 protected:
  void SetUp() override {
    if (!can_train()) GTEST_SKIP() << "built without the training module";
    ASSERT_NO_FATAL_FAILURE(fit_and_write_text());
  }
  // All that the log says but the time.
  std::vector<std::string> logged(const std::string& name) const {
    std::vector<std::string> lines;
    for (Json json : log_lines(name)) {
      json.erase("seconds");
      lines.push_back(json.dump());
    }
    return lines;
  }
  std::string nest_bytes(const std::string& name) const {
    std::ifstream in(file(name) + "/matryoshka_kv.safetensors", std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
};

TEST_F(TrainingRuns, KilledAtRandomMomentsTheyEndAsIfLeftAlone) {
  const Outcome alone = train("alone", {}, {});
  ASSERT_EQ(alone.exit_code, 0) << alone.err;
  ASSERT_GT(logged("alone").size(), 25u);

  Rng rng(3);
  size_t kills = 0, runs = 0;
  for (Outcome last; last.exit_code != 0; ++runs) {
    ASSERT_LT(runs, 60u) << last.err;
    // Dead some checkpoints and a part of a step later; so every run gets a little further.
    const size_t checkpoints = 1 + rng.below(4);
    const auto pause = std::chrono::microseconds(rng.below(20000));
    std::set<ino_t> seen;
    Clock::time_point enough;
    Launch launch;
    if (struct stat now{}; stat(file("killed.state").c_str(), &now) == 0) seen.insert(now.st_ino);
    const size_t before = seen.size();
    launch.kill_when = [&, before] {
      struct stat now {};
      if (stat(file("killed.state").c_str(), &now) == 0 && seen.insert(now.st_ino).second) {
        enough = Clock::now() + pause;
      }
      return seen.size() >= before + checkpoints && Clock::now() >= enough;
    };
    last = train("killed", {}, launch);
    if (last.exit_code == -1) ++kills;
  }
  EXPECT_GE(kills, 3u);
  EXPECT_EQ(logged("killed"), logged("alone"));
  EXPECT_FALSE(nest_bytes("alone").empty());
  EXPECT_TRUE(nest_bytes("killed") == nest_bytes("alone"));
}

// Of a real model, which is most of it: two windows of 1,024 tokens at once in less than 4 GiB.
TEST(TrainingMemory, StaysBelowFourGibibytes) {
  if (!can_train()) GTEST_SKIP() << "built without the training module";
  const char* home = std::getenv("HOME");
  const std::string model = std::string(home == nullptr ? "" : home) +
                            "/.cache/mkv-models/SmolLM2-135M-Instruct.Q4_1.gguf";
  if (!std::filesystem::exists(model)) GTEST_SKIP() << "no " << model << ": get_model.sh";
  const ScratchFolder folder;
  const std::string text = (folder.path() / "text.txt").string();
  std::ofstream(text) << [] {
    std::string words;
    for (int i = 0; i < 1200; ++i) words += "Number " + std::to_string(i) + " is next. ";
    return words;
  }();
  const std::string nest = (folder.path() / "nest").string();
  const std::vector<std::string> options{"--text", text, "--window", "1024", "--tokens", "3072"};
  const auto run = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.end(), options.begin(), options.end());
    return matryoshka(arguments);
  };
  const Outcome fitted = run({"fit", model, "-o", nest, "--kind", "column", "--recent", "0"});
  ASSERT_EQ(fitted.exit_code, 0) << fitted.err;
  const Outcome trained = run({"train", model, "--nest", nest, "-o", nest + "2", "--held-out", "1",
                               "--budgets", "50%", "--threads", "2", "--json"});
  ASSERT_EQ(trained.exit_code, 0) << trained.err;
  const auto json = parse_json(trained.out, "output");
  ASSERT_TRUE(json) << trained.out;
  EXPECT_EQ(json->at("tokens"), 2048);
  EXPECT_GT(json->at("peak_rss_bytes"), size_t{1} << 29);  // it is the kernel's figure
  EXPECT_LT(json->at("peak_rss_bytes"), size_t{4} << 30);
}

}  // namespace
}  // namespace mkv
