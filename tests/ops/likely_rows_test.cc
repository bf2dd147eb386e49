#include "ops/likely_rows.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "ops/integer_products.h"
#include "ops/ops.h"
#include "ops/ops_testing.h"
#include "ops/planes.h"
#include "ops/reference.h"

namespace mkv {
namespace {

using testing::normals;
using testing::random_matrix;
using testing::RandomWeight;
using testing::TiledWeight;

constexpr float kAll = std::numeric_limits<float>::infinity();

// A weight in planes, at an odd address.
struct PlanesWeight {
  explicit PlanesWeight(const Weight& rows) : tiled(rows) {
    weight = {nullptr, rows.type, rows.rows, rows.cols, Layout::planes};
    storage.resize(weight.tiled_bytes() + 1);
    weight.data = storage.data() + 1;
    for (size_t t = 0; t < weight.tiles(); ++t) {
      const std::span<const std::byte> tile(tiled.weight.tile(t), tile_bytes());
      const bool even = split_tile(tile, weight, t, storage.data() + 1);
      if (!even) uneven.push_back(static_cast<uint32_t>(t));
    }
  }
  size_t tile_bytes() const { return kTileRows * row_bytes(weight.type, weight.cols); }

  TiledWeight tiled;
  std::vector<std::byte> storage;
  Weight weight;
  std::vector<uint32_t> uneven;
};

constexpr DType kPlaneTypes[] = {DType::q8_0, DType::q6_k};

TEST(Planes, OfTypesWithManyBits) {
  for (const DType type : testing::kAllTypes) {
    EXPECT_EQ(has_planes(type), std::ranges::find(kPlaneTypes, type) != std::end(kPlaneTypes));
  }
}

TEST(Planes, TogetherAreTheTiles) {
  for_each_instruction_set([] {
    Rng rng(1);
    for (const DType type : kPlaneTypes) {
      for (const size_t rows : {1, 16, 17, 40}) {
        for (const size_t blocks : {1, 3}) {
          const size_t cols = blocks * info(type).block_elements;
          const RandomWeight random(rng, type, rows, cols, -8, 2);
          const PlanesWeight planes(random.weight);
          for (size_t t = 0; t < planes.weight.tiles(); ++t) {
            ASSERT_EQ(std::memcmp(whole_tile(planes.weight, t), planes.tiled.weight.tile(t),
                                  planes.tile_bytes()),
                      0)
                << info(type).name;
          }
          std::vector<float> got(cols), expected(cols);
          for (size_t r = 0; r < rows; ++r) {
            dequantize_row(planes.weight, r, got);
            dequantize_row(random.weight, r, expected);
            ASSERT_EQ(got, expected) << info(type).name << " row " << r << " of " << rows;
          }
        }
      }
    }
  });
}

TEST(Planes, ProductsHaveTheBitsOfTiles) {
  Workers workers(2);
  for_each_instruction_set([&] {
    Rng rng(2);
    for (const DType type : kPlaneTypes) {
      const RandomWeight random(rng, type, 300, 768, -6, -2);
      const PlanesWeight planes(random.weight);
      for (const size_t tokens : {1, 2, 7, 25, 60}) {
        const Matrix<float> x = random_matrix(rng, tokens, 768);
        Matrix<float> y(tokens, 300), expected(tokens, 300);
        matmul(x.view(), planes.weight, y.view(), workers);
        matmul(x.view(), planes.tiled.weight, expected.view(), workers);
        ASSERT_TRUE(std::ranges::equal(y.span(), expected.span()))
            << info(type).name << ", " << tokens << " tokens";
      }
    }
  });
}

// Row r of w, all rests of whose codes are `rest`.
std::vector<float> row_with_rests(const Weight& w, size_t r, int rest) {
  std::vector<std::byte> bytes(w.row(r), w.row(r) + row_bytes(w.type, w.cols));
  const bool eight = w.type == DType::q8_0;
  const size_t block = info(w.type).block_bytes, first = eight ? 2 : 0, count = eight ? 32 : 128;
  for (size_t b = 0; b < bytes.size(); b += block) {
    for (size_t i = b + first; i < b + first + count; ++i) {  // Q6_K's are the low half of nibbles
      bytes[i] = eight ? (bytes[i] & std::byte{0xf0}) | static_cast<std::byte>(rest)
                       : (bytes[i] & std::byte{0xcc}) | static_cast<std::byte>(rest * 0x11);
    }
  }
  std::vector<float> row(w.cols);
  reference::dequantize_row({bytes.data(), w.type, 1, w.cols}, 0, row);
  return row;
}

// The reference: the product with all rests in the middle, and the deviation of what they add.
struct Leading {
  double product = 0, magnitude = 0, deviation = 0;
};
Leading leading_of(const Weight& w, size_t r, std::span<const float> x) {
  const int below = w.type == DType::q8_0 ? 7 : 1;
  const std::vector<float> low = row_with_rests(w, r, below),
                           high = row_with_rests(w, r, below + 1);
  Leading leading;
  double variance = 0;
  for (size_t c = 0; c < x.size(); ++c) {
    const double middle = (static_cast<double>(low[c]) + static_cast<double>(high[c])) / 2;
    const double step = static_cast<double>(high[c]) - static_cast<double>(low[c]);
    const double of_x = static_cast<double>(x[c]);
    leading.product += middle * of_x;
    leading.magnitude += std::abs(middle * of_x);
    variance += step * step * of_x * of_x * static_cast<double>(rest_variance(w.type));
  }
  leading.deviation = std::sqrt(variance);
  return leading;
}

// Rows that may be within `within` of the largest are exact, the others off by what is said.
void expect_likely(Rng& rng, DType type, size_t cols, float within, Workers& workers) {
  const RandomWeight random(rng, type, 2000 + cols % 7, cols, -7, -6);
  const PlanesWeight planes(random.weight);
  ASSERT_TRUE(planes.uneven.empty());
  const size_t rows = random.weight.rows;
  const std::vector<float> x = normals(rng, cols);
  std::vector<float> y(rows), exact(rows);
  multiply_likely_rows(x, planes.weight, {}, within, y, workers);
  matmul({x.data(), 1, cols}, planes.tiled.weight, {exact.data(), 1, rows}, workers);
  const float largest = *std::ranges::max_element(exact);
  size_t others = 0;
  double square = 0;
  for (size_t r = 0; r < rows; ++r) {
    if (y[r] == exact[r]) continue;
    ASSERT_LT(exact[r], largest - within) << info(type).name << " row " << r << " of " << cols;
    ASSERT_LT(y[r], largest - within);
    const Leading leading = leading_of(random.weight, r, x);
    ASSERT_NEAR(y[r], leading.product, 2e-4 * leading.magnitude) << info(type).name << " row " << r;
    const double off = static_cast<double>(y[r]) - static_cast<double>(exact[r]);
    ASSERT_LT(std::abs(off), kRestDeviations * leading.deviation);
    square += off * off / (leading.deviation * leading.deviation);
    ++others;
  }
  if (!has_integer_products()) {
    ASSERT_EQ(others, 0u);
  } else if (within == 0.0f && cols > 500) {  // most are left out, and off by what is said
    ASSERT_GT(others, rows / 2);
    ASSERT_NEAR(square / static_cast<double>(others), 1.0, 0.2);
  }
}

TEST(LikelyRows, WhatIsNearTheLargestIsExactAndTheRestOffByWhatIsSaid) {
  Workers workers(2);
  for_each_instruction_set([&] {
    Rng rng(3);
    for (const float within : {0.0f, 3.0f, 20.0f}) {
      for (const size_t cols : {32, 64, 576, 1024}) {
        expect_likely(rng, DType::q8_0, cols, within, workers);
      }
      for (const size_t cols : {256, 768}) expect_likely(rng, DType::q6_k, cols, within, workers);
    }
  });
}

TEST(LikelyRows, AllIfAllAreWanted) {
  Workers workers(2);
  for_each_instruction_set([&] {
    Rng rng(5);
    const RandomWeight random(rng, DType::q8_0, 333, 96, -7, -6);
    const PlanesWeight planes(random.weight);
    const std::vector<float> x = normals(rng, 96);
    std::vector<float> y(333), exact(333);
    for (const float within : {kAll, 1e30f}) {
      for (const Weight* w : {&planes.weight, &planes.tiled.weight}) {
        std::ranges::fill(y, 7.0f);
        multiply_likely_rows(x, *w, {}, within, y, workers);
        matmul({x.data(), 1, 96}, planes.tiled.weight, {exact.data(), 1, 333}, workers);
        ASSERT_EQ(y, exact);
      }
    }
  });
}

// Codes that are mostly 0 have other bits that add up.
TEST(LikelyRows, UnevenTilesAreExact) {
  Workers workers(2);
  constexpr size_t kRows = 480, kCols = 576, kUneven = 100;
  Rng rng(6);
  RandomWeight random(rng, DType::q8_0, kRows, kCols, -9, -9);
  std::byte* row = random.storage.data() + 1 + kUneven * row_bytes(DType::q8_0, kCols);
  const uint16_t scale = f32_to_f16(0x1p-9f);
  for (size_t g = 0; g < kCols / 32; ++g) {  // -1 and 0, for which -8.5 and 7.5 would be taken
    std::memcpy(row + g * 34, &scale, sizeof(scale));
    std::memset(row + g * 34 + 2, g % 2 == 0 ? 0xff : 0, 32);
  }
  const PlanesWeight planes(random.weight);
  ASSERT_EQ(planes.uneven, std::vector<uint32_t>{kUneven / kTileRows});
  const std::vector<float> x(kCols, -1.0f);
  for_each_instruction_set([&] {
    std::vector<float> y(kRows), exact(kRows);
    multiply_likely_rows(x, planes.weight, planes.uneven, 0.0f, y, workers);
    matmul({x.data(), 1, kCols}, planes.tiled.weight, {exact.data(), 1, kRows}, workers);
    ASSERT_EQ(y[kUneven], exact[kUneven]);
  });
}

TEST(LikelyRows, RowsOfZerosAndOfEqualsInTheLastTile) {
  Workers workers(2);
  Rng rng(7);
  RandomWeight random(rng, DType::q8_0, 37, 64, -7, -6);
  std::memset(random.storage.data() + 1 + 5 * 68, 0, 68);
  std::memcpy(random.storage.data() + 1 + 36 * 68, random.storage.data() + 1 + 35 * 68, 68);
  const PlanesWeight planes(random.weight);
  for_each_instruction_set([&] {
    for (int i = 0; i < 30; ++i) {
      const std::vector<float> x = normals(rng, 64);
      std::vector<float> y(37), exact(37);
      multiply_likely_rows(x, planes.weight, planes.uneven, 0.0f, y, workers);
      matmul({x.data(), 1, 64}, planes.tiled.weight, {exact.data(), 1, 37}, workers);
      ASSERT_EQ(index_of_largest(y), index_of_largest(exact));
      ASSERT_EQ(y[35], y[36]);
    }
  });
}

// A scale that is no number makes its row none, and hides no other; x makes all none.
TEST(LikelyRows, NoNumbersShow) {
  Workers workers(2);
  constexpr size_t kBad = 20;
  Rng rng(8);
  RandomWeight random(rng, DType::q8_0, 80, 64, -7, -6);
  const uint16_t nan = 0x7e00;
  std::memcpy(random.storage.data() + 1 + kBad * 68, &nan, sizeof(nan));
  const PlanesWeight planes(random.weight);
  for_each_instruction_set([&] {
    std::vector<float> x = normals(rng, 64), y(80), exact(80);
    multiply_likely_rows(x, planes.weight, planes.uneven, 0.0f, y, workers);
    matmul({x.data(), 1, 64}, planes.tiled.weight, {exact.data(), 1, 80}, workers);
    ASSERT_TRUE(std::isnan(y[kBad]));
    ASSERT_EQ(index_of_largest(y), index_of_largest(exact));
    x[3] = std::numeric_limits<float>::quiet_NaN();
    multiply_likely_rows(x, planes.weight, planes.uneven, 0.0f, y, workers);
    ASSERT_EQ(index_of_largest(y), y.size());
  });
}

}  // namespace
}  // namespace mkv
