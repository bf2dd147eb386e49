// Scores of the mean key that coding took away: q . R_t mean = sum_i a_i cos(t w_i) + b_i sin(t
// w_i), a function of the position t (docs/method.md "Position mean"). Both factors are 16-bit
// integers, so that a product and a sum over a pair is one instruction.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/view.h"

namespace mkv {

// A token's angle of a pair: cosine and sine times kAngleOne.
inline constexpr float kAngleOne = 32767.0f;

// Rounds the terms a [pairs], b [pairs] to integers out [pairs][a, b] whose sums with angles fit
// 32 bits; returns what to multiply those sums by.
float round_mean_terms(std::span<const float> a, std::span<const float> b, int16_t* out);

// scores[h][t] = unit[h] * sum_i terms[h][i] . angle i of token t.
// terms [heads][pairs][2], angles of neighbouring blocks [block][pairs][64][2], scores [heads x
// blocks*64].
void score_angles(const int16_t* terms, std::span<const float> unit, const int16_t* angles,
                  size_t pairs, View<float> scores);

namespace reference {

inline void score_angles(const int16_t* terms, std::span<const float> unit, const int16_t* angles,
                         size_t pairs, View<float> scores) {
  for (size_t h = 0; h < scores.rows; ++h) {
    for (size_t t = 0; t < scores.cols; ++t) {
      int sum = 0;
      for (size_t i = 0; i < pairs; ++i) {
        const int16_t* term = terms + (h * pairs + i) * 2;
        const int16_t* angle = angles + ((t / 64 * pairs + i) * 64 + t % 64) * 2;
        sum += term[0] * angle[0] + term[1] * angle[1];
      }
      scores.at(h, t) = unit[h] * static_cast<float>(sum);
    }
  }
}

}  // namespace reference
}  // namespace mkv
