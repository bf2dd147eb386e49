#include "base/rng.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>

namespace mkv {
namespace {

// From an independent Python implementation of splitmix64 and xoshiro256**; the first value of seed
// 0 is also that of Rust's rand_xoshiro.
TEST(Rng, GoldenValues) {
  Rng zero(0);
  for (const uint64_t expected :
       {0x99ec5f36cb75f2b4u, 0xbf6e1f784956452au, 0x1a5f849d4933e6e0u, 0x6aa594f1262d2d2cu}) {
    EXPECT_EQ(zero.next(), expected);
  }
  Rng other(42);
  for (const uint64_t expected :
       {0x15780b2e0c2ec716u, 0x6104d9866d113a7eu, 0xae17533239e499a1u, 0xecb8ad4703b360a1u}) {
    EXPECT_EQ(other.next(), expected);
  }
}

TEST(Rng, UniformFillsTheInterval) {
  constexpr int kDraws = 200'000, kBins = 20;
  Rng rng(1);
  std::array<int, kBins> counts{};
  double sum = 0;
  for (int i = 0; i < kDraws; ++i) {
    const double x = rng.uniform();
    ASSERT_GE(x, 0.0);
    ASSERT_LT(x, 1.0);
    sum += x;
    ++counts[static_cast<size_t>(x * kBins)];
  }
  EXPECT_NEAR(sum / kDraws, 0.5, 0.004);  // six standard errors
  double chi_square = 0;
  for (const int count : counts) chi_square += std::pow(count - kDraws / kBins, 2);
  EXPECT_LT(chi_square / (kDraws / kBins), 50.0);  // 19 degrees of freedom: p < 1e-4
}

TEST(Rng, BelowIsUniformAndInRange) {
  Rng rng(2);
  std::array<int, 7> counts{};
  for (int i = 0; i < 70'000; ++i) ++counts.at(rng.below(7));
  for (const int count : counts) EXPECT_NEAR(count, 10'000, 600);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(rng.below(1), 0u);
}

TEST(Rng, NormalHasMeanZeroAndVarianceOne) {
  constexpr int kDraws = 200'000;
  Rng rng(3);
  double sum = 0, squares = 0, fourth = 0;
  for (int i = 0; i < kDraws; ++i) {
    const double x = rng.normal();
    ASSERT_TRUE(std::isfinite(x));
    sum += x;
    squares += x * x;
    fourth += x * x * x * x;
  }
  EXPECT_NEAR(sum / kDraws, 0.0, 0.014);
  EXPECT_NEAR(squares / kDraws, 1.0, 0.02);
  EXPECT_NEAR(fourth / kDraws, 3.0, 0.15);
}

}  // namespace
}  // namespace mkv
