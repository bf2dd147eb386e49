#include "eval/tasks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "eval/identity_nest.h"
#include "eval/likelihood.h"

namespace mkv {
namespace {

using ::testing::HasSubstr;

// ln p of each token of a run after the first, one token at a time.
std::vector<double> reference(const Model& model, std::span<const TokenId> tokens, KvCache cache) {
  Workers workers(1);
  Scratch scratch;
  Matrix<float> hidden, logits(1, model.config().vocab_size);
  std::vector<double> out;
  for (size_t t = 0; t + 1 < tokens.size(); ++t) {
    const SequenceSlice slice{tokens.subspan(t, 1), &cache};
    EXPECT_TRUE(model.forward({&slice, 1}, hidden, scratch, workers));
    model.logits(hidden.view(), logits.view(), workers);
    out.push_back(-negative_log_likelihood(logits.row(0), tokens[t + 1]));
  }
  return out;
}

double sum_from(const std::vector<double>& values, size_t first) {
  double sum = 0;
  for (size_t i = first; i < values.size(); ++i) sum += values[i];
  return sum;
}

std::vector<ScoredTokens> alternatives(const Model& model, size_t context) {
  std::vector<ScoredTokens> runs;
  for (const size_t length : {1u, 5u, 130u}) {
    ScoredTokens run;
    run.tokens = random_tokens(context, model.config().vocab_size, 1);
    const auto more = random_tokens(length, model.config().vocab_size, 100 + length);
    run.tokens.insert(run.tokens.end(), more.begin(), more.end());
    run.first = context;
    runs.push_back(std::move(run));
  }
  return runs;
}

TEST(Likelihood, EqualsTheDirectComputationForAnyCache) {
  const Model model = tiny_model();
  Workers workers(2);
  const Nest nest = identity_nest(model, 64);
  const Ranks ranks = cut_ranks(nest, 0.5);
  const CacheFactory coded = must(CacheFactory::coded(model, nest, ranks));
  const CacheFactory exact = CacheFactory::exact(model);
  for (const CacheFactory* caches : {&exact, &coded}) {
    for (const size_t context : {1u, 40u, 250u}) {
      const std::vector<ScoredTokens> runs = alternatives(model, context);
      LikelihoodScorer scorer(model, *caches, workers);
      const std::vector<Likelihood> got = must(scorer.score(runs));
      ASSERT_EQ(got.size(), runs.size());
      for (size_t i = 0; i < runs.size(); ++i) {
        const auto want = reference(model, runs[i].tokens, caches->make(512));
        EXPECT_NEAR(got[i].sum, sum_from(want, context - 1),
                    1e-3 * static_cast<double>(want.size()))
            << context;
        EXPECT_EQ(got[i].tokens, runs[i].tokens.size() - context);
      }
      EXPECT_EQ(scorer.coded_share() > 0, caches == &coded && context == 250);
    }
  }
}

TEST(Likelihood, KnowsTheGreedyContinuation) {
  const Model model = tiny_model();
  Workers workers(1);
  ScoredTokens run{.tokens = random_tokens(10, model.config().vocab_size, 1), .first = 10};
  const CacheFactory caches = CacheFactory::exact(model);
  LikelihoodScorer scorer(model, caches, workers);
  double best = -1e300;
  for (TokenId token = 0; token < static_cast<TokenId>(model.config().vocab_size); ++token) {
    ScoredTokens tried = run;
    tried.tokens.push_back(token);
    const Likelihood got = must(scorer.score({&tried, 1})).front();
    best = std::max(best, got.sum);
    EXPECT_EQ(got.greedy && got.sum < best, false);
  }
}

TEST(Likelihood, RefusesRunsThatCannotBeScored) {
  const Model model = tiny_model();
  Workers workers(1);
  const CacheFactory caches = CacheFactory::exact(model);
  LikelihoodScorer scorer(model, caches, workers);
  const ScoredTokens nothing{.tokens = {1, 2, 3}, .first = 3};
  EXPECT_FALSE(scorer.score({&nothing, 1}));
  const std::vector<ScoredTokens> unlike{{.tokens = {1, 2}, .first = 1},
                                         {.tokens = {2, 2}, .first = 1}};
  EXPECT_FALSE(scorer.score(unlike));
}

TEST(EncodeScored, MovesTrailingSpaceToTheContinuation) {
  const Model model = tiny_model();
  const Tokenizer& tokenizer = model.tokenizer();
  const ScoredTokens with = must(encode_scored(tokenizer, "Once upon ", "a time", 512));
  const ScoredTokens without = must(encode_scored(tokenizer, "Once upon", " a time", 512));
  EXPECT_EQ(with.tokens, without.tokens);
  EXPECT_EQ(with.first, without.first);
  EXPECT_EQ(with.first, must(tokenizer.encode("Once upon", {})).size());
  EXPECT_EQ(with.tokens, must(tokenizer.encode("Once upon a time", {})));
}

TEST(EncodeScored, CutsFromTheLeft) {
  const Model model = tiny_model();
  const ScoredTokens all = must(encode_scored(model.tokenizer(), "Once upon a time", " it", 512));
  const size_t scored = all.tokens.size() - all.first;
  const ScoredTokens cut =
      must(encode_scored(model.tokenizer(), "Once upon a time", " it", scored + 2));
  EXPECT_EQ(cut.tokens.size(), scored + 2);
  EXPECT_EQ(cut.first, 2u);
  EXPECT_TRUE(std::equal(cut.tokens.rbegin(), cut.tokens.rend(), all.tokens.rbegin()));
  EXPECT_FALSE(encode_scored(model.tokenizer(), "Once upon a time", " it", scored));
  EXPECT_FALSE(encode_scored(model.tokenizer(), "Once upon a time", "", 512));
}

TEST(ChoiceLength, CountsCharactersWithoutOneSpace) {
  EXPECT_EQ(choice_length(" a b"), 3u);
  EXPECT_EQ(choice_length("  a"), 2u);
  EXPECT_EQ(choice_length(" \u00e9\u4e2d "), 3u);
}

class TaskFiles : public ::testing::Test {
 protected:
  std::filesystem::path write(const std::string& text) {
    // Tests run side by side: each has a folder of its own.
    const auto folder = std::filesystem::path(testing::TempDir()) /
                        ::testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::create_directories(folder);
    const auto path = folder / "some_task.jsonl";
    std::ofstream(path, std::ios::binary) << text;
    return path;
  }
  std::string error_of(const std::string& text) {
    const auto task = read_task(write(text), 0);
    EXPECT_FALSE(task) << text;
    return task ? "" : task.error().message;
  }
};

TEST_F(TaskFiles, AllShapesAreRead) {
  const Task choices = must(
      read_task(write("{\"id\":\"x\",\"context\":\"C\",\"choices\":[\" a\",\" b\"],\"label\":1}\n\n"
                      "{\"context\":\"D\",\"choices\":[\" a\"],\"label\":0}\n"),
                0));
  EXPECT_EQ(choices.name, "some_task");
  EXPECT_EQ(choices.shape, TaskShape::choices);
  ASSERT_EQ(choices.examples.size(), 2u);
  EXPECT_EQ(choices.examples[0].alternatives[1], (std::pair<std::string, std::string>("C", " b")));
  EXPECT_EQ(choices.examples[0].label, 1u);
  const Task contexts =
      must(read_task(write("{\"contexts\":[\"A\",\"B\"],\"continuation\":\" c\",\"label\":0}"), 0));
  EXPECT_EQ(contexts.shape, TaskShape::contexts);
  EXPECT_EQ(contexts.examples[0].alternatives[1].first, "B");
  const Task last = must(read_task(write("{\"context\":\"A\",\"continuation\":\" c\"}"), 0));
  EXPECT_EQ(last.shape, TaskShape::continuation);
  EXPECT_EQ(last.examples[0].alternatives.size(), 1u);
}

TEST_F(TaskFiles, TheLimitTakesTheFirst) {
  const std::string line = "{\"context\":\"A\",\"continuation\":\" c\"}\n";
  EXPECT_EQ(must(read_task(write(line + line + "no JSON"), 2)).examples.size(), 2u);
}

TEST_F(TaskFiles, ErrorsNameTheLine) {
  const std::string good = "{\"context\":\"A\",\"choices\":[\" b\"],\"label\":0}\n";
  EXPECT_THAT(error_of(good + "{"), HasSubstr("some_task.jsonl:2"));
  EXPECT_THAT(error_of("{\"context\":\"A\",\"choices\":[\" b\"],\"label\":1}"),
              HasSubstr("label 1 of 1"));
  EXPECT_THAT(error_of("{\"context\":\"A\",\"choices\":[3],\"label\":0}"), HasSubstr("choices[0]"));
  EXPECT_THAT(error_of(good + "{\"context\":\"A\",\"continuation\":\" c\"}"),
              HasSubstr("another shape"));
  EXPECT_THAT(error_of(""), HasSubstr("no example"));
  EXPECT_FALSE(read_task("/nowhere/x.jsonl", 0));
}

// By hand from the likelihoods: which alternative wins with and without the division.
TEST(Tasks, AccuracyFollowsTheDefinition) {
  const Model model = tiny_model();
  Workers workers(1);
  Task task{.name = "t", .shape = TaskShape::choices, .examples = {}};
  for (const char* context : {"Once upon", "The cat", "A number is", "In the end"}) {
    TaskExample example{.id = context, .alternatives = {}, .label = 0};
    for (const char* choice : {" a", " time there was a long story", " b c", " of"}) {
      example.alternatives.emplace_back(context, choice);
    }
    task.examples.push_back(example);
  }
  const CacheFactory caches = CacheFactory::exact(model);
  const TaskReport first = must(evaluate_task(model, caches, task, {}, workers));
  // A model of random weights gives long continuations less: the right one is what wins by sum.
  size_t norm_wins = 0;
  for (size_t i = 0; i < task.examples.size(); ++i) {
    TaskExample& example = task.examples[i];
    const std::vector<double>& sums = first.log_likelihoods[i];
    std::vector<double> normed;
    for (size_t c = 0; c < sums.size(); ++c) {
      normed.push_back(sums[c] /
                       static_cast<double>(std::string(example.alternatives[c].second).size() - 1));
    }
    example.label = static_cast<size_t>(std::ranges::max_element(sums) - sums.begin());
    const auto best = static_cast<size_t>(std::ranges::max_element(normed) - normed.begin());
    norm_wins += best == example.label ? 1 : 0;
  }
  const TaskReport second = must(evaluate_task(model, caches, task, {}, workers));
  EXPECT_EQ(second.acc.mean, 1.0);
  EXPECT_EQ(second.acc.standard_error, 0.0);
  ASSERT_TRUE(second.acc_norm);
  EXPECT_EQ(second.acc_norm->mean, static_cast<double>(norm_wins) / 4.0);
  EXPECT_LT(second.acc_norm->mean, 1.0);  // so that the division is seen to matter
  task.examples[0].label = (task.examples[0].label + 1) % 4;
  const TaskReport third = must(evaluate_task(model, caches, task, {}, workers));
  EXPECT_EQ(third.acc.mean, 0.75);
  EXPECT_NEAR(third.acc.standard_error, std::sqrt(0.25 * 0.75 / 3.0), 1e-12);
}

TEST(Tasks, ContextsAndContinuationsAreScored) {
  const Model model = tiny_model();
  Workers workers(1);
  const CacheFactory caches = CacheFactory::exact(model);
  Task contexts{.name = "t", .shape = TaskShape::contexts, .examples = {}};
  contexts.examples.push_back(
      {.id = "", .alternatives = {{"A cat", " sat."}, {"B dog", " sat."}}, .label = 0});
  const TaskReport partial = must(evaluate_task(model, caches, contexts, {}, workers));
  EXPECT_FALSE(partial.acc_norm);
  EXPECT_NE(partial.log_likelihoods[0][0], partial.log_likelihoods[0][1]);
  Task words{.name = "t", .shape = TaskShape::continuation, .examples = {}};
  words.examples.push_back({.id = "", .alternatives = {{"A cat", " sat."}}, .label = 0});
  const TaskReport lambada = must(evaluate_task(model, caches, words, {}, workers));
  ASSERT_TRUE(lambada.perplexity);
  EXPECT_NEAR(lambada.log_likelihoods[0][0], partial.log_likelihoods[0][0], 1e-4);
  EXPECT_NEAR(std::log(lambada.perplexity->mean), -lambada.log_likelihoods[0][0], 1e-9);
  words.examples.clear();
  EXPECT_FALSE(evaluate_task(model, caches, words, {}, workers));
}

}  // namespace
}  // namespace mkv
