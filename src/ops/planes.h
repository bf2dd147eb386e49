// Tiles of Q8_0 in two planes: a prefix of their bits is a weight by itself, as a prefix of a
// latent's slabs is a key.
//
// A code + 128 is 16 * leading + rest. The first plane has all tiles' scales and leading bits, each
// tile in the layout of Q4_0 (ops/tiles.h); the second has the other bits, [tile][group] of nibbles
// in the order of those. Both planes take what the tiles took.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "ops/weight.h"

namespace mkv {

bool has_planes(DType type);

// A tile in ops/tiles.h's layout to its place in w, whose layout is planes and whose memory is at
// `data`.
void split_tile(std::span<const std::byte> tile, const Weight& w, size_t t, std::byte* data);

// Tile t of w in ops/tiles.h's layout: where it is, or put together in a buffer of the calling
// thread, until its next call. w's layout is tiles or planes.
const std::byte* whole_tile(const Weight& w, size_t t);

// Tile t of the first plane.
const std::byte* leading_tile(const Weight& w, size_t t);

// What a product with a row misses without its other bits is a sum over the columns of
// scale * (rest - 7.5) * x. Where the other bits are as if drawn at random that is normal, and its
// variance is the sum of scale^2 * kRestVariance * x^2. They are not in a row whose codes are
// mostly 0, say. Whether all rows of a tile (of tiles, as pack_tile gives it) are even: in no group
// of 32 the mean of `rest` is 4.5 from 7.5, 5.5 standard deviations, nor in a row 6 of its own.
inline constexpr float kRestVariance = (16 * 16 - 1) / 12.0f;
bool is_even_tile(std::span<const std::byte> tile, size_t cols);

}  // namespace mkv
