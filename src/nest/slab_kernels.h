// Kernels of code slabs: 4 bits a token choose one of 16 entries over 4 neighbouring latent columns
// (residual vector quantisation; docs/method.md "Nested code"). A slab of a block is 32 bytes: byte
// i holds token i in its low half and token i + 32 in its high half. References:
// nest/slab_reference.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/view.h"
#include "nest/code_tables.h"
#include "nest/nest.h"

namespace mkv {

// Picks for each of 64 tokens the entry nearest to the residual (rows [4][64] with `stride`, the
// first of equals), writes its index to codes [32] and takes the entry off the residual.
void encode_slab(const Codebook& codebook, float* residual, size_t stride, uint8_t* codes);

// rows[c][t] += codebook[code of t][c].
void expand_slab(const Codebook& codebook, const uint8_t* codes, float* rows, size_t stride);

// out[s][e] = sum_c query[first column of slab s + c] * entry e of slab s: what a token with that
// code adds to the score.
void tabulate_slabs(std::span<const CodeSlab> slabs, const float* query, float* out);
// Whether scores are looked up in tables of four slabs, or else in those of one slab each.
bool scores_by_fours();
// Rounds a head's tables of the slabs, values [slabs][16].
void round_tables(const float* values, size_t head, const ScoreTables& to);
// scores[h][t] += the sum over the leading slabs of head h's entry for the code of t, and what is
// expected of the rest; or the sum over the rest in place of that. For some of the heads, scores
// [tables.heads x count*64].
void score_slabs(const ScoreTables& tables, Slabs which, const CodeBlocks& blocks,
                 std::span<const size_t> heads, View<float> scores);

// weights[t] = round(e^(scores[t] - top) / unit), of whole blocks, kWeighBlocks at most, where top
// is the largest score, and finite. The unit is the least with which weigh_slabs of the instruction
// set in use can add up the products: the largest weight is 255 with VNNI, else at most 127, and
// less where many large ones meet.
struct Softened {
  float unit = 0.0f;
  float sum = 0.0f;  // of e^(scores[t] - top)
};
Softened soften_to_bytes(std::span<const float> scores, float top, uint8_t* weights);

// sums[h][c] += factor[h] * scale of the plane * sum_t weights[h][t] * column c of token t, where a
// column is the sum of its plane's entries. weights [heads][kWeighBlocks * 64], from
// soften_to_bytes, for count <= kWeighBlocks blocks.
inline constexpr size_t kWeighBlocks = 4;
void weigh_slabs(const CodePlanes& planes, const CodeBlocks& blocks, const uint8_t* weights,
                 std::span<const float> factor, View<float> sums);

}  // namespace mkv
