// A copied cache goes on as the original would, and neither sees the other's tokens; a cache that
// rounds as other engines store holds what is rounded.
#include <gtest/gtest.h>

#include <bit>

#include "base/half.h"
#include "nest/code_fixture.h"

namespace mkv {
namespace {

constexpr size_t kHeads = 2, kHeadDim = 16, kWidth = kHeads * kHeadDim;
constexpr LayerWidths kWidths{kWidth, kWidth, 0.25f};

NestConfig config(size_t recent) {
  NestConfig config;
  config.shape = {1, kHeads, kHeadDim};
  config.recent = recent;
  return config;
}

void expect_equal(const Matrix<float>& a, const Matrix<float>& b) {
  ASSERT_EQ(a.span().size(), b.span().size());
  for (size_t i = 0; i < a.span().size(); ++i) ASSERT_EQ(a.span()[i], b.span()[i]) << i;
}

// Continues `cache` twice from the same state: by a copy, with another continuation between.
void expect_copies_to_be_alone(KvCache cache) {
  feed_layer(cache, kWidths, 200, 50, 1, 1);
  KvCache other = cache.clone(), same = cache.clone();
  EXPECT_EQ(same.length(), 200u);
  EXPECT_EQ(same.coded(), cache.coded());
  EXPECT_EQ(same.bytes(), cache.bytes());
  EXPECT_EQ(same.ranks(), cache.ranks());
  const Matrix<float> strange = feed_layer(other, kWidths, 90, 7, 50, 1);
  const Matrix<float> expected = feed_layer(cache, kWidths, 90, 7, 90, 1);
  const Matrix<float> got = feed_layer(same, kWidths, 90, 7, 90, 1);
  expect_equal(expected, got);
  EXPECT_NE(strange.at(80, 3), got.at(80, 3));
  EXPECT_EQ(same.length(), 290u);
}

TEST(KvCacheClone, ExactCopiesGoOnAlone) {
  const LayerTypes types = layers_alike(kHeadDim);
  expect_copies_to_be_alone(KvCache({1, kHeads, kHeadDim}, types, 512));
}

TEST(KvCacheClone, CodedCopiesGoOnAlone) {
  const LayerTypes types = layers_alike(kHeadDim), sliding = layers_alike(kHeadDim, 150);
  for (const size_t recent : {0u, 64u}) {
    Nest columns = std::move(Nest::create(config(recent))).value();
    fill_random_bases(columns, 3);
    Ranks half = columns.full_ranks();
    for (uint16_t& rank : half) rank = static_cast<uint16_t>(rank / 2);
    expect_copies_to_be_alone(KvCache(columns, half, types, 512));
    expect_copies_to_be_alone(KvCache(columns, half, sliding, 512));
    const Nest codes = make_code_nest(config(recent), 9, 3);
    for (const Arithmetic arithmetic : {Arithmetic::float32, Arithmetic::fast}) {
      expect_copies_to_be_alone(
          KvCache(codes, codes.full_ranks(), types, 512, {.arithmetic = arithmetic}));
    }
  }
}

TEST(KvCacheClone, ACopyIsCutAlone) {
  const LayerTypes types = layers_alike(kHeadDim);
  const Nest nest = make_code_nest(config(0), 9, 3);
  KvCache cache(nest, nest.full_ranks(), types, 512);
  feed_layer(cache, kWidths, 200, 50, 1, 1);
  const size_t before = cache.bytes();
  KvCache copy = cache.clone();
  ASSERT_TRUE(copy.shrink(Ranks(nest.spaces(), 2)));
  EXPECT_LT(copy.bytes(), before);
  EXPECT_EQ(cache.bytes(), before);
}

TEST(KvCacheCoded, CountsWhatTheWindowHasLeftBehind) {
  const LayerTypes types = layers_alike(kHeadDim);
  Nest nest = std::move(Nest::create(config(64))).value();
  KvCache cache(nest, nest.full_ranks(), types, 512);
  feed_layer(cache, kWidths, 60, 60, 1, 1);
  EXPECT_EQ(cache.coded(), 0u);
  feed_layer(cache, kWidths, 140, 70, 1, 1);  // 200 in all, 4 of them sinks: 4 blocks begun
  EXPECT_EQ(cache.coded(), 3 * kBlockTokens);
}

TEST(Rounding, Q8IsAStepOfTheLargest) {
  std::vector<float> row(32);
  for (size_t i = 0; i < row.size(); ++i) row[i] = static_cast<float>(i) - 20.0f;
  const std::vector<float> before = row;
  round_row(Rounding::q8_0, 32, row);
  const float step = f16_to_f32(f32_to_f16(20.0f / 127.0f));
  EXPECT_EQ(row[0], -127.0f * step);
  EXPECT_EQ(row[20], 0.0f);
  EXPECT_EQ(row[31], std::round(11.0f * 127.0f / 20.0f) * step);
  bool changed = false;
  for (size_t i = 0; i < row.size(); ++i) {
    EXPECT_NEAR(row[i], before[i], step * 0.51f);
    changed |= row[i] != before[i];
  }
  EXPECT_TRUE(changed);
}

// Eight steps towards the largest, seven away from it.
TEST(Rounding, Q4HasSixteenStepsTowardsTheLargest) {
  std::vector<float> row(64, 0.0f);
  row[3] = -4.0f;
  row[4] = 4.0f;    // 8 steps away from the largest: one more than there are
  row[5] = 0.7f;    // 1.4 steps of 0.5
  row[40] = 16.0f;  // the second block has steps of its own
  row[41] = 3.1f;
  row[42] = -16.0f;
  round_row(Rounding::q4_0, 32, row);
  EXPECT_EQ(row[3], -4.0f);
  EXPECT_EQ(row[4], 3.5f);
  EXPECT_EQ(row[5], 0.5f);
  EXPECT_EQ(row[40], 16.0f);
  EXPECT_EQ(row[41], 4.0f);
  EXPECT_EQ(row[42], -14.0f);
  EXPECT_EQ(row[0], 0.0f);
}

TEST(Rounding, ZerosStayAndNoneChangesNothing) {
  std::vector<float> zeros(32, 0.0f);
  round_row(Rounding::q8_0, 32, zeros);
  round_row(Rounding::q4_0, 32, zeros);
  for (const float x : zeros) EXPECT_EQ(x, 0.0f);
  std::vector<float> odd{1.25f, 3.0f};
  round_row(Rounding::none, 32, odd);
  EXPECT_EQ(odd[0], 1.25f);
  EXPECT_EQ(bits_per_value(Rounding::q8_0), 8.5);
  EXPECT_EQ(bits_per_value(Rounding::q4_0), 4.5);
}

TEST(Rounding, HeadsOf64AreTurnedFirst) {
  EXPECT_EQ(rounding_rotation(48), 1u);
  EXPECT_EQ(rounding_rotation(64), 64u);
  EXPECT_EQ(rounding_rotation(192), 64u);
  EXPECT_EQ(rounding_rotation(256), 256u);
  // One column of the matrix (H[i][5] is the sign of the parity of i & 5) has all of its length in
  // one turned value, which is a multiple of the step: nothing is lost.
  std::vector<float> column(64), outlier(64, 0.01f);
  for (size_t i = 0; i < 64; ++i) column[i] = std::popcount(i & 5) % 2 == 0 ? 2.0f : -2.0f;
  const std::vector<float> before = column;
  round_row(Rounding::q4_0, 64, column);
  for (size_t i = 0; i < 64; ++i) EXPECT_NEAR(column[i], before[i], 1e-3f);
  // An outlier is spread over all, so small values next to it do not all become zero.
  outlier[7] = 8.0f;
  std::vector<float> unturned = outlier;
  round_row(Rounding::q4_0, 64, outlier);
  round_row(Rounding::q4_0, 32, unturned);
  EXPECT_NE(outlier[8], 0.0f);
  EXPECT_EQ(unturned[8], 0.0f);
}

TEST(Rounding, ACacheHoldsRoundedTokens) {
  const LayerTypes types = layers_alike(kHeadDim);
  constexpr size_t kTokens = 70;
  const Matrix<float> q = random_matrix(kTokens, kWidth, 1);
  Matrix<float> k = random_matrix(kTokens, kWidth, 2), v = random_matrix(kTokens, kWidth, 3);
  const auto attend = [&](Rounding rounding) {
    KvCache cache({1, kHeads, kHeadDim}, types, 512, {.exact = DType::f32, .rounding = rounding});
    Matrix<float> out(kTokens, kWidth);
    AttentionScratch scratch;
    Workers workers(1);
    cache.attend(0, {q.view(), k.view(), v.view(), 0.25f}, out.view(), scratch, workers);
    return out;
  };
  const Matrix<float> plain = attend(Rounding::none), rounded = attend(Rounding::q4_0);
  for (size_t t = 0; t < kTokens; ++t) {
    round_row(Rounding::q4_0, kHeadDim, k.row(t));
    round_row(Rounding::q4_0, kHeadDim, v.row(t));
  }
  expect_equal(rounded, attend(Rounding::none));
  EXPECT_NE(plain.at(60, 2), rounded.at(60, 2));
}

}  // namespace
}  // namespace mkv
