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

TEST(RowKernels, RowsAreCombined) {
  for_each_instruction_set([] {
    for (const size_t count : {0u, 1u, 4u, 9u}) {
      for (const size_t columns : {0u, 1u, 16u, 67u, 192u}) {
        const Matrix<float> rows = random_matrix(count, columns + 1, 1);
        const Matrix<float> factors = random_matrix(1, count, 2);
        Matrix<uint16_t> halves(count, columns + 1);
        f32_to_f16(rows.span(), halves.span());
        std::vector<float> out(columns, 5.0f), of_halves(columns, 5.0f);
        const size_t stride = columns + 1;
        combine_rows(factors.row(0), View<const float>(rows.data(), count, columns, stride), out);
        combine_rows(factors.row(0), View<const uint16_t>(halves.data(), count, columns, stride),
                     of_halves);
        for (size_t c = 0; c < columns; ++c) {
          float sum = 0.0f, half_sum = 0.0f;
          for (size_t r = 0; r < count; ++r) {
            sum += factors.at(0, r) * rows.at(r, c);
            half_sum += factors.at(0, r) * f16_to_f32(halves.at(r, c));
          }
          EXPECT_NEAR(out[c], sum, 1e-5);
          EXPECT_NEAR(of_halves[c], half_sum, 1e-5);
        }
      }
    }
  });
}

}  // namespace
}  // namespace mkv
