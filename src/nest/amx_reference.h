// Scalar references of nest/amx_codes.h, for tests.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>

#include "nest/amx_codes.h"
#include "nest/slab_reference.h"

namespace mkv::amx::reference {

// Column c of a plane for a token of a block, as an integer; `interleaved` entries are of keys.
inline int plane_column(const CodePlanes& planes, const CodePlanes::Plane& plane, size_t c,
                        const uint8_t* block, size_t token, bool interleaved) {
  int sum = 0;
  for (size_t s = plane.begin; s < plane.end; ++s) {
    const size_t code = mkv::reference::code_at(block + planes.slabs[s] * size_t{32}, token);
    const size_t at = interleaved ? code * kSlabColumns + c : c * kCodebookEntries + code;
    sum += planes.entries[s * kSlabColumns * kCodebookEntries + at];
  }
  return sum;
}

// Value k of the planes' columns in a head's rounded query.
inline int query_value(const CodePlanes& planes, const Queries& queries, size_t head, size_t k) {
  const size_t tile = k / kRowBytes;
  const int8_t* at = queries.bytes + head * kRowBytes + k % kRowBytes;
  return at[tile * kTile] + (tile == 0 ? at[plane_tiles_of(planes) * kTile] : 0);
}

// The score of a token of block b, from the rounded query; terms and angles are not rounded, and
// cos and sin [pairs][positions] count from the first block.
inline double score(const CodePlanes& planes, const Queries& queries, std::span<const float> cos,
                    std::span<const float> sin, const CodeBlocks& blocks, size_t head,
                    size_t token) {
  double sum = 0.0;
  const uint8_t* block = blocks.data + token / kBlock * blocks.stride;
  for (size_t p = 0; p < planes.planes.size(); ++p) {
    for (size_t c = 0; c < kSlabColumns; ++c) {
      sum += query_value(planes, queries, head, p * kSlabColumns + c) *
             plane_column(planes, planes.planes[p], c, block, token % kBlock, true);
    }
  }
  const float* terms = queries.terms + head * 2 * queries.pairs;
  for (size_t i = 0; i < queries.pairs; ++i) {
    const size_t at = i * (cos.size() / queries.pairs) + token;
    sum += 127.0 * (double{terms[i]} * cos[at] + double{terms[queries.pairs + i]} * sin[at]);
  }
  return queries.base[head] + queries.unit[head] * sum;
}

// The weight of a token of block b in the right sides.
inline int weight(const uint8_t* weights, size_t block, size_t token, size_t head) {
  return weights[block * kTile + token / 4 * kRowBytes + head * 4 + token % 4];
}

// One column's sum over all blocks, for a head.
inline double weigh(const CodePlanes& planes, const CodeBlocks& blocks, const uint8_t* weights,
                    const float* factor, size_t column, size_t head) {
  double whole = 0.0;
  for (const CodePlanes::Plane& plane : planes.planes) {
    const size_t c = column - plane.first_column;  // wraps around below it
    for (size_t b = 0; c < kSlabColumns && b < blocks.count; ++b) {
      int sum = 0;
      for (size_t t = 0; t < kBlock; ++t) {
        sum += weight(weights, b, t, head) *
               plane_column(planes, plane, c, blocks.data + b * blocks.stride, t, false);
      }
      whole += double{factor[b / kGroupBlocks * kLanes + head]} * plane.scale[c] * sum;
    }
  }
  return whole;
}

}  // namespace mkv::amx::reference
