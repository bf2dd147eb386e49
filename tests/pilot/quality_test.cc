// Which sizes are measured, and which of them is recommended.
#include "pilot/quality.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "eval/identity_nest.h"

namespace mkv {
namespace {

QualityPoint point(std::optional<size_t> rung, double increase, double log_error = 0) {
  QualityPoint out;
  out.rung = rung;
  out.quality.perplexity_base = 10;
  out.quality.perplexity = 10 * (1 + increase);
  out.quality.log_ratio_stderr = log_error;
  return out;
}

TEST(SmallestWithin, IsTheLastBeforeTheFirstThatFails) {
  const std::vector<QualityPoint> points{point({}, 0),    point({}, 0.5),  point(0, 0.001),
                                         point(5, 0.009), point(9, 0.011), point(12, 0.008)};
  EXPECT_EQ(smallest_within(points, 0.01, 0), 3u);  // 12 keeps it too, but 9 does not
  EXPECT_EQ(smallest_within(points, 0.02, 0), 5u);
  EXPECT_EQ(smallest_within(points, 0.001 - 1e-9, 0), std::nullopt);
  EXPECT_EQ(smallest_within({}, 1, 0), std::nullopt);
}

TEST(SmallestWithin, ConfidenceAsksForMore) {
  const std::vector<QualityPoint> points{point(0, 0.001, 0.001), point(5, 0.005, 0.004)};
  EXPECT_EQ(smallest_within(points, 0.01, 0), 1u);
  EXPECT_EQ(smallest_within(points, 0.01, kConfidentErrors), 0u);
  EXPECT_NEAR(points[1].perplexity_increase(kConfidentErrors), 1.005 * std::exp(0.00658) - 1, 1e-9);
}

class Quality : public ::testing::Test {
 protected:
  Result<std::vector<QualityPoint>> measure(const QualityOptions& options) {
    const WindowOptions cut{.context = 128, .limit = 2};
    const Windows windows = must(cut_windows(
        model_.tokenizer().special(), random_tokens(256, model_.config().vocab_size, 3), cut));
    return measure_quality(model_, nest_, windows, options, workers_);
  }

  Model model_ = tiny_model();
  Nest nest_ = identity_nest(model_, 0);
  Workers workers_{2};
};

TEST_F(Quality, MeasuresPeersAndSizes) {
  const auto points = must(measure({.shares = {1, 0.5, 0.25}, .refinements = 0, .eval = {}}));
  std::vector<std::string> budgets;
  for (const QualityPoint& each : points) budgets.push_back(each.budget);
  EXPECT_THAT(budgets, ::testing::ElementsAre("exact", "q8_0", "q4_0", "max", "8bits", "4bits"));
  EXPECT_EQ(points[0].quality.kl, 0);
  EXPECT_FALSE(points[2].rung);
  for (size_t i = 3; i < points.size(); ++i) {
    EXPECT_EQ(rung_for_budget(nest_, points[i].budget).value(), points[i].rung);
    EXPECT_EQ(points[i].context, 128u);
  }
  EXPECT_GT(points[5].quality.kl, points[4].quality.kl);
  EXPECT_LT(points[5].quality.kv.kv_bytes_per_token, points[4].quality.kv.kv_bytes_per_token);
  EXPECT_DOUBLE_EQ(points[4].coded_bytes_per_token,
                   static_cast<double>(model_.config().kv_shape().values_per_token()));
}

TEST_F(Quality, RefinesAroundTheTolerance) {
  const auto coarse = must(measure({.shares = {1, 0.5, 0.1}, .refinements = 0, .eval = {}}));
  const double low = coarse[3].perplexity_increase(0), high = coarse[5].perplexity_increase(0);
  ASSERT_LT(low, high);
  const double tolerance = (low + high) / 2;
  const auto points = must(
      measure({.tolerance = tolerance, .shares = {1, 0.5, 0.1}, .refinements = 3, .eval = {}}));
  ASSERT_EQ(points.size(), coarse.size() + 3);
  for (size_t i = 4; i < points.size(); ++i) EXPECT_GT(points[i].rung, points[i - 1].rung);
  const size_t before = smallest_within(coarse, tolerance, 0).value(),
               after = smallest_within(points, tolerance, 0).value();
  EXPECT_GE(points[after].rung, coarse[before].rung);
  // 1, 0.5, 0.1 of 100 and three halvings of the gap: 5 or 7 hundredths of the full 16 bits.
  ASSERT_LT(after + 1, points.size());
  EXPECT_LT(points[after].quality.kv.coded_bits_per_value -
                points[after + 1].quality.kv.coded_bits_per_value,
            0.08 * 16);
}

TEST_F(Quality, TellsEachCache) {
  std::vector<std::string> told;
  size_t last = 0;
  QualityOptions options{.shares = {1}, .refinements = 0, .eval = {}};
  options.eval.progress = [&](const Progress& progress) {
    if (progress.stage != "quality") return;
    EXPECT_GE(progress.done, last);
    last = progress.done;
    EXPECT_EQ(progress.total, 4u);
    told.emplace_back(progress.detail.substr(0, progress.detail.find(':')));
  };
  must(measure(options));
  EXPECT_THAT(told, ::testing::ElementsAre("exact", "q8_0", "q4_0", "max", ""));
  EXPECT_EQ(last, 4u);
}

TEST_F(Quality, RefusesWhatMakesNoSense) {
  for (const double share : {0.0, -0.5, 1.5}) {
    const auto refused = measure({.shares = {share}, .eval = {}});
    ASSERT_FALSE(refused) << share;
    EXPECT_EQ(refused.error().code, ErrorCode::invalid_argument);
  }
  EXPECT_FALSE(measure({.tolerance = -0.01, .eval = {}}));
}

}  // namespace
}  // namespace mkv
