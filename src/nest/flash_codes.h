// Blocks that were codes, for processors with AVX2 or AVX-512 VNNI: rounding them further adds
// little to what coding took (decisions 0025, 0027, 0032).
//
// A query and a key have a step each, in which the columns with the largest queries (top_columns)
// are rounded to 1/top_unit and the others to 1, as bytes. Steps are so large that norms, and with
// them (Cauchy-Schwarz) every sum of products, stay in what they add up in, whatever the order.
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
// top one, and up to 388 more.
constexpr size_t packed_code_size(size_t head_dim) {
  return 32 * (head_dim + top_columns(head_dim)) + 200;
}

// What is allowed, in steps: the norm of bytes, each of them, the norm of all columns, and each top
// column; and what of a step those are rounded to.
struct CodeRange {
  float bytes, most, all, top, top_unit;
};

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
  CodeRange queries, keys;
};

// Those that go with flash::kernels(head_dim), or null: then codes are attended to as exact blocks.
const CodeKernels* code_kernels(size_t head_dim);

// Of flash_codes.cc and flash_bytes_avx512.cc; null where the build or the machine has none.
const CodeKernels* byte_kernels();
const CodeKernels* wide_byte_kernels();

}  // namespace mkv::flash
