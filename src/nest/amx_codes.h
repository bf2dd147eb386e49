// Attention of one token over codes as products of tiles (AMX; ops/amx.h): the codes of a space are
// looked up once for all of its query heads, as bytes (CodePlanes), and multiplied by queries and
// softmax weights of 8 bits. Blocks go by pairs, whose 128 scores are in an order of their own. No
// kernel has more than six tiles in use. Design and bounds: docs/decisions/0015, 0022. References:
// nest/amx_reference.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/buffer.h"
#include "base/view.h"
#include "nest/code_tables.h"

namespace mkv::amx {

inline constexpr size_t kLanes = 16;                      // heads of a tile, at most
inline constexpr size_t kBlock = 64, kPair = 2 * kBlock;  // tokens
inline constexpr size_t kTile = 1024, kRowBytes = 64;     // bytes
inline constexpr size_t kTilePlanes = 16;                 // planes whose columns fill a row
inline constexpr int kMostByte = 127, kMostFirst = 254;   // of a query's columns, of the first tile
inline constexpr size_t kPairsOfTile = 32;                // of angles
inline constexpr size_t kGroupBlocks = 4;     // blocks whose weights share their largest
inline constexpr size_t kMostBlocks = 16;     // of a call
inline constexpr size_t kMostPlanes = 32000;  // of keys: no sum leaves 32 bits
inline constexpr float kMostWeight = 255.0f;  // of a weight

// Whether the machine has it and the instruction set was not lowered.
bool usable();

// Where the score of a token of a pair of blocks is.
constexpr size_t place_of(size_t token) {
  const size_t in_block = token % kBlock, half = in_block / 32;
  return (2 * (in_block % 4) + half) * 16 + token / kBlock * 8 + in_block % 32 / 4;
}

// Rotary angles of 128 positions in 127ths, as right sides of products: [32 pairs][16 places][16
// rows][16 places][4]. Rows are in the order in which turned terms are packed; pairs that do not
// exist are 0.
Buffer<int8_t> angle_tiles(std::span<const float> cos, std::span<const float> sin, size_t pairs);
inline size_t angle_tiles_of(size_t pairs) { return (pairs + kPairsOfTile - 1) / kPairsOfTile; }

// The queries of up to kLanes heads.
struct Queries {
  size_t heads = 0;
  // [16 planes][kLanes][64], times the unit. The first 16 planes, whose columns are the largest,
  // have a second tile, the last, for what one byte cannot hold.
  int8_t* bytes = nullptr;
  float* unit = nullptr;  // [kLanes]
  float* base = nullptr;  // [kLanes]: added to every score
  // The position mean (nest/angle_kernels.h): 127 units times terms [kLanes][a | b][pairs] times
  // cosines and sines are added to the scores; turned to a block they are two bytes, 256 high +
  // low.
  float* terms = nullptr;
  size_t pairs = 0;  // 0: there is none
};
inline size_t plane_tiles_of(const CodePlanes& planes) {
  return planes.planes.empty() ? 1 : (planes.planes.size() + kTilePlanes - 1) / kTilePlanes;
}
inline size_t query_tiles_of(const CodePlanes& planes) { return plane_tiles_of(planes) + 1; }
// Rounds one head's latent query, and brings its terms, in latent units, to the common unit.
void round_query(const CodePlanes& planes, const float* latent, size_t head, const Queries& out);

// The angles of the first positions of neighbouring blocks, [cos | sin][pairs] at a stride.
struct BlockAngles {
  const float* first = nullptr;
  size_t stride = 0;
  const int8_t* within = nullptr;  // angle_tiles
};

struct Scratch {
  int8_t* expanded = nullptr;  // [kExpandedBytes]
  int8_t* turned = nullptr;    // [angle tile][high, low][kLanes][64]
};
inline constexpr size_t kExpandedBytes = kPair / 16 * kTile;

// scores[head][pair][place]; interleaved planes. An odd last block's partner gets scores that mean
// nothing.
void score_codes(const CodePlanes& planes, const Queries& queries, const BlockAngles& angles,
                 const CodeBlocks& blocks, const Scratch& scratch, View<float> scores);

// exp(score - largest) of kGroupBlocks blocks at a time, in 255ths of the group's largest, as right
// sides [block][16 rows][kLanes][4 tokens]; tops and sums (of the exact ones) [group][kLanes].
void soften(View<const float> scores, uint8_t* weights, float* tops, float* sums);

// out[head][column] = sums[column][head], columns from rows of kLanes; room for the columns rounded
// up to 16 is read.
void by_head(const float* sums, View<float> out);

// sums[column][head] += sum over groups g of factor[g][head] * sum of weight * column of their
// tokens. factor [group][kLanes], sums [columns][kLanes]; lanes that are no head get anything.
void weigh_codes(const CodePlanes& planes, const CodeBlocks& blocks, const uint8_t* weights,
                 const float* factor, size_t heads, float* sums);

}  // namespace mkv::amx
