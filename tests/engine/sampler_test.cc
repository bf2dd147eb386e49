#include "engine/sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>

namespace mkv {
namespace {

using ::testing::HasSubstr;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

Sampler sampler(const SamplingOptions& options) {
  auto made = Sampler::create(options);
  EXPECT_TRUE(made) << made.error().message;
  return std::move(made).value();
}

// How often each token comes in `draws` draws.
std::map<TokenId, double> frequencies(const SamplingOptions& options,
                                      const std::vector<float>& logits,
                                      const std::vector<TokenId>& history = {},
                                      size_t draws = 20000) {
  Sampler s = sampler(options);
  std::map<TokenId, double> counts;
  for (size_t i = 0; i < draws; ++i) {
    counts[*s.sample(logits, history)] += 1.0 / static_cast<double>(draws);
  }
  return counts;
}

std::vector<float> log_of(const std::vector<double>& probabilities) {
  std::vector<float> logits;
  for (double p : probabilities) logits.push_back(static_cast<float>(std::log(p)) + 3.0f);
  return logits;
}

SamplingOptions unbiased() { return SamplingOptions::unbiased(7); }

TEST(SamplerTest, GreedyTakesTheLikeliestAndTheFirstOfEquals) {
  Sampler s = sampler(SamplingOptions::greedy());
  EXPECT_EQ(*s.sample(std::vector<float>{1, 3, 2}, {}), 1);
  EXPECT_EQ(*s.sample(std::vector<float>{1, 3, 3}, {}), 1);
  EXPECT_EQ(*s.sample(std::vector<float>{-kInfinity, -5, kNan}, {}), 1);
  EXPECT_EQ(*s.sample(std::vector<float>{0, kInfinity, 5}, {}), 1);
}

TEST(SamplerTest, DrawsFromTheDistribution) {
  const std::vector<double> p = {0.5, 0.3, 0.15, 0.05};
  const auto found = frequencies(unbiased(), log_of(p));
  // Four standard deviations of a frequency over 20,000 draws are at most 0.0141.
  for (size_t i = 0; i < p.size(); ++i) EXPECT_NEAR(found.at(static_cast<TokenId>(i)), p[i], 0.015);
}

TEST(SamplerTest, TemperatureSharpensAndFlattens) {
  const std::vector<float> logits = log_of({0.8, 0.2});
  SamplingOptions options = unbiased();
  options.temperature = 0.5f;  // odds 4 become 16
  EXPECT_NEAR(frequencies(options, logits).at(0), 16.0 / 17, 0.015);
  options.temperature = 2.0f;  // and 2
  EXPECT_NEAR(frequencies(options, logits).at(0), 2.0 / 3, 0.015);
}

TEST(SamplerTest, TopK) {
  const std::vector<float> logits = log_of({0.1, 0.4, 0.2, 0.3});
  SamplingOptions options = unbiased();
  options.top_k = 2;
  const auto two = frequencies(options, logits);
  ASSERT_EQ(two.size(), 2u);
  EXPECT_NEAR(two.at(1), 4.0 / 7, 0.015);
  options.top_k = 1;
  EXPECT_EQ(frequencies(options, logits, {}, 100).size(), 1u);
  options.top_k = 99;
  EXPECT_EQ(frequencies(options, logits).size(), 4u);
}

TEST(SamplerTest, TopPKeepsTheFewestThatReachIt) {
  const std::vector<float> logits = log_of({0.05, 0.5, 0.15, 0.3});
  SamplingOptions options = unbiased();
  options.top_p = 0.49f;
  EXPECT_EQ(frequencies(options, logits, {}, 100).size(), 1u);
  options.top_p = 0.6f;
  EXPECT_EQ(frequencies(options, logits).size(), 2u);
  options.top_p = 1e-30f;
  EXPECT_EQ(frequencies(options, logits, {}, 100).size(), 1u);
  options.top_p = 0.99f;
  EXPECT_EQ(frequencies(options, logits).size(), 4u);
}

TEST(SamplerTest, TopPIsOfWhatTopKLeft) {
  const std::vector<float> logits = log_of({0.4, 0.3, 0.2, 0.1});
  SamplingOptions options = unbiased();
  options.top_k = 2;  // 0.4 / 0.7 = 0.57
  options.top_p = 0.55f;
  EXPECT_EQ(frequencies(options, logits, {}, 200).size(), 1u);
}

TEST(SamplerTest, TopPOfALargeVocabulary) {
  std::vector<float> logits(3000, 0.0f);  // equal: the first ones in order of their ids
  SamplingOptions options = unbiased();
  options.top_p = 0.5f;
  const auto found = frequencies(options, logits, {}, 1000);
  EXPECT_LE(found.rbegin()->first, 1499);
  EXPECT_GE(found.rbegin()->first, 1400);
}

TEST(SamplerTest, MinP) {
  const std::vector<float> logits = log_of({0.5, 0.3, 0.15, 0.05});
  SamplingOptions options = unbiased();
  options.min_p = 0.2f;  // of 0.5
  EXPECT_EQ(frequencies(options, logits).size(), 3u);
  options.min_p = 1.0f;
  EXPECT_EQ(frequencies(options, logits, {}, 200).size(), 1u);
}

TEST(SamplerTest, RepetitionPenaltyAsInTransformers) {
  SamplingOptions options = SamplingOptions::greedy();
  options.repetition_penalty = 2.0f;
  Sampler s = sampler(options);
  const std::vector<float> positive = {3, 2, 1}, negative = {-1, -1.5f, -3};
  EXPECT_EQ(*s.sample(positive, std::vector<TokenId>{0}), 1);     // 3 / 2 < 2
  EXPECT_EQ(*s.sample(positive, std::vector<TokenId>{0, 1}), 0);  // 1.5, 1, 1
  EXPECT_EQ(*s.sample(negative, std::vector<TokenId>{0}), 1);     // -2 < -1.5
  // Once a token, however often it came: 3 / 2 stays above 1.
  EXPECT_EQ(*s.sample(std::vector<float>{3, 1.2f}, std::vector<TokenId>{0, 0, 0}), 0);
  // Tokens outside the vocabulary do no harm.
  EXPECT_EQ(*s.sample(positive, std::vector<TokenId>{-1, 99}), 0);
}

TEST(SamplerTest, PenaltyWindowForgets) {
  SamplingOptions options = SamplingOptions::greedy();
  options.repetition_penalty = 2.0f;
  options.repetition_window = 2;
  Sampler s = sampler(options);
  const std::vector<float> logits = {3, 2, 1};
  EXPECT_EQ(*s.sample(logits, std::vector<TokenId>{0, 2}), 1);
  EXPECT_EQ(*s.sample(logits, std::vector<TokenId>{0, 2, 2}), 0);
}

TEST(SamplerTest, SeedsDecide) {
  const std::vector<float> logits(100, 0.0f);
  auto draw = [&](uint64_t seed) {
    Sampler s = sampler(SamplingOptions::unbiased(seed));
    std::vector<TokenId> tokens;
    for (int i = 0; i < 20; ++i) tokens.push_back(*s.sample(logits, {}));
    return tokens;
  };
  EXPECT_EQ(draw(1), draw(1));
  EXPECT_NE(draw(1), draw(2));
}

TEST(SamplerTest, SaysWhichLogitsMayBeDrawn) {
  const auto within = [](const SamplingOptions& options) {
    return Sampler::create(options)->exact_within();
  };
  SamplingOptions options = SamplingOptions::greedy();
  EXPECT_EQ(within(options), 0.0f);
  options.repetition_penalty = 1.1f;  // may bring any token to the top
  EXPECT_EQ(within(options), std::numeric_limits<float>::infinity());
  options = SamplingOptions::unbiased(1);
  EXPECT_EQ(within(options), std::numeric_limits<float>::infinity());
  options.min_p = 0.05f;
  EXPECT_NEAR(within(options), std::log(20.0f), 0.01f);
  options.top_k = 1;
  EXPECT_EQ(within(options), 0.0f);
}

TEST(SamplerTest, NoNumberIsAnError) {
  for (const SamplingOptions& options : {SamplingOptions::greedy(), SamplingOptions()}) {
    Sampler s = sampler(options);
    EXPECT_FALSE(s.sample(std::vector<float>{kNan, -kInfinity}, {}));
    EXPECT_FALSE(s.sample({}, {}));
  }
}

TEST(SamplerTest, OptionsOutOfRangeAreNamed) {
  const std::pair<const char*, void (*)(SamplingOptions&)> bad[] = {
      {"temperature", [](SamplingOptions& o) { o.temperature = -1; }},
      {"temperature", [](SamplingOptions& o) { o.temperature = kNan; }},
      {"top_p", [](SamplingOptions& o) { o.top_p = 0; }},
      {"top_p", [](SamplingOptions& o) { o.top_p = 1.5f; }},
      {"min_p", [](SamplingOptions& o) { o.min_p = -0.1f; }},
      {"repetition_penalty", [](SamplingOptions& o) { o.repetition_penalty = 0; }},
      {"repetition_penalty", [](SamplingOptions& o) { o.repetition_penalty = kInfinity; }},
  };
  for (const auto& [name, change] : bad) {
    SamplingOptions options;
    change(options);
    const auto valid = options.validate();
    ASSERT_FALSE(valid) << name;
    EXPECT_THAT(valid.error().message, HasSubstr(name));
  }
}

}  // namespace
}  // namespace mkv
