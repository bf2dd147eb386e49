// Runs of `train` on a tiny model, its nest and a text, in a folder of their own.
#pragma once

#include <gtest/gtest.h>

#include <fstream>
#include <string>
#include <vector>

#include "cli/program.h"

namespace mkv {

class TrainingRun : public ::testing::Test {
 protected:
  void fit_and_write_text() {
    const Outcome fitted =
        matryoshka({"fit", model_, "-o", file("nest"), "--kind", "column", "--tokens", "1024",
                    "--window", "256", "--recent", "0", "--step", "4"});
    ASSERT_EQ(fitted.exit_code, 0) << fitted.err;
    std::ofstream text(file("text.txt"));
    for (int i = 0; i < 600; ++i) text << "Once upon a time there was a number " << i << ".\n";
  }
  std::string file(const std::string& name) const { return (folder_.path() / name).string(); }

  // Writes the nest NAME, NAME.state after every step and NAME.jsonl; `more` options follow.
  Outcome train(const std::string& name, const std::vector<std::string>& more,
                const Launch& launch) const {
    std::vector<std::string> arguments{"train", model_,     "--nest", file("nest"),
                                       "-o",    file(name), "--text", file("text.txt")};
    const std::string options[] = {"--tokens",
                                   "7000",
                                   "--window",
                                   "128",
                                   "--held-out",
                                   "2",
                                   "--budgets",
                                   "75%,50%",
                                   "--schedule",
                                   "automatic",
                                   "--train-means",
                                   "--steps-per-measurement",
                                   "5",
                                   "--checkpoint",
                                   file(name + ".state"),
                                   "--checkpoint-seconds",
                                   "0",
                                   "--log",
                                   file(name + ".jsonl")};
    arguments.insert(arguments.end(), std::begin(options), std::end(options));
    arguments.insert(arguments.end(), more.begin(), more.end());
    return matryoshka(arguments, launch);
  }
  std::vector<Json> log_lines(const std::string& name) const {
    std::ifstream log(file(name + ".jsonl"));
    std::vector<Json> lines;
    for (std::string line; std::getline(log, line);) {
      auto json = parse_json(line, "log");
      EXPECT_TRUE(json) << line;
      if (json) lines.push_back(std::move(*json));
    }
    return lines;
  }

  ScratchFolder folder_;
  std::string model_ = golden_model("llama.gguf");
};

}  // namespace mkv
