// Scores of the mean key that coding took away: q . R_t mean = sum_i a_i cos(t w_i) + b_i sin(t
// w_i), a function of the position t (docs/method.md "Position mean"). Positions count from the
// middle of a block, whose angles turn a and b: so the angles are the same in every block and stay
// in the cache, and one half of a block's tokens mirrors the other. A sum over cosines and one over
// sines are the scores of two tokens, their sum and their difference. Both factors are 16-bit
// integers: two products and their sum are one instruction.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/buffer.h"
#include "base/view.h"

namespace mkv {

// A cosine or sine is times kAngleOne.
inline constexpr float kAngleOne = 32767.0f;
inline constexpr size_t kHalfTokens = 32;

// Pairs are worked on by twos; a lacking one is zero.
inline constexpr size_t even_pairs(size_t pairs) { return pairs + pairs % 2; }
// Where the middle of a block is from its first position.
inline constexpr double kMiddle = 31.5;

// Angles of the tokens after the middle, 0.5, 1.5 ... positions from it, [two pairs][cos |
// sin][kHalfTokens][2], from their cosines and sines [kHalfTokens][pairs].
Buffer<int16_t> half_block_angles(View<const float> cos, View<const float> sin);

// The terms a, b [pairs] of a query [2 * pairs] and a mean key before RoPE.
void mean_terms(std::span<const float> query, std::span<const float> mean, float* a, float* b);

// What to multiply the terms a [pairs], b [pairs] by before they are rounded, turned by any angle,
// so that they fit 16 bits and their sums with angles 32. 0 if all are 0.
float mean_terms_factor(std::span<const float> a, std::span<const float> b);

// The terms of positions that count from another one, (a cos + b sin, b cos - a sin) of its angles.
// All inputs have one size, the pairs.
void turn_mean_terms(std::span<float> a, std::span<float> b, std::span<const float> cos,
                     std::span<const float> sin);
// The same of some heads, rounded: terms [heads x a | b], out [heads][a' | b'][even_pairs(pairs)].
void turn_and_round_mean_terms(View<const float> terms, std::span<const float> cos,
                               std::span<const float> sin, int16_t* out);

// scores[h][t] = unit[h] * sum_i terms[h][i] . angle i of token t, for the tokens of a block.
// terms [heads][a | b][even_pairs(pairs)], angles of half_block_angles, scores [heads x 64].
void score_angles(const int16_t* terms, std::span<const float> unit, const int16_t* angles,
                  size_t pairs, View<float> scores);

namespace reference {

inline void turn_and_round_mean_terms(View<const float> terms, std::span<const float> cos,
                                      std::span<const float> sin, int16_t* out) {
  const size_t pairs = cos.size(), all = even_pairs(pairs);
  for (size_t h = 0; h < terms.rows; ++h, out += 2 * all) {
    out[all - 1] = out[2 * all - 1] = 0;
    for (size_t i = 0; i < pairs; ++i) {
      const float a = terms.at(h, i), b = terms.at(h, pairs + i);
      out[i] = static_cast<int16_t>(std::lrint(a * cos[i] + b * sin[i]));
      out[all + i] = static_cast<int16_t>(std::lrint(b * cos[i] - a * sin[i]));
    }
  }
}

inline void score_angles(const int16_t* terms, std::span<const float> unit, const int16_t* angles,
                         size_t pairs, View<float> scores) {
  const size_t all = even_pairs(pairs);
  for (size_t h = 0; h < scores.rows; ++h) {
    for (size_t t = 0; t < kHalfTokens; ++t) {
      int sums[2] = {0, 0};
      for (size_t i = 0; i < all; ++i) {
        for (size_t side = 0; side < 2; ++side) {
          sums[side] += terms[(2 * h + side) * all + i] *
                        angles[((i / 2 * 2 + side) * kHalfTokens + t) * 2 + i % 2];
        }
      }
      scores.at(h, kHalfTokens + t) = unit[h] * static_cast<float>(sums[0] + sums[1]);
      scores.at(h, kHalfTokens - 1 - t) = unit[h] * static_cast<float>(sums[0] - sums[1]);
    }
  }
}

}  // namespace reference
}  // namespace mkv
