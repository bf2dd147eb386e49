// Quantised weights in tiles: 16 rows beside each other, so that a vector holds neighbouring rows.
// Decoding then needs no sums across a vector and reads memory in its order.
//
// A tile is its groups of 32 columns in order; a group is 16 halves d (a row each), for Q4_1 16
// halves m, and the codes in quads of columns, [quad][row][4 columns]: Q8_0 eight quads of bytes,
// each its code + 128; Q4_0 and Q4_1 four of bytes, quad 2i in the low nibbles of the i-th, 2i+1 in
// the high ones. A tile takes what its rows take in the file. The last is filled up with rows of
// zeros.
#pragma once

#include <cstddef>
#include <span>

#include "ops/weight.h"

namespace mkv {

// Q4_0, Q4_1, Q8_0.
bool has_tiles(DType type);

// Rows tile * kTileRows ... of w, whose layout is rows; out has kTileRows * row_bytes.
void pack_tile(const Weight& w, size_t tile, std::span<std::byte> out);

// One row of w, whose layout is tiles, as the file had it; out has row_bytes.
void unpack_row(const Weight& w, size_t row, std::span<std::byte> out);

}  // namespace mkv
