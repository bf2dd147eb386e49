// Kernels over blocks of kBlockTokens (64) tokens stored column by column: element [c][t] of a
// block is value c of token t. Scores run over 64 tokens at once without a horizontal sum.
// References: nest/block_reference.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/view.h"

namespace mkv {

// scores[q][t] += sum_c queries[q][c] * block[c][t].
// block: f16 [queries.cols][64]; scores [queries.rows x 64].
void score_columns_f16(View<const float> queries, const uint16_t* block, View<float> scores);
// The same over a float32 block.
void score_columns_f32(View<const float> queries, const float* block, View<float> scores);

// sums[q][c] += sum_t weights[q][t] * block[c][t]. block: f16 [sums.cols][64].
void weigh_columns_f16(View<const float> weights, const uint16_t* block, View<float> sums);
void weigh_columns_f32(View<const float> weights, const float* block, View<float> sums);

// x = exp(x - shift) in place (-inf gives 0); returns the sum.
float exp_and_sum(std::span<float> x, float shift);
float max_of(std::span<const float> x);  // -inf when empty
void scale_by(std::span<float> x, float factor);

// A block of f16 [columns][64] as float32 rows: out[c][first ... first+63] with out's stride.
void widen_block(const uint16_t* block, size_t columns, View<float> out, size_t first);

}  // namespace mkv
