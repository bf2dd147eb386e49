// Scalar references of nest/row_kernels.h, for tests.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/half.h"
#include "base/view.h"
#include "nest/row_kernels.h"

namespace mkv::reference {

inline float row_value(const Rows& rows, size_t row, size_t column) {
  if (rows.type == DType::f32) return reinterpret_cast<const float*>(rows.at[row])[column];
  return f16_to_f32(reinterpret_cast<const uint16_t*>(rows.at[row])[column]);
}

inline void score_rows(View<const float> queries, const Rows& rows, View<float> scores) {
  for (size_t q = 0; q < queries.rows; ++q) {
    for (size_t i = 0; i < rows.at.size(); ++i) {
      scores.at(q, i) = 0.0f;
      for (size_t c = 0; c < queries.cols; ++c) {
        scores.at(q, i) += queries.at(q, c) * row_value(rows, i, c);
      }
    }
  }
}

inline void weigh_rows(View<const float> weights, const Rows& rows, View<float> sums) {
  for (size_t q = 0; q < sums.rows; ++q) {
    for (size_t c = 0; c < sums.cols; ++c) {
      for (size_t i = 0; i < rows.at.size(); ++i) {
        sums.at(q, c) += weights.at(q, i) * row_value(rows, i, c);
      }
    }
  }
}

}  // namespace mkv::reference
