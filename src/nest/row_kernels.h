// Kernels over rows that each lie at a place of their own: exact tokens apart from blocks, and the
// rows of a basis. References: nest/row_reference.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/dtype.h"
#include "base/view.h"

namespace mkv {

// Rows of one length, which the other operand tells.
struct Rows {
  std::span<const std::byte* const> at;
  DType type = DType::f16;  // f16 or f32
};

// scores[q][i] = sum_c queries[q][c] * row i [c]. scores [queries.rows x rows].
void score_rows(View<const float> queries, const Rows& rows, View<float> scores);
// sums[q][c] += sum_i weights[q][i] * row i [c]. weights [sums.rows x rows].
void weigh_rows(View<const float> weights, const Rows& rows, View<float> sums);

}  // namespace mkv
