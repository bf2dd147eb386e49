// Kernels over blocks of kBlockTokens (64) tokens stored column by column: element [c][t] of a
// block is value c of token t. Scores run over 64 tokens at once without a horizontal sum.
// References: nest/block_reference.h.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/dtype.h"
#include "base/view.h"

namespace mkv {

// Neighbouring blocks of columns: block b is at data + b * stride.
struct ColumnBlocks {
  const std::byte* data = nullptr;
  size_t stride = 0;        // bytes
  DType type = DType::f16;  // f16 or f32
};

// scores[q][t] += sum_c queries[q][c] * column c of token t. scores [queries.rows x count*64].
void score_columns(View<const float> queries, const ColumnBlocks& blocks, View<float> scores);
// sums[q][c] += sum_t weights[q][t] * column c of token t. weights [sums.rows x count*64].
void weigh_columns(View<const float> weights, const ColumnBlocks& blocks, View<float> sums);

// x = exp(x - shift) in place for x <= shift (-inf gives 0); returns the sum.
float exp_and_sum(std::span<float> x, float shift);
float max_of(std::span<const float> x);  // -inf when empty
// Of some blocks' scores: the largest, and whether the sum of e^x over 64 x, each the largest of
// the tokens at one place of the blocks, reaches e^least. That sum is what all of them add up to,
// or less, by the number of blocks at most.
struct Peaks {
  float top = 0.0f;
  bool reach = false;
};
Peaks peaks_of(std::span<const float> scores, float least);
// Weights of less than 2^-negligible_power(tokens) of a softmax's sum may be left out (decision
// 0028): together less than 2^-4 of it, were they all just below.
inline constexpr int kNegligible = 15;  // of up to 2,048 tokens
inline int negligible_power(size_t tokens) {
  return std::max(kNegligible, 4 + static_cast<int>(std::bit_width(tokens - 1)));
}
void scale_by(std::span<float> x, float factor);

// Rows of 16-bit elements of some tokens to the columns of a block, from the first of their tokens
// on: block[c * 64 + t] = rows[t][c].
inline constexpr size_t kStoredTokens = 8;
void store_tokens(View<const uint16_t> rows, uint16_t* block);

// A block's leading columns as float32 rows: out[c][first ... first+63].
void widen_block(const ColumnBlocks& block, size_t columns, View<float> out, size_t first);

}  // namespace mkv
