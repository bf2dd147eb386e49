#include "fit/statistics.h"

#include <gtest/gtest.h>

#include <cmath>

#include "eval/tiny_model.h"
#include "ops/ops.h"

namespace mkv {
namespace {

constexpr size_t kHeadDim = 8, kHeads = 2, kWidth = kHeads * kHeadDim;

ModelConfig one_layer() {
  ModelConfig config;
  config.num_layers = 1;
  config.num_kv_heads = kHeads;
  config.head_dim = kHeadDim;
  std::vector<double> frequencies;
  for (size_t i = 0; i < kHeadDim / 2; ++i) frequencies.push_back(std::pow(0.1, i));
  config.layer_types = LayerTypes(Rotary(frequencies));
  return config;
}

// Keys and values of one sequence, as a model would show them.
struct Shown {
  Matrix<float> before, keys, values, none;

  Shown(const ModelConfig& config, Matrix<float> keys_before_rope, Matrix<float> all_values)
      : before(std::move(keys_before_rope)),
        keys(before.clone()),
        values(std::move(all_values)),
        none(before.rows(), 1) {
    std::vector<float> cos(kHeadDim / 2), sin(kHeadDim / 2);
    for (size_t t = 0; t < keys.rows(); ++t) {
      config.rotary(0).angles(static_cast<double>(t), cos, sin);
      for (size_t h = 0; h < kHeads; ++h) {
        rope(keys.row(t).subspan(h * kHeadDim, kHeadDim), cos, sin);
      }
    }
  }
  LayerObservation part(size_t first, size_t count) const {
    LayerObservation seen;
    seen.first_position = first;
    seen.queries = none.view().rows_from(first, count);
    seen.attended = seen.queries;
    seen.keys_before_rope = before.view().rows_from(first, count);
    seen.keys = keys.view().rows_from(first, count);
    seen.values = values.view().rows_from(first, count);
    return seen;
  }
};

Matrix<float> random_rows(size_t rows, uint64_t seed, float offset) {
  Rng rng(seed);
  Matrix<float> m(rows, kWidth);
  for (float& x : m.span()) x = offset + static_cast<float>(rng.normal());
  return m;
}

// Both passes over one sequence, in two parts.
Statistics gather(const ModelConfig& config, const StatisticsOptions& options, const Shown& shown,
                  size_t threads) {
  Workers workers(threads);
  Statistics statistics(config, options);
  const size_t half = shown.keys.rows() / 2;
  statistics.add_to_means(shown.part(0, half));
  statistics.add_to_means(shown.part(half, shown.keys.rows() - half));
  statistics.fix_means();
  statistics.add(shown.part(0, half), workers);
  statistics.add(shown.part(half, shown.keys.rows() - half), workers);
  return statistics;
}

TEST(Statistics, CovarianceOfKnownValues) {
  const ModelConfig config = one_layer();
  const Shown shown(config, random_rows(50, 1, 0.0f), random_rows(50, 2, 3.0f));
  const StatisticsOptions options{.group_size = 2, .sinks = 4};
  const Statistics got = gather(config, options, shown, 1);
  ASSERT_EQ(got.spaces(), 2u);
  ASSERT_EQ(got.dims(), kWidth);
  EXPECT_EQ(got.tokens(1), 46u);
  std::vector<double> mean(kWidth, 0.0);
  for (size_t t = 4; t < 50; ++t) {
    for (size_t c = 0; c < kWidth; ++c) mean[c] += shown.values.at(t, c) / 46.0;
  }
  const Matrix<double> covariance = got.covariance(1);
  for (size_t i = 0; i < kWidth; ++i) {
    EXPECT_NEAR(got.mean(1)[i], mean[i], 1e-6);
    for (size_t j = 0; j < kWidth; ++j) {
      double expected = 0.0;
      for (size_t t = 4; t < 50; ++t) {
        expected += (shown.values.at(t, i) - mean[i]) * (shown.values.at(t, j) - mean[j]) / 46.0;
      }
      EXPECT_NEAR(covariance.at(i, j), expected, 1e-5);
    }
  }
}

TEST(Statistics, PositionMeanIsRemovedExactly) {
  const ModelConfig config = one_layer();
  Matrix<float> constant(300, kWidth);
  for (size_t t = 0; t < constant.rows(); ++t) {
    for (size_t c = 0; c < kWidth; ++c) constant.at(t, c) = 1.0f + static_cast<float>(c);
  }
  const Shown shown(config, constant.clone(), random_rows(300, 2, 0.0f));
  const Statistics got = gather(config, {.group_size = 1, .key_mean = KeyMean::position}, shown, 1);
  for (size_t head = 0; head < kHeads; ++head) {
    EXPECT_NEAR(got.mean(2 * head)[3], constant.at(0, head * kHeadDim + 3), 1e-5);
    const Matrix<double> nothing = got.covariance(2 * head);
    for (const double x : nothing.span()) EXPECT_NEAR(x, 0.0, 1e-8);
  }
  // RoPE spreads the same mean into variance where it is taken away as a constant.
  const Statistics plain = gather(config, {.group_size = 1, .key_mean = KeyMean::plain}, shown, 1);
  EXPECT_GT(plain.covariance(0).at(0, 0), 1.0);
  const Statistics raw = gather(config, {.group_size = 1, .key_mean = KeyMean::none}, shown, 1);
  EXPECT_EQ(raw.mean(0)[0], 0.0f);
  double trace = 0.0, square = 0.0;  // a turn keeps the length
  for (size_t c = 0; c < kHeadDim; ++c) {
    trace += raw.covariance(0).at(c, c);
    square += constant.at(0, c) * constant.at(0, c);
  }
  EXPECT_NEAR(trace, square, 1e-3);
}

TEST(Statistics, WorkersDoNotMatter) {
  const ModelConfig config = one_layer();
  const Shown shown(config, random_rows(200, 1, 1.0f), random_rows(200, 2, 3.0f));
  const Statistics one = gather(config, {}, shown, 1), three = gather(config, {}, shown, 3);
  for (size_t space = 0; space < one.spaces(); ++space) {
    const Matrix<double> a = one.covariance(space), b = three.covariance(space);
    EXPECT_TRUE(std::ranges::equal(a.span(), b.span())) << "space " << space;
  }
}

TEST(Statistics, OnlySinksGiveNothing) {
  const ModelConfig config = one_layer();
  const Shown shown(config, random_rows(4, 1, 1.0f), random_rows(4, 2, 3.0f));
  const Statistics got = gather(config, {.sinks = 4}, shown, 1);
  EXPECT_EQ(got.tokens(0), 0u);
  const Matrix<double> nothing = got.covariance(0);
  for (const double x : nothing.span()) EXPECT_EQ(x, 0.0);
}

TEST(Statistics, GroupSizeThatDoesNotDivideIsAnError) {
  const Model model = tiny_model();
  Workers workers(1);
  const auto got = gather_statistics(model, {}, {.group_size = 3}, {}, workers);
  ASSERT_FALSE(got);
  EXPECT_EQ(got.error().code, ErrorCode::invalid_argument);
}

}  // namespace
}  // namespace mkv
