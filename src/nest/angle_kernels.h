// Scores of the mean key that coding took away: q . R_t mean = sum_i a_i cos(t w_i) + b_i sin(t
// w_i), a function of the position t (docs/method.md "Position mean"). Positions count from the
// middle of a block, whose angles turn a and b: so the angles are the same in every block and stay
// in the cache, and one half of a block's tokens mirrors the other. A sum over cosines and one over
// sines are the scores of two tokens, their sum and their difference. Both factors are 16-bit
// integers: two products and their sum are one instruction.
//
// Most pairs turn by little within a block. Together they are, to 16 bits, a polynomial of degree 7
// in the position there, four even terms and four odd ones: these are scored in place of the pairs
// (decision 0035). Terms are turned to the first block of a run as floats, and from there to each
// of its blocks as integers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/buffer.h"
#include "base/view.h"

namespace mkv {

// A cosine or sine is times kAngleOne.
inline constexpr float kAngleOne = 32767.0f;
inline constexpr size_t kHalfTokens = 32;

// Terms of pairs are padded with zeros to so many at once.
inline constexpr size_t kPairsAtOnce = 8;
inline constexpr size_t padded_pairs(size_t pairs) {
  return (pairs + kPairsAtOnce - 1) / kPairsAtOnce * kPairsAtOnce;
}
// Where the middle of a block is from its first position.
inline constexpr double kMiddle = 31.5;
// Blocks whose terms are turned together.
inline constexpr size_t kTurnedBlocks = 8;
// Polynomials that stand for slow pairs, of each parity: Chebyshev's T_0, T_2, T_4, T_6 and T_1,
// T_3, T_5, T_7.
inline constexpr size_t kSmooth = 4;

// What the scores of a mean need of the model's frequencies.
struct MeanAngles {
  size_t pairs = 0;
  // Leading pairs that are scored each by itself, padded, and what stands for the others.
  size_t fast = 0;
  bool smooth() const { return fast < pairs; }
  size_t scored() const { return fast + (smooth() ? kSmooth : 0); }
  // Of a block's middle from its first position [cos | sin][pairs].
  Buffer<float> middle;
  // From the first of the blocks to each: of the fast pairs [block][cos | sin][fast], times
  // kAngleOne; of the others, times kSmoothOne, what they add to the polynomials, [two pairs][a |
  // b][block][even | odd][kSmooth][2].
  Buffer<int16_t> turns, to_smooth;
  // Of the tokens after the middle, 0.5, 1.5 ... positions from it, times kAngleOne: cosines and
  // sines of the fast pairs, the polynomials, [two that are scored][even | odd][kHalfTokens][2].
  Buffer<int16_t> half_block;

  MeanAngles clone() const;
};
inline constexpr int kSmoothBits = 14;
inline constexpr float kSmoothOne = 1 << kSmoothBits;

// frequency [pairs]: radians a position.
MeanAngles make_mean_angles(std::span<const double> frequency);

// The terms a, b [pairs] of a query [2 * pairs] and a mean key before RoPE.
void mean_terms(std::span<const float> query, std::span<const float> mean, float* a, float* b);

// What to multiply the terms a [pairs], b [pairs] by before they are rounded, turned by any angle,
// so that they and the polynomials' fit 16 bits and their sums with angles 32. 0 if all are 0.
float mean_terms_factor(const MeanAngles& angles, std::span<const float> a,
                        std::span<const float> b);

// The terms of positions that count from another one, (a cos + b sin, b cos - a sin) of its angles.
// All inputs have one size, the pairs.
void turn_mean_terms(std::span<float> a, std::span<float> b, std::span<const float> cos,
                     std::span<const float> sin);
// The same of some heads, rounded: terms [heads x a | b], out [heads][a' | b'][padded_pairs()].
void turn_and_round_mean_terms(View<const float> terms, std::span<const float> cos,
                               std::span<const float> sin, int16_t* out);

// From the terms of the first of `blocks` blocks, [heads][a | b][padded_pairs()], kTurnedBlocks at
// most, to those of each: out [block][head][even | odd][angles.scored()].
void turn_to_blocks(const MeanAngles& angles, const int16_t* terms, size_t heads, size_t blocks,
                    int16_t* out);

// scores[h][t] = unit[h] * sum_i terms[h][i] . angle i of token t, for the tokens of a block.
// terms [heads][even | odd][angles.scored()], scores [heads x 64].
void score_angles(const MeanAngles& angles, const int16_t* terms, std::span<const float> unit,
                  View<float> scores);

}  // namespace mkv
