#include "nest/rounding.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "base/check.h"
#include "base/half.h"

namespace mkv {
namespace {

float as_f16(float x) { return f16_to_f32(f32_to_f16(x)); }

// Steps are found with the scale as it is, and taken back with the 16-bit one that is stored.
void round_q8_0(std::span<float> block) {
  float most = 0.0f;
  for (const float x : block) most = std::max(most, std::fabs(x));
  const float scale = most / 127.0f, stored = as_f16(scale);
  const float inverse = scale == 0.0f ? 0.0f : 1.0f / scale;
  for (float& x : block) x = stored * std::round(x * inverse);
}

void round_q4_0(std::span<float> block) {
  const auto farther = [](float a, float b) { return std::fabs(a) < std::fabs(b); };
  const float scale = *std::ranges::max_element(block, farther) / -8.0f, stored = as_f16(scale);
  const float inverse = scale == 0.0f ? 0.0f : 1.0f / scale;
  for (float& x : block) x = stored * (std::min(15.0f, std::floor(x * inverse + 8.5f)) - 8.0f);
}

// x -> H x / sqrt(n), H being Sylvester's; its own inverse.
void turn_by_hadamard(std::span<float> x) {
  for (size_t half = 1; half < x.size(); half *= 2) {
    for (size_t i = 0; i < x.size(); ++i) {
      if ((i & half) != 0) continue;
      const float a = x[i], b = x[i + half];
      x[i] = a + b;
      x[i + half] = a - b;
    }
  }
  const float length = 1.0f / std::sqrt(static_cast<float>(x.size()));
  for (float& value : x) value *= length;
}

void turn_each(size_t size, std::span<float> row) {
  if (size == 1) return;
  for (size_t at = 0; at < row.size(); at += size) turn_by_hadamard(row.subspan(at, size));
}

}  // namespace

size_t rounding_rotation(size_t head_dim) {
  return head_dim % 64 == 0 ? size_t{1} << std::countr_zero(head_dim) : 1;
}

void round_row(Rounding rounding, size_t head_dim, std::span<float> row) {
  if (rounding == Rounding::none) return;
  MKV_CHECK(row.size() % kRoundingBlock == 0 && row.size() % head_dim == 0);
  turn_each(rounding_rotation(head_dim), row);
  for (size_t at = 0; at < row.size(); at += kRoundingBlock) {
    const std::span<float> block = row.subspan(at, kRoundingBlock);
    rounding == Rounding::q8_0 ? round_q8_0(block) : round_q4_0(block);
  }
  turn_each(rounding_rotation(head_dim), row);
}

double bits_per_value(Rounding rounding) {
  MKV_CHECK(rounding != Rounding::none);
  constexpr double kScaleBits = 16.0 / kRoundingBlock;
  return (rounding == Rounding::q8_0 ? 8.0 : 4.0) + kScaleBits;
}

}  // namespace mkv
