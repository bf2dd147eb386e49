// Coding with a beam: slabs on the same columns are chosen together, a few paths at a time, instead
// of each as the nearest to what the one before left over. Less error at the rank that is coded, a
// little more when fewer of its slabs are read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "nest/nest.h"

namespace mkv {

inline constexpr size_t kMostBeam = 4;  // paths

// Codes of a block's 64 tokens in `stages`, slabs on the same columns in their order, by `beam` >=
// 2 paths: codes[stage][token]. columns [4][64] with a stride are what is coded, and stay.
void encode_beam(std::span<const CodeSlab* const> stages, const float* columns, size_t stride,
                 size_t beam, uint8_t (*codes)[64]);

}  // namespace mkv
