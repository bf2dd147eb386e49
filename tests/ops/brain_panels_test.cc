#include "ops/brain_panels.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <optional>

#include "ops/ops.h"
#include "ops/ops_testing.h"
#include "ops/reference.h"

namespace mkv {
namespace {

using testing::random_matrix;
using testing::RandomWeight;
using testing::TiledWeight;

Matrix<float> multiply(const Matrix<float>& x, const Weight& w, size_t height) {
  BrainRows rows;
  rows.reshape(x.rows(), x.cols(), left_parts(brain_parts(w.type)));
  to_brain_rows(x.view(), 0, rows.tiles(), rows);
  Matrix<float> y(x.rows(), w.rows);
  for (size_t first = 0; first < w.rows; first += height) {
    multiply_brain_panel(rows, w, first, std::min(height, w.rows - first), y.view());
  }
  return y;
}

// Of a product at most: two parts miss 2^-17 of a value, and the low ones' product is up to 2^-16;
// with three parts, for weights without blocks, what float32 sums lose is more.
constexpr double kTwoParts = 0x1p-15 + 0x1p-20, kThreeParts = 0x1p-20;
double relative_error(DType type) {
  return info(type).block_elements > 1 ? kTwoParts : kThreeParts;
}

void expect_close(const Matrix<float>& x, const Weight& rows, const Matrix<float>& y) {
  std::vector<float> row(rows.cols);
  for (size_t r = 0; r < rows.rows; ++r) {
    reference::dequantize_row(rows, r, row);
    for (size_t t = 0; t < x.rows(); ++t) {
      double sum = 0, magnitude = 0;
      for (size_t c = 0; c < rows.cols; ++c) {
        sum += static_cast<double>(x.at(t, c)) * row[c];
        magnitude += std::abs(static_cast<double>(x.at(t, c)) * row[c]);
      }
      ASSERT_NEAR(y.at(t, r), sum, relative_error(rows.type) * magnitude)
          << info(rows.type).name << " token " << t << " of " << x.rows() << ", row " << r;
    }
  }
}

TEST(BrainPanels, EqualReferenceForAllTypesAndTokens) {
  if (!has_brain_panels()) GTEST_SKIP() << "no AMX";
  Rng rng(1);
  for (const DType type : testing::kAllTypes) {
    const RandomWeight random(rng, type, 37, 512, -6, 1);
    std::optional<TiledWeight> tiled;
    if (has_tiles(type)) tiled.emplace(random.weight);
    const Weight& w = tiled ? tiled->weight : random.weight;
    for (size_t tokens = 1; tokens <= 70; ++tokens) {
      const Matrix<float> x = random_matrix(rng, tokens, w.cols);
      expect_close(x, random.weight, multiply(x, w, kBrainPanelRows));
    }
  }
}

TEST(BrainPanels, ColumnsThatFillNoBlock) {
  if (!has_brain_panels()) GTEST_SKIP() << "no AMX";
  Rng rng(2);
  for (const DType type : {DType::f32, DType::f16, DType::bf16}) {
    for (const size_t cols : {1, 31, 32, 33, 255, 257, 300}) {
      const RandomWeight random(rng, type, 19, cols, -4, 1);
      const Matrix<float> x = random_matrix(rng, 33, cols);
      expect_close(x, random.weight, multiply(x, random.weight, kBrainPanelRows));
    }
  }
}

TEST(BrainPanels, BitsDependOnNeitherHeightNorOtherTokens) {
  if (!has_brain_panels()) GTEST_SKIP() << "no AMX";
  Rng rng(3);
  const RandomWeight random(rng, DType::q4_1, 272, 1536, -6, 1);
  const TiledWeight tiled(random.weight);
  const Matrix<float> x = random_matrix(rng, 560, 1536);
  const Matrix<float> expected = multiply(x, tiled.weight, kBrainPanelRows);
  expect_close(x, random.weight, expected);
  const Matrix<float> high = multiply(x, tiled.weight, kMaxBrainPanelRows);
  ASSERT_EQ(std::memcmp(expected.data(), high.data(), expected.span().size_bytes()), 0);
  for (const size_t tokens : {1, 17, 70}) {
    Matrix<float> some(tokens, x.cols());
    std::memcpy(some.data(), x.data(), some.span().size_bytes());
    const Matrix<float> y = multiply(some, tiled.weight, kBrainPanelRows);
    ASSERT_EQ(std::memcmp(expected.data(), y.data(), y.span().size_bytes()), 0) << tokens;
  }
}

TEST(BrainPanels, ProductsWithColumnsEqualSums) {
  if (!has_brain_panels()) GTEST_SKIP() << "no AMX";
  Rng rng(4);
  for (const size_t cols : {4, 64, 100, 192}) {
    const Matrix<float> a = random_matrix(rng, 192, cols), x = random_matrix(rng, cols, 64);
    BrainRows left;
    left.reshape(a.rows(), a.cols(), 2);
    to_brain_rows(a.view(), 0, left.tiles(), left);
    Matrix<float> c(192, 80);
    multiply_brain_columns(left, x.view(), View<float>(c.data(), 192, 64, 80));
    for (size_t i = 0; i < 192; ++i) {
      for (size_t j = 0; j < 64; ++j) {
        double sum = 0, magnitude = 0;
        for (size_t k = 0; k < cols; ++k) {
          sum += static_cast<double>(a.at(i, k)) * x.at(k, j);
          magnitude += std::abs(static_cast<double>(a.at(i, k)) * x.at(k, j));
        }
        ASSERT_NEAR(c.at(i, j), sum, kTwoParts * magnitude) << cols << " " << i << " " << j;
      }
      for (size_t j = 64; j < 80; ++j) ASSERT_EQ(c.at(i, j), 0.0f);
    }
  }
}

TEST(BrainPanels, WhatIsNoNumberStaysNone) {
  if (!has_brain_panels()) GTEST_SKIP() << "no AMX";
  Rng rng(5);
  const RandomWeight random(rng, DType::q8_0, 16, 64, -6, 1);
  const TiledWeight tiled(random.weight);
  for (const float bad : {HUGE_VALF, NAN}) {
    Matrix<float> x = random_matrix(rng, 20, 64);
    x.at(3, 5) = bad;
    const Matrix<float> y = multiply(x, tiled.weight, kBrainPanelRows);
    for (size_t t = 0; t < 20; ++t) {
      for (size_t r = 0; r < 16; ++r) EXPECT_EQ(std::isfinite(y.at(t, r)), t != 3) << t << " " << r;
    }
  }
}

}  // namespace
}  // namespace mkv
