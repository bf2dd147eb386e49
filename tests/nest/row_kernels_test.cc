#include "nest/row_kernels.h"

#include <gtest/gtest.h>

#include <vector>

#include "base/half.h"
#include "nest/fixture.h"
#include "nest/row_reference.h"
#include "ops/each_instruction_set.h"

namespace mkv {
namespace {

// Rows of f16 and the same as f32, in no order and with gaps.
struct RandomRows {
  std::vector<uint16_t> half;
  std::vector<float> wide;
  std::vector<const std::byte*> of_half, of_wide;

  RandomRows(size_t count, size_t columns) : half(count * (columns + 3)), wide(half.size()) {
    const Matrix<float> values = random_matrix(1, half.size() + 1, count + columns);
    for (size_t i = 0; i < half.size(); ++i) {
      half[i] = f32_to_f16(values.at(0, i));
      wide[i] = f16_to_f32(half[i]);
    }
    for (size_t i = 0; i < count; ++i) {
      const size_t at = (count - 1 - i) * (columns + 3) + i % 3;
      of_half.push_back(reinterpret_cast<const std::byte*>(half.data() + at));
      of_wide.push_back(reinterpret_cast<const std::byte*>(wide.data() + at));
    }
  }
};

template <class Fn>
void for_each_shape(const Fn& fn) {
  for_each_instruction_set([&] {
    for (const size_t queries : {1u, 2u, 3u, 4u, 9u}) {
      for (const size_t columns : {0u, 1u, 7u, 16u, 64u, 67u, 192u}) {
        for (const size_t rows : {0u, 1u, 3u, 4u, 9u}) fn(queries, columns, rows);
      }
    }
  });
}

TEST(RowKernels, ScoresEqualTheReference) {
  for_each_shape([](size_t queries, size_t columns, size_t count) {
    const RandomRows rows(count, columns);
    const Matrix<float> q = random_matrix(queries, columns + 1, 7);
    const View<const float> view(q.data(), queries, columns, columns + 1);
    Matrix<float> expected(queries, count + 2), actual = expected.clone();
    Matrix<float> from_f32 = expected.clone();
    const auto part = [&](Matrix<float>& m) {
      return View<float>(m.data(), queries, count, count + 2);
    };
    reference::score_rows(view, {rows.of_half, DType::f16}, part(expected));
    score_rows(view, {rows.of_half, DType::f16}, part(actual));
    score_rows(view, {rows.of_wide, DType::f32}, part(from_f32));
    for (size_t i = 0; i < expected.span().size(); ++i) {
      ASSERT_NEAR(actual.span()[i], expected.span()[i], 1e-4);
      ASSERT_EQ(actual.span()[i], from_f32.span()[i]);
    }
  });
}

TEST(RowKernels, WeighedSumsEqualTheReference) {
  for_each_shape([](size_t queries, size_t columns, size_t count) {
    const RandomRows rows(count, columns);
    const Matrix<float> w = random_matrix(queries, count + 1, 7);
    const View<const float> weights(w.data(), queries, count, count + 1);
    Matrix<float> expected = random_matrix(queries, columns + 2, 8), actual = expected.clone();
    Matrix<float> from_f32 = expected.clone();
    const auto part = [&](Matrix<float>& m) {
      return View<float>(m.data(), queries, columns, columns + 2);
    };
    reference::weigh_rows(weights, {rows.of_half, DType::f16}, part(expected));
    weigh_rows(weights, {rows.of_half, DType::f16}, part(actual));
    weigh_rows(weights, {rows.of_wide, DType::f32}, part(from_f32));
    for (size_t i = 0; i < expected.span().size(); ++i) {
      ASSERT_NEAR(actual.span()[i], expected.span()[i], 1e-4);
      ASSERT_EQ(actual.span()[i], from_f32.span()[i]);
    }
  });
}

}  // namespace
}  // namespace mkv
