#include "eval/needle.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "eval/agreement.h"
#include "eval/identity_nest.h"

namespace mkv {
namespace {

using ::testing::HasSubstr;

std::string filler() {
  std::string text;
  for (int i = 0; i < 300; ++i) {
    text += "The cat sat on a mat and saw " + std::to_string(i) + " birds. It was late! ";
  }
  return text;
}

NeedleOptions small_options() {
  NeedleOptions options;
  options.lengths = {150, 301};
  options.depths = {0, 0.5, 1};
  options.samples = 3;
  options.answer = 4;
  return options;
}

class Needles : public ::testing::TestWithParam<const char*> {};

TEST_P(Needles, HaveTheirLengthAndDepthAndSingleSpaces) {
  const Model model = tiny_model(GetParam());
  const std::vector<NeedlePrompt> prompts = must(make_needles(model, filler(), small_options()));
  ASSERT_EQ(prompts.size(), 2u * 3u * 3u);
  for (const NeedlePrompt& prompt : prompts) {
    EXPECT_EQ(prompt.tokens.size(), prompt.length);
    std::string text;
    for (const TokenId token : prompt.tokens) text += model.tokenizer().decode(token, false);
    EXPECT_EQ(text.find("  "), std::string::npos) << text;
    EXPECT_TRUE(text.ends_with(" is")) << text;
    const size_t at = text.find(" " + prompt.key + ".");
    ASSERT_NE(at, std::string::npos) << text;
    EXPECT_EQ(text.find(prompt.key, at + 3), std::string::npos);
    const size_t begin = text.find(" The special magic");
    ASSERT_NE(begin, std::string::npos);
    if (begin > 0) {
      EXPECT_TRUE(text[begin - 1] == '.' || text[begin - 1] == '!') << text;
    }
    std::string key;
    for (const TokenId token : prompt.key_tokens) key += model.tokenizer().decode(token, false);
    EXPECT_EQ(key, " " + prompt.key);
  }
  for (size_t i = 9; i + 3 < prompts.size(); ++i) {  // of one length, deeper and deeper
    EXPECT_LT(prompts[i].needle_at, prompts[i - i % 3 + 3].needle_at);
  }
}

TEST_P(Needles, AreTheSameForASeed) {
  const Model model = tiny_model(GetParam());
  NeedleOptions options = small_options();
  const auto one = must(make_needles(model, filler(), options));
  const auto same = must(make_needles(model, filler(), options));
  options.seed = 2;
  const auto other = must(make_needles(model, filler(), options));
  EXPECT_EQ(one[4].tokens, same[4].tokens);
  EXPECT_NE(one[4].tokens, other[4].tokens);
}

INSTANTIATE_TEST_SUITE_P(Tokenizers, Needles, ::testing::Values("llama", "llama_spm"));

TEST(Needle, RefusesWhatDoesNotFit) {
  const Model model = tiny_model();
  const auto message = [&](const NeedleOptions& options, const std::string& text) {
    const auto got = make_needles(model, text, options);
    EXPECT_FALSE(got);
    return got ? "" : got.error().message;
  };
  NeedleOptions options = small_options();
  EXPECT_THAT(message(options, "A short text."), HasSubstr("filler"));
  options.lengths = {5};
  EXPECT_THAT(message(options, filler()), HasSubstr("a length of 5"));
  options.lengths = {512};
  EXPECT_THAT(message(options, filler()), HasSubstr("512"));
  options = small_options();
  options.depths = {1.5};
  EXPECT_THAT(message(options, filler()), HasSubstr("1.5"));
}

TEST(Needle, ReportsEveryCell) {
  const Model model = tiny_model();
  Workers workers(2);
  const NeedleOptions options = small_options();
  auto prompts = must(make_needles(model, filler(), options));
  const CacheFactory caches = CacheFactory::exact(model);
  const NeedleReport got = must(evaluate_needles(model, caches, prompts, options, workers));
  ASSERT_EQ(got.cells.size(), 6u);
  double sum = 0;
  for (const NeedleCell& cell : got.cells) {
    EXPECT_EQ(cell.samples, 3u);
    EXPECT_LT(cell.key_log_likelihood, 0.0);
    sum += cell.key_log_likelihood;
  }
  EXPECT_NEAR(got.key_log_likelihood, sum / 6.0, 1e-9);
  EXPECT_EQ(got.found, 0.0);  // random weights know no numbers

  // A key that is what the model says anyway is found.
  const AgreementOptions greedy{.prompts = 1, .prompt = 2, .tokens = 4, .progress = {}};
  for (NeedlePrompt& prompt : prompts) {
    const auto answers = must(greedy_answers(model, caches, {&prompt.tokens, 1}, greedy, workers));
    prompt.key = model.tokenizer().decode_all(answers.front(), false);
    prompt.key_tokens = answers.front();
  }
  const NeedleReport sure = must(evaluate_needles(model, caches, prompts, options, workers));
  EXPECT_EQ(sure.found, 1.0);
  EXPECT_GT(sure.key_log_likelihood, got.key_log_likelihood);
}

TEST(Agreement, OfTheExactCacheIsWholeAndOfACutIsNot) {
  const Model model = tiny_model();
  Workers workers(2);
  const AgreementOptions options{.prompts = 4, .prompt = 200, .tokens = 12, .progress = {}};
  const auto prompts = must(cut_prompts(model, std::vector<std::string>{filler()}, options));
  ASSERT_EQ(prompts.size(), 4u);
  for (const auto& prompt : prompts) EXPECT_EQ(prompt.size(), 200u);
  EXPECT_NE(prompts[0], prompts[1]);
  const CacheFactory exact = CacheFactory::exact(model);
  const auto base = must(greedy_answers(model, exact, prompts, options, workers));
  const AgreementReport same =
      must(evaluate_agreement(model, exact, prompts, base, options, workers));
  EXPECT_EQ(same.identical, 1.0);
  for (size_t i = 0; i < base.size(); ++i) EXPECT_EQ(same.first_difference[i], base[i].size());
  const Nest nest = identity_nest(model, 0);
  const CacheFactory cut = must(CacheFactory::coded(model, nest, cut_ranks(nest, 0)));
  const AgreementReport other =
      must(evaluate_agreement(model, cut, prompts, base, options, workers));
  EXPECT_LT(other.identical, 1.0);
  EXPECT_LT(other.mean_agreed, same.mean_agreed);
}

TEST(Agreement, RefusesWhatDoesNotFit) {
  const Model model = tiny_model();
  Workers workers(1);
  const std::vector<std::string> text{"Once upon a time"};
  const auto message = [&](const AgreementOptions& options) {
    const auto got = cut_prompts(model, text, options);
    EXPECT_FALSE(got);
    return got ? "" : got.error().message;
  };
  EXPECT_THAT(message({.prompts = 1, .prompt = 100, .tokens = 4, .progress = {}}),
              HasSubstr("100"));
  EXPECT_THAT(message({.prompts = 1, .prompt = 510, .tokens = 4, .progress = {}}),
              HasSubstr("512"));
  EXPECT_FALSE(cut_prompts(model, text, {.prompts = 0, .prompt = 4, .tokens = 4, .progress = {}}));
  const std::vector<std::vector<TokenId>> one{{1, 2}};
  EXPECT_FALSE(evaluate_agreement(model, CacheFactory::exact(model), one, {}, {}, workers));
}

}  // namespace
}  // namespace mkv
