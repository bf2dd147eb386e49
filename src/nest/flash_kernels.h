// Attention of a tile of queries to a block of 64 tokens in bf16 products with float32 sums, for
// prefill with Arithmetic::fast (flash attention, arXiv:2205.14135, Algorithm 1). Written for
// AVX-512 BF16; without it, prefill computes in float32 (nest/attend_prefill.cc).
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

#include "base/view.h"

namespace mkv::flash {

// Whether the machine has them, the instruction set was not lowered (ops/instruction_set.h) and
// they are made for this head.
bool usable(size_t head_dim);

// A head's columns [head_dim][64] of a block as the products want them: keys
// [head_dim / 2][64 tokens][2], values [32 pairs of tokens][head_dim][2], bf16.
void pack_keys(View<const float> columns, uint16_t* keys);
void pack_values(View<const float> columns, uint16_t* values);
// out = round(in * scale), a multiple of 32 elements.
void pack_queries(std::span<const float> in, float scale, uint16_t* out);

// Row r of a tile is token r / repeats, and sees the leading min(64, first + step * token) tokens
// of the block, at least one, but for those before hidden + token.
struct Tile {
  const uint16_t* queries = nullptr;  // [rows][head_dim] bf16, scaled
  size_t rows = 0, repeats = 1, head_dim = 0;
  size_t first = 64, step = 0;
  ptrdiff_t hidden = std::numeric_limits<ptrdiff_t>::min() / 2;
  float* sums = nullptr;    // [rows][head_dim]: sum of exp(score - top) * value
  float* states = nullptr;  // [rows][top, sum of exp(score - top)]
};
void attend_block(const Tile& tile, const uint16_t* keys, const uint16_t* values);

}  // namespace mkv::flash
