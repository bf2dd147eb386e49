// Scores of the mean key that coding took away: q . R_t mean = sum_i a_i cos(t w_i) + b_i sin(t
// w_i), a function of the position t (docs/method.md "Position mean"). Positions count from the
// first one of a block, whose angles turn a and b: so the 64 angles are the same in every block and
// stay in the cache. Both factors are 16-bit integers: a product and a sum over a pair is one
// instruction.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/view.h"

namespace mkv {

// A token's angle of a pair: cosine and sine times kAngleOne.
inline constexpr float kAngleOne = 32767.0f;

// The terms a, b [pairs] of a query [2 * pairs] and a mean key before RoPE.
void mean_terms(std::span<const float> query, std::span<const float> mean, float* a, float* b);

// What to multiply the terms a [pairs], b [pairs] by before they are rounded, turned by any angle,
// so that they fit 16 bits and their sums with angles 32. 0 if all are 0.
float mean_terms_factor(std::span<const float> a, std::span<const float> b);

// The terms of positions that count from another one: turned by its angles and rounded, out
// [pairs][a', b'] = (a cos + b sin, b cos - a sin). All inputs have one size, the pairs.
void turn_mean_terms(std::span<const float> a, std::span<const float> b, std::span<const float> cos,
                     std::span<const float> sin, int16_t* out);

// scores[h][t] = unit[h] * sum_i terms[h][i] . angle i of token t, for the tokens of a block.
// terms [heads][pairs][2], angles [pairs][64][2], scores [heads x 64].
void score_angles(const int16_t* terms, std::span<const float> unit, const int16_t* angles,
                  size_t pairs, View<float> scores);

namespace reference {

inline void turn_mean_terms(std::span<const float> a, std::span<const float> b,
                            std::span<const float> cos, std::span<const float> sin, int16_t* out) {
  for (size_t i = 0; i < a.size(); ++i) {
    out[2 * i] = static_cast<int16_t>(std::lrint(a[i] * cos[i] + b[i] * sin[i]));
    out[2 * i + 1] = static_cast<int16_t>(std::lrint(b[i] * cos[i] - a[i] * sin[i]));
  }
}

inline void score_angles(const int16_t* terms, std::span<const float> unit, const int16_t* angles,
                         size_t pairs, View<float> scores) {
  for (size_t h = 0; h < scores.rows; ++h) {
    for (size_t t = 0; t < scores.cols; ++t) {
      int sum = 0;
      for (size_t i = 0; i < pairs; ++i) {
        const int16_t* term = terms + (h * pairs + i) * 2;
        const int16_t* angle = angles + (i * 64 + t) * 2;
        sum += term[0] * angle[0] + term[1] * angle[1];
      }
      scores.at(h, t) = unit[h] * static_cast<float>(sum);
    }
  }
}

}  // namespace reference
}  // namespace mkv
