// Tiles in two planes: a prefix of a code's bits is a weight by itself, as a prefix of a latent's
// slabs is a key.
//
// Above the `rest`, the lowest 4 bits of Q8_0's codes (+ 128, so that none is negative) and the
// lowest 2 of Q6_K's, are four leading ones. The first plane has all tiles' factors and leading
// bits, each tile as one of a type of nibbles (ops/tiles.h); the second has the rests,
// [tile][group][vector][row][4 columns]: quad q of Q8_0 in nibble q % 2 of vector q / 2, of Q6_K in
// bits 2(q % 4) and the next of vector q / 4. Both planes take what the tiles took.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "ops/weight.h"

namespace mkv {

bool has_planes(DType type);

// A tile in ops/tiles.h's layout to its place in w, whose layout is planes and whose memory is at
// `data`. Whether its rests are even, as if they were drawn at random: they are not in a row whose
// codes are mostly 0, say. In no group of 32 is their mean 5.5 standard deviations from the middle,
// nor in a row 6.
bool split_tile(std::span<const std::byte> tile, const Weight& w, size_t t, std::byte* data);

// Tile t of w in ops/tiles.h's layout: where it is, or put together in a buffer of the calling
// thread, until its next call. w's layout is tiles or planes.
const std::byte* whole_tile(const Weight& w, size_t t);

// Tile t of the first plane.
const std::byte* leading_tile(const Weight& w, size_t t);

// Of the second plane; 0 of other layouts.
size_t rest_bytes(const Weight& w);

// A product with a row misses without the rests, each taken for the middle, a sum over the columns
// of scale * (rest - middle) * x. Where they are even that is normal, and its variance is the sum
// of scale^2 * rest_variance * x^2. So many columns share a scale.
float rest_variance(DType type);
size_t columns_of_scale(DType type);

}  // namespace mkv
