// Kernels of code slabs: 4 bits a token choose one of 16 entries over 4 neighbouring latent columns
// (residual vector quantisation; docs/method.md "Nested code"). A slab of a block is 32 bytes: byte
// i holds token i in its low half and token i + 32 in its high half. References:
// nest/slab_reference.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "nest/nest.h"

namespace mkv {

// Picks for each of 64 tokens the entry nearest to the residual (rows [4][64] with `stride`, the
// first of equals), writes its index to codes [32] and takes the entry off the residual.
void encode_slab(const Codebook& codebook, float* residual, size_t stride, uint8_t* codes);

// rows[c][t] += codebook[code of t][c].
void expand_slab(const Codebook& codebook, const uint8_t* codes, float* rows, size_t stride);

}  // namespace mkv
