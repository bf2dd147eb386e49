// Scalar references of nest/slab_kernels.h, for tests.
#pragma once

#include <cstddef>
#include <cstdint>

#include "nest/nest.h"

namespace mkv::reference {

inline unsigned code_at(const uint8_t* codes, size_t t) {
  return t < 32 ? codes[t] & 15u : codes[t - 32] >> 4;
}

inline void encode_slab(const Codebook& codebook, float* residual, size_t stride, uint8_t* codes) {
  for (size_t i = 0; i < 32; ++i) codes[i] = 0;
  for (size_t t = 0; t < 64; ++t) {
    unsigned best = 0;
    float least = 0.0f;
    for (unsigned e = 0; e < kCodebookEntries; ++e) {
      float cost = codebook.half_norm[e];
      for (size_t c = 0; c < kSlabColumns; ++c) {
        cost -= residual[c * stride + t] * codebook.entry[c][e];
      }
      if (e == 0 || cost < least) {
        best = e;
        least = cost;
      }
    }
    for (size_t c = 0; c < kSlabColumns; ++c) {
      residual[c * stride + t] -= codebook.entry[c][best];
    }
    codes[t % 32] = static_cast<uint8_t>(codes[t % 32] | (t < 32 ? best : best << 4));
  }
}

inline void expand_slab(const Codebook& codebook, const uint8_t* codes, float* rows,
                        size_t stride) {
  for (size_t t = 0; t < 64; ++t) {
    for (size_t c = 0; c < kSlabColumns; ++c) {
      rows[c * stride + t] += codebook.entry[c][code_at(codes, t)];
    }
  }
}

}  // namespace mkv::reference
