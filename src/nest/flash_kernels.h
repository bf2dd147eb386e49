// Attention of a tile of queries to a block of 64 tokens in products of 16 bits, for prefill with
// Arithmetic::fast (flash attention, arXiv:2205.14135, Algorithm 1): of bf16 with AMX, of words
// with AVX-512 VNNI or AVX2 (and of bytes, for what was codes: nest/flash_codes.h); with none of
// them, prefill computes in float32 (nest/attend_prefill.cc).
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

#include "base/view.h"
#include "nest/block_kernels.h"

namespace mkv::flash {

inline constexpr size_t kGroupRows = 16;

// 16-bit elements of a packed block of keys or of values: 64 * head_dim, and room for as many
// floats as there are of tokens or columns.
constexpr size_t packed_size(size_t head_dim) {
  return head_dim * 64 + 2 * (head_dim > 64 ? head_dim : 64);
}

// Row r of a tile is token r / repeats, and sees the leading min(64, first + step * token) tokens
// of the block, at least one, but for those before hidden + token. There is room for a multiple of
// kGroupRows rows.
struct Tile {
  uint16_t* queries = nullptr;  // [rows][head_dim], scaled, in the kernels' own order
  size_t rows = 0, repeats = 1, head_dim = 0;
  size_t first = 64, step = 0;
  ptrdiff_t hidden = std::numeric_limits<ptrdiff_t>::min() / 2;
  float* sums = nullptr;         // [rows][head_dim], own order: sum of exp(score - top) * value
  float* tops = nullptr;         // [rows]: -infinity at the start
  float* totals = nullptr;       // [rows]: sum of exp(score - top)
  float* steps = nullptr;        // [rows]: of the queries' words
  int negligible = kNegligible;  // a power of 1/2, of `totals`
};

struct Kernels {
  // A head's columns [head_dim][64] of a block in the kernels' own order, packed_size(head_dim).
  void (*pack_keys)(View<const float> columns, uint16_t* keys);
  void (*pack_values)(View<const float> columns, uint16_t* values);
  // Row `row` of the tile's queries = round(in * scale).
  void (*pack_query)(std::span<const float> in, float scale, const Tile& tile, size_t row);
  void (*attend_block)(const Tile& tile, const uint16_t* keys, const uint16_t* values);
  // out = the row's sums over its total.
  void (*finish)(const Tile& tile, size_t row, std::span<float> out);
};

// Those for heads of this size, by the instruction set in use (ops/instruction_set.h); or null.
const Kernels* kernels(size_t head_dim);

// Kernels' finish where a tile's sums are rows of columns in their order.
void finish_rows(const Tile& tile, size_t row, std::span<float> out);

// Of flash_words.cc, flash_words_avx512.cc and flash_amx.cc; null where the build or the machine
// has none.
const Kernels* word_kernels();
const Kernels* wide_word_kernels();
const Kernels* amx_kernels();

}  // namespace mkv::flash
