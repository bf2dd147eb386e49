// Scalar references of nest/block_kernels.h, for tests.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/half.h"
#include "base/view.h"
#include "nest/block_kernels.h"

namespace mkv::reference {

inline float column_value(const ColumnBlocks& blocks, size_t column, size_t t) {
  const std::byte* block = blocks.data + t / 64 * blocks.stride;
  const size_t i = column * 64 + t % 64;
  if (blocks.type == DType::f32) return reinterpret_cast<const float*>(block)[i];
  return f16_to_f32(reinterpret_cast<const uint16_t*>(block)[i]);
}

inline void score_columns(View<const float> queries, const ColumnBlocks& blocks,
                          View<float> scores) {
  for (size_t q = 0; q < queries.rows; ++q) {
    for (size_t t = 0; t < scores.cols; ++t) {
      for (size_t c = 0; c < queries.cols; ++c) {
        scores.at(q, t) += queries.at(q, c) * column_value(blocks, c, t);
      }
    }
  }
}

inline void weigh_columns(View<const float> weights, const ColumnBlocks& blocks, View<float> sums) {
  for (size_t q = 0; q < weights.rows; ++q) {
    for (size_t c = 0; c < sums.cols; ++c) {
      for (size_t t = 0; t < weights.cols; ++t) {
        sums.at(q, c) += weights.at(q, t) * column_value(blocks, c, t);
      }
    }
  }
}

inline void store_tokens(View<const uint16_t> rows, uint16_t* block) {
  for (size_t t = 0; t < rows.rows; ++t) {
    for (size_t c = 0; c < rows.cols; ++c) block[c * 64 + t] = rows.at(t, c);
  }
}

inline float exp_and_sum(std::span<float> x, float shift) {
  float sum = 0.0f;
  for (float& value : x) sum += value = std::exp(value - shift);
  return sum;
}

}  // namespace mkv::reference
