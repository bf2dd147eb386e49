// Exit codes and messages: 0 done, 1 failed, 2 used wrongly; an error is one line on stderr.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "cli/program.h"

namespace mkv {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

void expect_error(const Outcome& outcome, int exit_code, const std::string& words) {
  EXPECT_EQ(outcome.exit_code, exit_code) << outcome.err;
  EXPECT_EQ(outcome.out, "");
  EXPECT_THAT(outcome.err, StartsWith("matryoshka: "));
  EXPECT_THAT(outcome.err, HasSubstr(words));
  EXPECT_EQ(count_lines(outcome.err), 1u) << outcome.err;
}

TEST(Usage, VersionAndHelpGoToStdout) {
  const Outcome version = matryoshka({"--version"});
  EXPECT_EQ(version.exit_code, 0);
  EXPECT_THAT(version.out, StartsWith("matryoshka "));
  for (const std::vector<std::string>& command : {std::vector<std::string>{},
                                                  {"run"},
                                                  {"chat"},
                                                  {"fit"},
                                                  {"search"},
                                                  {"eval"},
                                                  {"eval", "ppl"},
                                                  {"eval", "kl"},
                                                  {"bench"},
                                                  {"inspect"}}) {
    std::vector<std::string> arguments = command;
    arguments.push_back("--help");
    const Outcome help = matryoshka(arguments);
    EXPECT_EQ(help.exit_code, 0);
    EXPECT_THAT(help.out, HasSubstr("Example:"));
    EXPECT_EQ(help.err, "");
  }
}

TEST(Usage, WrongUseIsCode2AndNamesTheHelp) {
  expect_error(matryoshka({}), 2, "matryoshka --help");
  expect_error(matryoshka({"eval"}), 2, "matryoshka eval --help");
  expect_error(matryoshka({"rum"}), 2, "did you mean run?");
  expect_error(matryoshka({"run"}), 2, "MODEL");
  expect_error(matryoshka({"run", golden_model("llama.gguf"), "-p", "a", "--temprature", "1"}), 2,
               "did you mean --temperature?");
  expect_error(matryoshka({"run", golden_model("llama.gguf")}), 2, "-p TEXT or -f FILE");
  expect_error(matryoshka({"run", golden_model("llama.gguf"), "-p", "a", "-n", "many"}), 2, "many");
  expect_error(matryoshka({"run", golden_model("llama.gguf"), "-p", "a", "--budget", "25%"}), 2,
               "--nest");
}

TEST(Usage, OptionsOutOfRangeAreCode2) {
  const std::string model = golden_model("llama.gguf");
  expect_error(matryoshka({"run", model, "-p", "a", "--isa", "abacus"}), 2, "abacus");
  expect_error(matryoshka({"run", model, "-p", "a", "--context", "999999"}), 2, "999999");
  expect_error(matryoshka({"run", model, "-p", "a", "--temperature", "-1"}), 2, "temperature");
  expect_error(matryoshka({"run", model, "-p", "a", "--threads", "-3"}), 2, "--threads");
}

TEST(Usage, NumbersThatAreNoCountsAreCode2) {
  const std::string model = golden_model("llama.gguf");
  for (const char* number : {"-1", "1.5", "99999999999999999999", "1e3", ""}) {
    expect_error(matryoshka({"run", model, "-p", "a", std::string("--max-tokens=") + number}), 2,
                 "max-tokens");
    expect_error(
        matryoshka({"eval", "ppl", model, "--text", model, std::string("--context=") + number}), 2,
        "context");
  }
}

TEST(Usage, MessagesCarryNoControlCharacters) {
  const Outcome outcome = matryoshka({"inspect", "/nowhere/\x1b[31mred\nline\x7f"});
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("?[31mred line?"));
  EXPECT_EQ(count_lines(outcome.err), 1u);
}

TEST(Usage, FilesThatAreNotThereAreCode1) {
  const ScratchFolder folder;
  const std::string missing = (folder.path() / "missing").string();
  const std::string model = golden_model("llama.gguf");
  expect_error(matryoshka({"run", missing, "-p", "a"}), 1, missing);
  expect_error(matryoshka({"inspect", missing}), 1, missing);
  expect_error(matryoshka({"run", model, "-f", missing}), 1, missing);
  expect_error(matryoshka({"run", model, "-p", "a", "--nest", missing}), 1, missing);
  expect_error(matryoshka({"eval", "ppl", model, "--text", missing}), 1, missing);
  expect_error(matryoshka({"fit", model, "-o", missing + "/nest"}), 1, missing);
}

TEST(Usage, FilesThatAreSomethingElseAreCode1) {
  const ScratchFolder folder;
  const std::string text = (folder.path() / "text.gguf").string();
  std::ofstream(text) << "not a model\n";
  expect_error(matryoshka({"run", text, "-p", "a"}), 1, text);
  expect_error(matryoshka({"inspect", text}), 1, text);
  expect_error(matryoshka({"inspect", folder.path().string()}), 1, folder.path().string());
}

TEST(Usage, StdoutThatTakesNothingIsCode1) {
  const Outcome outcome =
      matryoshka({"inspect", golden_model("llama.gguf")}, {.stdout_path = "/dev/full"});
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("stdout"));
}

}  // namespace
}  // namespace mkv
