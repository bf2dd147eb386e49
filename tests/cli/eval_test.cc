// eval tasks, long, retrieval and generation on a tiny model: what they report, at several caches.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>

#include "cli/program.h"
#include "store/json.h"

namespace mkv {
namespace {

using ::testing::HasSubstr;

class EvalCommands : public ::testing::Test {
 protected:
  std::string write(const std::string& name, const std::string& content) const {
    const std::filesystem::path path = folder_.path() / name;
    std::ofstream(path) << content;
    return path.string();
  }
  std::string write_text() const {
    std::string text;
    for (int i = 0; i < 120; ++i) {
      text += "Once upon a time there was a number " + std::to_string(i * i) + ".\n";
    }
    return write("text.txt", text);
  }
  std::string write_task() const {
    return write(
        "pick.jsonl",
        R"({"context": "Once upon a", "choices": [" time", " number there was"], "label": 0})"
        "\n"
        R"({"context": "there was", "choices": [" a number", " upon"], "label": 1})"
        "\n");
  }

  Json eval(const std::string& what, std::vector<std::string> more) const {
    std::vector<std::string> arguments{"eval", what, golden_model("llama.gguf"), "--json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return json_of(matryoshka(arguments));
  }

  ScratchFolder folder_;
};

TEST_F(EvalCommands, TasksChooseTheLikeliest) {
  const Json list =
      eval("tasks", {"--tasks", write_task(), "--budgets", "exact,q4_0", "--examples"});
  ASSERT_EQ(list.size(), 2u);
  for (const Json& budget : list) {
    const Json& task = budget.at("tasks").at(0);
    EXPECT_EQ(task.at("task"), "pick");
    EXPECT_EQ(task.at("examples"), 2);
    int right = 0;
    const std::vector<size_t> labels{0, 1};
    for (size_t i = 0; i < labels.size(); ++i) {
      const auto sums = task.at("log_likelihoods").at(i).at("sums").get<std::vector<double>>();
      ASSERT_EQ(sums.size(), 2u);
      EXPECT_LT(std::max(sums[0], sums[1]), 0.0);
      right += sums[labels[i]] > sums[1 - labels[i]];
    }
    EXPECT_DOUBLE_EQ(task.at("acc"), right / 2.0);
    EXPECT_DOUBLE_EQ(budget.at("average_acc"), right / 2.0);
  }
  const auto first_sum = [&](size_t budget) {
    return list[budget].at("tasks").at(0).at("log_likelihoods").at(0).at("sums").at(0);
  };
  EXPECT_NE(first_sum(0), first_sum(1)) << "q4_0 rounds";
}

TEST_F(EvalCommands, TasksTakeTheFirstExamples) {
  const Json list = eval("tasks", {"--tasks", write_task(), "--limit", "1"});
  EXPECT_EQ(list.at(0).at("tasks").at(0).at("examples"), 1);
  EXPECT_FALSE(list.at(0).at("tasks").at(0).contains("log_likelihoods"));
}

TEST_F(EvalCommands, TasksNameALineWithoutLabel) {
  const std::string task =
      write("bad.jsonl", "{\"context\": \"a\", \"choices\": [\" b\", \" c\"]}\n");
  const Outcome outcome =
      matryoshka({"eval", "tasks", golden_model("llama.gguf"), "--tasks", task});
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("bad.jsonl"));
  EXPECT_THAT(outcome.err, HasSubstr("label"));
  EXPECT_EQ(count_lines(outcome.err), 1u) << outcome.err;
}

TEST_F(EvalCommands, LongSumsUpPositions) {
  const Json list = eval("long", {"--text", write_text(), "--context", "128", "--bucket", "32",
                                  "--pieces", "3", "--budgets", "exact,q8_0,q4_0"});
  ASSERT_EQ(list.size(), 3u);
  for (const Json& budget : list) {
    EXPECT_EQ(budget.at("pieces"), 3);
    double sum = 0;
    size_t tokens = 0, expected_first = 0;
    for (const Json& bucket : budget.at("buckets")) {
      EXPECT_EQ(bucket.at("first"), expected_first);
      expected_first = bucket.at("end");
      const size_t here = bucket.at("tokens");
      const double nll = bucket.at("nll");
      EXPECT_NEAR(bucket.at("perplexity").get<double>(), std::exp(nll), 1e-6 * std::exp(nll));
      sum += nll * static_cast<double>(here);
      tokens += here;
    }
    EXPECT_EQ(expected_first, 128u);
    EXPECT_EQ(budget.at("tokens"), tokens);
    const double all = std::exp(sum / static_cast<double>(tokens));
    EXPECT_NEAR(budget.at("perplexity").get<double>(), all, 1e-6 * all);
  }
  EXPECT_NE(list[0].at("perplexity"), list[2].at("perplexity"));
  EXPECT_DOUBLE_EQ(list[1].at("bits_per_value"), 8.5);
  EXPECT_DOUBLE_EQ(list[2].at("bits_per_value"), 4.5);
}

TEST_F(EvalCommands, RetrievalHasACellForEachLengthAndDepth) {
  const Json list =
      eval("retrieval", {"--text", write_text(), "--lengths", "160,200", "--depths", "0%,0.5,100%",
                         "--samples", "2", "--answer", "4", "--budgets", "exact,q4_0"});
  ASSERT_EQ(list.size(), 2u);
  for (const Json& budget : list) {
    ASSERT_EQ(budget.at("cells").size(), 6u);
    double likelihood = 0;
    for (const Json& cell : budget.at("cells")) {
      EXPECT_EQ(cell.at("samples"), 2);
      EXPECT_LE(cell.at("found"), 2);
      EXPECT_LT(cell.at("key_log_likelihood"), 0.0);
      likelihood += cell.at("key_log_likelihood").get<double>() / 6;
    }
    EXPECT_NEAR(budget.at("key_log_likelihood").get<double>(), likelihood, 1e-9);
    EXPECT_EQ(budget.at("cells").at(0).at("length"), 160);
    EXPECT_EQ(budget.at("cells").at(5).at("depth"), 1.0);
  }
}

TEST_F(EvalCommands, ExactGenerationAgreesWithItself) {
  const Json list = eval("generation", {"--text", write_text(), "--prompts", "3", "--prompt-tokens",
                                        "48", "-n", "12", "--budgets", "exact"});
  ASSERT_EQ(list.size(), 1u);
  EXPECT_EQ(list[0].at("prompts"), 3);
  EXPECT_EQ(list[0].at("identical"), 1.0);
}

TEST_F(EvalCommands, TablesHaveALineForEachBudget) {
  const Outcome outcome =
      matryoshka({"eval", "generation", golden_model("llama.gguf"), "--text", write_text(),
                  "--prompts", "2", "--prompt-tokens", "48", "-n", "4", "--budgets", "exact,q8_0"});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("exact"));
  EXPECT_THAT(outcome.out, HasSubstr("q8_0"));
}

TEST_F(EvalCommands, ABudgetOfANestNeedsOne) {
  const Outcome outcome = matryoshka(
      {"eval", "long", golden_model("llama.gguf"), "--text", write_text(), "--budgets", "2bits"});
  EXPECT_EQ(outcome.exit_code, 2) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("2bits"));
}

}  // namespace
}  // namespace mkv
