// Tables of nest/angle_kernels.h.
#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "nest/angle_kernels.h"
#include "nest/kv_cache.h"

namespace mkv {
namespace {

// Polynomials are in the position from a block's middle over this.
constexpr double kRadius = kHalfTokens;
// A pair that turns by no more than this over the radius is slow: what T_8 would add to it is
// twice the Bessel function J_8 of it, 2.2e-5, less than half of what rounding angles does.
constexpr double kSlow = 1.8;

int16_t rounded(double x) { return static_cast<int16_t>(std::lrint(x)); }

// Chebyshev coefficients of cos(x u) (T_0, T_2 ...) and of sin(x u) (T_1, T_3 ...), |u| <= 1.
struct Coefficients {
  std::array<double, kSmooth> even = {}, odd = {};
};
Coefficients chebyshev(double x) {
  constexpr size_t kNodes = 32;
  Coefficients c;
  for (size_t n = 0; n < kNodes; ++n) {
    const double angle = std::numbers::pi * (static_cast<double>(n) + 0.5) / kNodes;
    const double u = std::cos(angle);
    for (size_t k = 0; k < kSmooth; ++k) {
      const auto degree = static_cast<double>(2 * k);
      c.even[k] += (k == 0 ? 1.0 : 2.0) / kNodes * std::cos(x * u) * std::cos(degree * angle);
      c.odd[k] += 2.0 / kNodes * std::sin(x * u) * std::cos((degree + 1.0) * angle);
    }
  }
  return c;
}

// The leading pairs up to the last that is not slow, padded; all if too few would be left.
size_t fast_pairs(std::span<const double> frequency) {
  size_t fast = frequency.size();
  while (fast > 0 && std::abs(frequency[fast - 1]) * kRadius <= kSlow) --fast;
  const size_t padded = padded_pairs(fast);
  return padded + kPairsAtOnce < frequency.size() ? padded : padded_pairs(frequency.size());
}

void add_half_block(std::span<const double> frequency, MeanAngles& angles) {
  const size_t fast = std::min(angles.fast, frequency.size());
  for (size_t t = 0; t < kHalfTokens; ++t) {
    const double position = static_cast<double>(t) + 0.5;
    const auto set = [&](size_t i, double even, double odd) {
      int16_t* at = angles.half_block.data() + (i / 2 * 2 * kHalfTokens + t) * 2 + i % 2;
      at[0] = rounded(even * kAngleOne);
      at[kHalfTokens * 2] = rounded(odd * kAngleOne);
    };
    for (size_t i = 0; i < fast; ++i) {
      set(i, std::cos(frequency[i] * position), std::sin(frequency[i] * position));
    }
    if (!angles.smooth()) continue;
    const double angle = std::acos(position / kRadius);
    for (size_t k = 0; k < kSmooth; ++k) {
      const auto degree = static_cast<double>(2 * k);
      set(angles.fast + k, std::cos(degree * angle), std::cos((degree + 1.0) * angle));
    }
  }
}

void add_fast_turns(std::span<const double> frequency, MeanAngles& angles) {
  for (size_t block = 0; block < kTurnedBlocks; ++block) {
    const auto position = static_cast<double>(block * kBlockTokens);
    for (size_t i = 0; i < std::min(angles.fast, frequency.size()); ++i) {
      int16_t* at = angles.turns.data() + block * 2 * angles.fast + i;
      at[0] = rounded(std::cos(frequency[i] * position) * kAngleOne);
      at[angles.fast] = rounded(std::sin(frequency[i] * position) * kAngleOne);
    }
  }
}

void add_smooth_turns(std::span<const double> frequency, MeanAngles& angles) {
  for (size_t i = angles.fast; i < frequency.size(); ++i) {
    const Coefficients c = chebyshev(frequency[i] * kRadius);
    for (size_t block = 0; block < kTurnedBlocks; ++block) {
      const auto position = static_cast<double>(block * kBlockTokens);
      const double cos = std::cos(frequency[i] * position) * kSmoothOne;
      const double sin = std::sin(frequency[i] * position) * kSmoothOne;
      const auto set = [&](size_t side, size_t k, double x) {
        const size_t two = (i - angles.fast) / 2 * 2 + side;
        const size_t at = (two * kTurnedBlocks + block) * 2 * kSmooth + k;
        angles.to_smooth[at * 2 + i % 2] = rounded(x);
      };
      for (size_t k = 0; k < kSmooth; ++k) {
        set(0, k, c.even[k] * cos);
        set(1, k, c.even[k] * sin);
        set(0, kSmooth + k, -c.odd[k] * sin);
        set(1, kSmooth + k, c.odd[k] * cos);
      }
    }
  }
}

Buffer<int16_t> zeros(size_t count) {
  Buffer<int16_t> out(count);
  std::ranges::fill(out.span(), int16_t{0});
  return out;
}

}  // namespace

MeanAngles make_mean_angles(std::span<const double> frequency) {
  const size_t pairs = frequency.size();
  MeanAngles angles;
  angles.pairs = pairs;
  angles.fast = fast_pairs(frequency);
  angles.middle.resize_exactly(2 * pairs);
  for (size_t i = 0; i < pairs; ++i) {
    angles.middle[i] = static_cast<float>(std::cos(frequency[i] * kMiddle));
    angles.middle[pairs + i] = static_cast<float>(std::sin(frequency[i] * kMiddle));
  }
  angles.turns = zeros(kTurnedBlocks * 2 * angles.fast);
  if (angles.smooth()) {
    const size_t slow = padded_pairs(pairs) - angles.fast;
    angles.to_smooth = zeros(slow * 2 * kTurnedBlocks * 2 * kSmooth);
  }
  angles.half_block = zeros(2 * angles.scored() * kHalfTokens);
  add_half_block(frequency, angles);
  add_fast_turns(frequency, angles);
  add_smooth_turns(frequency, angles);
  return angles;
}

MeanAngles MeanAngles::clone() const {
  return {.pairs = pairs,
          .fast = fast,
          .middle = middle.clone(),
          .turns = turns.clone(),
          .to_smooth = to_smooth.clone(),
          .half_block = half_block.clone()};
}

}  // namespace mkv
