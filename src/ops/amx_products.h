// Products of floats by AMX, in sums of bf16: a value is the sum of parts, each the rest of those
// before it rounded to bf16, so two have 16 bits of it and three 24. Products of parts are added in
// float32; those below the precision wanted are left out (src/ops/README.md).
//
// An operand is tiles of 16 rows, cut in blocks of 32 columns, [tile][block][part], 512 bf16 each:
// on the left side [row][column], on the right [pair of columns][row][2].
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/view.h"

namespace mkv {

inline constexpr size_t kBrainRows = 16, kBrainColumns = 32;
inline constexpr size_t kBrainTile = kBrainRows * kBrainColumns;  // bf16 of a part

// How many parts the sides have, and so which products are added.
enum class BrainParts : uint8_t {
  two_two,      // high * low + high * high + low * high: 16 bits
  three_one,    // float32 times bf16
  three_two,    // float32 times f16
  three_three,  // float32 times float32: without the three smallest
};
constexpr size_t left_parts(BrainParts parts) { return parts == BrainParts::two_two ? 2 : 3; }
constexpr size_t right_parts(BrainParts parts) {
  if (parts == BrainParts::three_one) return 1;
  return parts == BrainParts::three_three ? 3 : 2;
}

struct BrainOperand {
  const uint16_t* data = nullptr;  // aligned to 64 bytes
  size_t tiles = 0;
  size_t stride = 0;  // bf16 from a tile to the next
  size_t parts = 0;   // that are there; the leading ones are used
};

// c [left tiles * 16][right tiles * 16] += left * right over `blocks` blocks, or = where `fresh`.
// Only where has_amx().
void multiply_brain(const BrainOperand& left, const BrainOperand& right, size_t blocks,
                    BrainParts parts, bool fresh, View<float> c);

// Rows first ... first+15 of x as a tile of the left side, [block][part]; columns and rows that x
// does not have are zeros.
void split_left(View<const float> x, size_t first, size_t parts, uint16_t* to);
// The same as a tile of the right side.
void split_right_rows(View<const float> x, size_t first, size_t parts, uint16_t* to);
// x holds columns as rows, [columns][16 rows ...]: rows first ... first+15 as a tile of the right
// side, [block][part]. Columns that x does not have are zeros.
void split_right(View<const float> x, size_t first, size_t parts, uint16_t* to);

}  // namespace mkv
