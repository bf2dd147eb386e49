// What the kernels of nest/angle_kernels.h compute.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/view.h"
#include "nest/angle_kernels.h"

namespace mkv::reference {

inline void turn_and_round_mean_terms(View<const float> terms, std::span<const float> cos,
                                      std::span<const float> sin, int16_t* out) {
  const size_t pairs = cos.size(), all = padded_pairs(pairs);
  for (size_t h = 0; h < terms.rows; ++h, out += 2 * all) {
    for (size_t i = pairs; i < all; ++i) out[i] = out[all + i] = 0;
    for (size_t i = 0; i < pairs; ++i) {
      const float a = terms.at(h, i), b = terms.at(h, pairs + i);
      out[i] = static_cast<int16_t>(std::lrint(a * cos[i] + b * sin[i]));
      out[all + i] = static_cast<int16_t>(std::lrint(b * cos[i] - a * sin[i]));
    }
  }
}

// x / 2^bits, rounded, halves up.
inline int16_t rounded_shift(int x, int bits) {
  return static_cast<int16_t>((x + (1 << (bits - 1))) >> bits);
}

inline void turn_to_blocks(const MeanAngles& angles, const int16_t* terms, size_t heads,
                           size_t blocks, int16_t* out) {
  const size_t all = padded_pairs(angles.pairs), fast = angles.fast;
  for (size_t block = 0; block < blocks; ++block) {
    const int16_t* cos = angles.turns.data() + block * 2 * fast;
    const int16_t* sin = cos + fast;
    for (size_t h = 0; h < heads; ++h, out += 2 * angles.scored()) {
      const int16_t* a = terms + h * 2 * all;
      const int16_t* b = a + all;
      int16_t *even = out, *odd = out + angles.scored();
      const auto product = [](int x, int y) { return rounded_shift(x * y, 15); };
      for (size_t i = 0; i < fast; ++i) {
        even[i] = static_cast<int16_t>(product(a[i], cos[i]) + product(b[i], sin[i]));
        odd[i] = static_cast<int16_t>(product(b[i], cos[i]) - product(a[i], sin[i]));
      }
      if (!angles.smooth()) continue;
      for (size_t parity = 0; parity < 2; ++parity) {
        int16_t* to = (parity == 0 ? even : odd) + fast;
        for (size_t k = 0; k < kSmooth; ++k) {
          int sum = 0;
          for (size_t i = fast; i < all; ++i) {
            for (size_t side = 0; side < 2; ++side) {
              const size_t two = (i - fast) / 2 * 2 + side;
              const size_t at = ((two * kTurnedBlocks + block) * 2 + parity) * kSmooth + k;
              sum += a[side * all + i] * angles.to_smooth[at * 2 + i % 2];
            }
          }
          to[k] = rounded_shift(sum, kSmoothBits);
        }
      }
    }
  }
}

inline void score_angles(const MeanAngles& angles, const int16_t* terms,
                         std::span<const float> unit, View<float> scores) {
  const size_t all = angles.scored();
  for (size_t h = 0; h < scores.rows; ++h) {
    for (size_t t = 0; t < kHalfTokens; ++t) {
      int sums[2] = {0, 0};
      for (size_t i = 0; i < all; ++i) {
        for (size_t side = 0; side < 2; ++side) {
          sums[side] += terms[(2 * h + side) * all + i] *
                        angles.half_block[((i / 2 * 2 + side) * kHalfTokens + t) * 2 + i % 2];
        }
      }
      scores.at(h, kHalfTokens + t) = unit[h] * static_cast<float>(sums[0] + sums[1]);
      scores.at(h, kHalfTokens - 1 - t) = unit[h] * static_cast<float>(sums[0] - sums[1]);
    }
  }
}

}  // namespace mkv::reference
