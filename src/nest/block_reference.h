// Scalar references of nest/block_kernels.h, for tests.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/half.h"
#include "base/view.h"

namespace mkv::reference {

inline void score_columns_f16(View<const float> queries, const uint16_t* block,
                              View<float> scores) {
  for (size_t q = 0; q < queries.rows; ++q) {
    for (size_t t = 0; t < 64; ++t) {
      for (size_t c = 0; c < queries.cols; ++c) {
        scores.at(q, t) += queries.at(q, c) * f16_to_f32(block[c * 64 + t]);
      }
    }
  }
}

inline void weigh_columns_f16(View<const float> weights, const uint16_t* block, View<float> sums) {
  for (size_t q = 0; q < weights.rows; ++q) {
    for (size_t c = 0; c < sums.cols; ++c) {
      for (size_t t = 0; t < 64; ++t) {
        sums.at(q, c) += weights.at(q, t) * f16_to_f32(block[c * 64 + t]);
      }
    }
  }
}

inline float exp_and_sum(std::span<float> x, float shift) {
  float sum = 0.0f;
  for (float& value : x) sum += value = std::exp(value - shift);
  return sum;
}

}  // namespace mkv::reference
