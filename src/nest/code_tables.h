// Integer forms of code slabs that attention works on, so that nothing is expanded to floats.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/buffer.h"
#include "nest/nest.h"

namespace mkv {

// The codes of `count` neighbouring blocks of 64 tokens; slab s of block b is at
// data + b * stride + 32 * s.
struct CodeBlocks {
  const uint8_t* data = nullptr;
  size_t stride = 0;  // bytes
  size_t count = 0;
  // What will be read next, for kernels that can ask the memory for it in time.
  std::span<const uint8_t> ahead = {};
};

struct ByteTables;

// Slabs of a space, by which scores have two steps (nest/score_bytes.h: leading_slabs()).
enum class Slabs : uint8_t { leading, rest };

// What each code adds to the scores of a group's heads, rounded; in the form that the instruction
// set in use reads (nest/slab_kernels.h).
struct ScoreTables {
  size_t slabs = 0, heads = 0;
  // What slabs after the leading ones are expected to add to a score, [heads].
  float* expected = nullptr;
  // By four slabs, the last ones padded with zeros (nest/score_bytes.h): score = bases + unit *
  // the sum over factors, of four bytes each, of factor times entries.
  uint8_t* entries = nullptr;                   // [heads][four_count(slabs)][4 slabs][16]
  int32_t* factors = nullptr;                   // [heads][factor_count(slabs)], 4 bytes of 0 to 127
  float* unit = nullptr;                        // [heads]
  float *base = nullptr, *rest_base = nullptr;  // of the leading slabs and of the rest, likewise
  // Or slab by slab, for bytes that are added up.
  ByteTables* bytes = nullptr;  // [heads][part_count(slabs)]
};

// Mean and variance of what slabs add to columns, if all codes are as frequent and slabs are
// independent.
struct ColumnMoments {
  std::vector<float> mean, variance;
};
ColumnMoments moments_of(std::span<const CodeSlab> slabs, size_t columns);

// The slabs of a space as 8-bit integers: a plane is four columns, each the sum of bytes looked up
// in its slabs. Four columns with many slabs have several planes: so the error stays below that of
// the codes.
struct CodePlanes {
  struct Plane {
    size_t first_column = 0;
    size_t begin = 0, end = 0;  // of `slabs` and `entries`
    float scale[kSlabColumns];  // latent column = scale * integer column, unbiased
  };
  std::vector<Plane> planes;
  std::vector<uint16_t> slabs;  // index in the block
  Buffer<int8_t> entries;       // [slab of a plane][column][16]
};

// Planes of the leading `rank` slabs; scale [columns] is the unbiased scale of each column. Where
// one plane is too coarse, it has the coarsest slabs alone, and a second one what its rounding lost
// and the finer slabs.
CodePlanes make_code_planes(std::span<const CodeSlab> slabs, std::span<const float> scale);

}  // namespace mkv
