// Blocks that were codes, for processors with AVX2: rounding them further adds little to what
// coding took (decisions 0025, 0027).
//
// Scores are words of 16 bits throughout. A query and a key have a step each, in which the columns
// with the largest queries (top_columns) are rounded to 1/64 and the others to 1, as bytes; a score
// is counted in 8 of both steps. Steps are so large that norms, and with them (Cauchy-Schwarz)
// every sum of products, stay in their words, whatever the order in which they add up.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/view.h"
#include "nest/flash_kernels.h"

namespace mkv::flash {

inline constexpr size_t kMostColumns = 256;  // of a head
constexpr size_t top_columns(size_t head_dim) { return head_dim / 4; }
// 16-bit elements of a packed query.
constexpr size_t packed_query_size(size_t head_dim) { return head_dim + top_columns(head_dim); }
// Of a packed block of keys or of values; keys take more: 64 bytes a column and as many again of a
// top one, and 260 more.
constexpr size_t packed_code_size(size_t head_dim) {
  return 32 * (head_dim + top_columns(head_dim)) + 160;
}

// What is allowed, in steps: the norm of bytes, each of them, and the norm of all columns.
struct CodeRange {
  float bytes, most, all;
};
// Rounding adds half of the root of their number to the norm of bytes: still below 2^15 together,
// of kMostColumns too. Scores stay near 2^14, so that words hold their differences. Two products of
// bytes, of queries up to 255 with their offset, add up in a word as well.
inline constexpr CodeRange kQueryRange{246.0f, 127.0f, 512.0f}, kKeyRange{122.0f, 63.0f, 256.0f};
inline constexpr float kTopMost = 511.0f, kTopUnit = 64.0f;  // of a top column: words
inline constexpr int kScoreShift = 3;                        // from the bytes' unit to a score's
inline constexpr float kScoreUnit = 8.0f;

// order = columns [head_dim], those with the largest queries [rows][repeats * head_dim] first: by
// the sum of the squares of at most kMostOrdered rows, evenly apart.
inline constexpr size_t kMostOrdered = 64;
void order_columns(View<const float> queries, std::span<uint16_t> order);

// As flash::Kernels, whose sums, tops and totals of a tile they share; its queries and steps are
// their own. `order`: the same for a head's queries and keys.
struct CodeKernels {
  // A head's columns [head_dim][64] of a block, to packed_code_size(head_dim).
  void (*pack_keys)(View<const float> columns, const uint16_t* order, uint16_t* keys);
  void (*pack_values)(View<const float> columns, uint16_t* values);
  // The tile's queries are [rows][packed_query_size].
  void (*pack_query)(std::span<const float> in, float scale, const uint16_t* order,
                     const Tile& tile, size_t row);
  void (*attend_block)(const Tile& tile, const uint16_t* keys, const uint16_t* values);
};

// Those that go with flash::kernels(head_dim), or null: then codes are attended to as exact blocks.
const CodeKernels* code_kernels(size_t head_dim);

// Of flash_codes.cc; null where the build or the machine has none.
const CodeKernels* byte_kernels();

}  // namespace mkv::flash
