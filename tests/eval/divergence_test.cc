#include "eval/divergence.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "base/rng.h"

namespace mkv {
namespace {

std::vector<float> random_logits(size_t count, uint64_t seed) {
  Rng rng(seed);
  std::vector<float> logits(count);
  for (float& x : logits) x = static_cast<float>(5.0 * rng.normal());
  return logits;
}

std::vector<long double> softmax(const std::vector<float>& logits) {
  std::vector<long double> p;
  long double sum = 0;
  for (const float x : logits) p.push_back(std::exp(static_cast<long double>(x)));
  for (const long double x : p) sum += x;
  for (long double& x : p) x /= sum;
  return p;
}

TEST(Divergence, EqualRowsGiveExactlyZero) {
  const std::vector<float> logits = random_logits(1000, 1);
  const Comparison same = compare_logits(logits, logits, 7);
  EXPECT_EQ(same.kl, 0.0);
  EXPECT_EQ(same.nll, same.nll_base);
  EXPECT_TRUE(same.same_top);
}

TEST(Divergence, DoesNotSeeAConstant) {
  std::vector<float> logits = random_logits(64, 1), shifted = logits;
  for (float& x : shifted) x += 64.0f;
  EXPECT_NEAR(kl_divergence(logits, shifted), 0.0, 1e-9);
}

TEST(Divergence, AgreesWithTheDefinition) {
  const std::vector<float> base = random_logits(500, 2), logits = random_logits(500, 3);
  const auto p = softmax(base), q = softmax(logits);
  long double kl = 0;
  for (size_t i = 0; i < p.size(); ++i) kl += p[i] * (std::log(p[i]) - std::log(q[i]));
  const Comparison got = compare_logits(base, logits, 42);
  EXPECT_NEAR(got.kl, static_cast<double>(kl), 1e-12);
  EXPECT_NEAR(got.nll_base, static_cast<double>(-std::log(p[42])), 1e-12);
  EXPECT_NEAR(got.nll, static_cast<double>(-std::log(q[42])), 1e-12);
  EXPECT_NEAR(negative_log_likelihood(logits, 42), got.nll, 1e-12);
}

TEST(Divergence, HugeLogitsDoNotOverflow) {
  const std::vector<float> base{3e4f, -3e4f, 0.0f}, logits{-3e4f, 3e4f, 0.0f};
  EXPECT_NEAR(kl_divergence(base, logits), 6e4, 1e-6);
}

TEST(Divergence, NotANumberIsNotHidden) {
  std::vector<float> logits = random_logits(10, 1), broken = logits;
  broken[3] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(std::isnan(kl_divergence(logits, broken)));
}

TEST(Average, IsLlamaCppsFormula) {
  const std::vector<double> values{1.0, 2.0, 4.0};
  const Average got = average(values);
  EXPECT_DOUBLE_EQ(got.mean, 7.0 / 3.0);
  EXPECT_NEAR(got.standard_error, std::sqrt((21.0 / 3.0 - 49.0 / 9.0) / 2.0), 1e-12);
  EXPECT_EQ(average({}).mean, 0.0);
}

}  // namespace
}  // namespace mkv
