#include "base/half.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "base/rng.h"

namespace mkv {
namespace {

struct Format {
  int mantissa_bits, min_exponent;
  double overflow;  // the least magnitude that rounds to infinity
};
constexpr Format kF16{10, -14, 65520.0};
constexpr Format kBf16{7, -126, 0x1.ffp127};

// The nearest value of the format, ties to even, computed in double where nothing is lost.
double round_to(const Format& format, float x) {
  if (std::isnan(x) || std::isinf(x) || x == 0.0f) return x;
  if (std::fabs(x) >= format.overflow) return std::copysign(INFINITY, x);
  const int exponent = std::max(std::ilogb(x), format.min_exponent);
  const double quantum = std::ldexp(1.0, exponent - format.mantissa_bits);
  return std::copysign(std::nearbyint(x / quantum) * quantum, x);
}

bool same(double a, double b) {
  return (std::isnan(a) && std::isnan(b)) || (a == b && std::signbit(a) == std::signbit(b));
}

void expect_rounds(float x) {
  ASSERT_TRUE(same(f16_to_f32(f32_to_f16(x)), round_to(kF16, x))) << x;
  ASSERT_TRUE(same(bf16_to_f32(f32_to_bf16(x)), round_to(kBf16, x))) << x;
}

TEST(Half, EveryValueComesBack) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const auto h = static_cast<uint16_t>(bits);
    if (const float x = f16_to_f32(h); std::isnan(x)) {
      ASSERT_TRUE(std::isnan(f16_to_f32(f32_to_f16(x)))) << bits;
    } else {
      ASSERT_EQ(f32_to_f16(x), h);
    }
    if (const float x = bf16_to_f32(h); std::isnan(x)) {
      ASSERT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(x)))) << bits;
    } else {
      ASSERT_EQ(f32_to_bf16(x), h);
    }
  }
}

TEST(Half, KnownValues) {
  EXPECT_EQ(f32_to_f16(1.0f), 0x3c00);
  EXPECT_EQ(f32_to_f16(-2.0f), 0xc000);
  EXPECT_EQ(f32_to_f16(65504.0f), 0x7bff);
  EXPECT_EQ(f32_to_f16(65519.0f), 0x7bff);
  EXPECT_EQ(f32_to_f16(65520.0f), 0x7c00);
  EXPECT_EQ(f32_to_f16(0x1p-24f), 0x0001);
  EXPECT_EQ(f32_to_f16(0x1p-25f), 0x0000);
  EXPECT_EQ(f32_to_f16(0x1.000002p-25f), 0x0001);
  EXPECT_EQ(f32_to_f16(-0.0f), 0x8000);
  EXPECT_EQ(f32_to_bf16(1.0f), 0x3f80);
  EXPECT_EQ(f32_to_bf16(std::numeric_limits<float>::max()), 0x7f80);
}

TEST(Half, RoundsToNearestEvenBetweenNeighbours) {
  for (uint32_t bits = 0; bits < 0x7c00; ++bits) {
    const float low = f16_to_f32(static_cast<uint16_t>(bits));
    const float high = bits == 0x7bff ? 65536.0f : f16_to_f32(static_cast<uint16_t>(bits + 1));
    const float middle = (low + high) / 2;
    for (const float x : {middle, std::nextafter(middle, low), std::nextafter(middle, high)}) {
      expect_rounds(x);
      expect_rounds(-x);
    }
  }
}

TEST(Half, RoundsRandomFloats) {
  Rng rng(1);
  for (int i = 0; i < 500'000; ++i) {
    const auto bits = static_cast<uint32_t>(rng.next());
    expect_rounds(std::bit_cast<float>(bits));
    // The same with an exponent that f16 has.
    expect_rounds(std::bit_cast<float>((bits & 0x807fffffu) |
                                       (static_cast<uint32_t>(100 + rng.below(45)) << 23)));
  }
}

}  // namespace
}  // namespace mkv
