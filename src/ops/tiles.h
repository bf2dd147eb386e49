// Quantised weights in tiles: 16 rows beside each other, so that a vector holds neighbouring rows.
// Decoding then needs no sums across a vector and reads memory in its order.
//
// A tile is its blocks of 32 columns (K types: 256) in order. A block is first the factors, each
// for 16 rows: halves d [, m or dmin], then the bytes of the K types' scales as the file has them,
// [byte][row]. Then its groups of 32 columns, codes in quads of columns, [quad][row][4 columns]:
// - Q8_0: eight quads of bytes, each its code + 128.
// - Others: four of nibbles, quad 2i in the low ones of the i-th, 2i+1 in the high ones.
// - Bits above the nibbles, in bytes [row][4 columns]: of Q5 types one byte, quad q in bit q; of
//   Q6_K two, first quads 0 to 3, then 4 to 7, quad q in bits 2(q % 4) and the next.
// A tile takes what its rows take in the file. The last is filled up with rows of zeros.
#pragma once

#include <cstddef>
#include <span>

#include "ops/weight.h"

namespace mkv {

// All quantised types.
bool has_tiles(DType type);

// Rows tile * kTileRows ... of w, whose layout is rows; out has kTileRows * row_bytes.
void pack_tile(const Weight& w, size_t tile, std::span<std::byte> out);

// One row of w, whose layout is tiles or planes, as the file had it; out has row_bytes.
void unpack_row(const Weight& w, size_t row, std::span<std::byte> out);

}  // namespace mkv
