// Kernels written for AVX-512 with VNNI by hand, where the portable ones cannot name the
// instruction: look-ups in 64 bytes, and products of bytes.
#pragma once

#include <cstdint>
#include <span>

#include "base/view.h"
#include "nest/slab_kernels.h"

namespace mkv::avx512 {

// Whether the machine has VNNI and the instruction set was not lowered (ops/instruction_set.h).
bool usable();
// Whether it has look-ups in 64 bytes (VBMI) too: score_slabs, by tables of four slabs.
bool scores_fours();

// As in nest/slab_kernels.h.
Softened soften_to_bytes(std::span<const float> scores, float top, uint8_t* weights);
void score_slabs(const ScoreTables& tables, Slabs which, const CodeBlocks& blocks,
                 std::span<const size_t> heads, View<float> scores);
void weigh_slabs(const CodePlanes& planes, const CodeBlocks& blocks, const uint8_t* weights,
                 std::span<const float> factor, View<float> sums);

}  // namespace mkv::avx512
