#include <gtest/gtest.h>

#include <cmath>
#include <optional>

#include "base/buffer.h"
#include "base/workers.h"
#include "ops/brain_panels.h"
#include "ops/gemm.h"
#include "ops/integer_products.h"
#include "ops/ops.h"
#include "ops/ops_testing.h"
#include "ops/reference.h"

namespace mkv {
namespace {

using testing::random_matrix;
using testing::RandomWeight;
using testing::TiledWeight;

// For each group of 32 the largest absolute value.
std::vector<double> largest_of_groups(std::span<const float> values) {
  std::vector<double> largest((values.size() + 31) / 32);
  for (size_t c = 0; c < values.size(); ++c) {
    largest[c / 32] = std::max(largest[c / 32], std::abs(static_cast<double>(values[c])));
  }
  return largest;
}

enum class Way : uint8_t { floats, tiles, panels };

Way way_of(const Weight& w, size_t tokens) {
  if (w.layout != Layout::tiles) return Way::floats;
  const bool panels = has_integer_panels() && !has_brain_panels();
  const bool many = panels && tokens > few_for_integer_panels();
  return many && !has_exact_words(w.type) ? Way::panels : Way::tiles;
}

// How far words may be off in a panel: each x_i by half a step of its run, each w_i by 1.5 steps of
// its row's. What a row's factors allow is taken for at most a quarter above what random codes
// reach.
double panel_rounding(std::span<const float> x, std::span<const float> w) {
  WordRows rows;
  rows.reshape(1, x.size());
  const size_t run = rows.together * kIntegerGroup;
  double largest = 0, rounding = 0;
  for (const float v : w) largest = std::max(largest, std::abs(static_cast<double>(v)));
  const double weight_error = 1.5 * 1.25 * largest / static_cast<double>(kLargestWeightWord);
  for (size_t first = 0; first < x.size(); first += run) {
    double top = 0, sum = 0;
    for (size_t c = first; c < first + run; ++c) {
      top = std::max(top, std::abs(static_cast<double>(x[c])));
      sum += std::abs(static_cast<double>(x[c]));
    }
    const double error = 0.5001 * std::max(top / 32767, sum / static_cast<double>(kLargestWordSum));
    rounding += sum * weight_error;
    for (size_t c = first; c < first + run; ++c) {
      rounding += (std::abs(static_cast<double>(w[c])) + weight_error) * error;
    }
  }
  return rounding;
}

// How far a sum over x_i w_i may be off. Floats: c * eps * sum |x_i w_i|, the bound of any order of
// summation. Tiles, multiplied as integers: each x_i is off by half a step of its group of 32 as
// well, and the float part sees scale * q and offset, each as large as the group's largest weight,
// in place of their sum w_i.
double bound(std::span<const float> x, std::span<const float> w, Way way) {
  const bool tiles = way == Way::tiles;
  const std::vector<double> x_largest = largest_of_groups(x), w_largest = largest_of_groups(w);
  double magnitude = 0, rounding = 0;
  for (size_t c = 0; c < x.size(); ++c) {
    const double weight = std::abs(static_cast<double>(w[c]));
    magnitude += std::abs(static_cast<double>(x[c])) * (tiles ? w_largest[c / 32] : weight);
    if (tiles) rounding += weight * x_largest[c / 32] / 65278 * (1 + 1e-6);
  }
  if (way == Way::panels) rounding = panel_rounding(x, w);
  return 16 * 0x1p-24 * magnitude + rounding;
}

// w: in rows, though the products may be of the same weight in tiles.
void expect_close(View<const float> x, const Weight& w, Way way, View<const float> y) {
  std::vector<float> row(w.cols);
  const size_t step = 1 + x.rows / 16;  // with many tokens some rows will do
  for (size_t r = 0; r < w.rows; r += step) {
    reference::dequantize_row(w, r, row);
    for (size_t t = 0; t < x.rows; ++t) {
      double sum = 0;
      for (size_t c = 0; c < w.cols; ++c) sum += static_cast<double>(x.at(t, c)) * row[c];
      ASSERT_NEAR(y.at(t, r), sum, bound(x.row(t), row, way))
          << info(w.type).name << " " << w.rows << "x" << w.cols << ", token " << t << " of "
          << x.rows << ", row " << r;
    }
  }
}

// w's products equal those of `rows`, the same weight in rows, and do not depend on the workers.
void expect_products(Rng& rng, const Weight& w, const Weight& rows) {
  Workers one(1), two(2), three(3);
  for (const size_t tokens : {1, 2, 3, 5, 8, 9, 24, 25, 64, 130}) {
    const Matrix<float> x = random_matrix(rng, tokens, w.cols);
    Matrix<float> y1(tokens, w.rows), y2(tokens, w.rows), y3(tokens, w.rows);
    matmul(x.view(), w, y1.view(), one);
    matmul(x.view(), w, y2.view(), two);
    matmul(x.view(), w, y3.view(), three);
    expect_close(x.view(), rows, way_of(w, tokens), y1.view());
    ASSERT_EQ(std::memcmp(y1.data(), y2.data(), tokens * w.rows * sizeof(float)), 0);
    ASSERT_EQ(std::memcmp(y1.data(), y3.data(), tokens * w.rows * sizeof(float)), 0);
  }
}

TEST(Matmul, EqualsReferenceForAnyWorkers) {
  for_each_instruction_set([&] {
    Rng rng(1);
    for (const DType type : testing::kAllTypes) {
      const RandomWeight random(rng, type, 133, 512, -6, 1);
      expect_products(rng, random.weight, random.weight);
    }
  });
}

TEST(Matmul, TilesEqualReferenceForAnyWorkers) {
  for_each_instruction_set([&] {
    Rng rng(6);
    for (const DType type : testing::kQuantisedTypes) {
      const size_t block = info(type).block_elements;
      for (const size_t rows : {1, 16, 17, 133}) {
        for (const size_t blocks : {size_t{1}, block == 256 ? size_t{3} : size_t{15}}) {
          const RandomWeight random(rng, type, rows, blocks * block, -6, 1);
          expect_products(rng, TiledWeight(random.weight).weight, random.weight);
        }
      }
    }
  });
}

TEST(Matmul, SizesWithoutBlocks) {
  Workers workers(2);
  for_each_instruction_set([&] {
    Rng rng(2);
    for (const DType type : {DType::f32, DType::f16, DType::bf16}) {
      for (size_t cols = 1; cols <= 70; ++cols) {
        const RandomWeight random(rng, type, 3, cols, -4, 1);
        for (const size_t tokens : {1, 3, 17}) {
          const Matrix<float> x = random_matrix(rng, tokens, cols);
          Matrix<float> y(tokens, 3);
          matmul(x.view(), random.weight, y.view(), workers);
          expect_close(x.view(), random.weight, Way::floats, y.view());
        }
      }
    }
  });
}

TEST(Matmul, StridedViewsAndManyPanels) {
  Workers workers(2);
  Rng rng(3);
  for (const DType type : {DType::f32, DType::q4_1, DType::q6_k}) {
    const RandomWeight random(rng, type, 300, 1536, -6, -2);
    const bool tiles = has_tiles(type);
    const std::optional<TiledWeight> tiled =
        tiles ? std::optional<TiledWeight>(random.weight) : std::nullopt;
    const Weight& w = tiles ? tiled->weight : random.weight;
    for (const size_t tokens : {1, 4, 600}) {
      const Matrix<float> x = random_matrix(rng, tokens, 1600);
      Matrix<float> y(tokens, 310);
      for (float& v : y.span()) v = 7.0f;
      const View<const float> in(x.data(), tokens, 1536, 1600);
      matmul(in, w, View<float>(y.data(), tokens, 300, 310), workers);
      expect_close(in, random.weight, way_of(w, tokens),
                   View<const float>(y.data(), tokens, 300, 310));
      for (size_t t = 0; t < tokens; ++t) {
        for (size_t c = 300; c < 310; ++c) ASSERT_EQ(y.at(t, c), 7.0f);
      }
    }
  }
}

void expect_independent_tokens(Rng& rng, const Weight& w, size_t tokens, Workers& workers) {
  const Matrix<float> x = random_matrix(rng, tokens, w.cols);
  Matrix<float> together(tokens, w.rows), alone(1, w.rows);
  matmul(x.view(), w, together.view(), workers);
  for (size_t t = 0; t < tokens; ++t) {
    matmul(x.view().rows_from(t, 1), w, alone.view(), workers);
    ASSERT_EQ(std::memcmp(alone.data(), together.row(t).data(), w.rows * sizeof(float)), 0)
        << info(w.type).name << " token " << t;
  }
}

// The same for panels, which take no token alone: beside others, and in another place.
void expect_independent_of_order(Rng& rng, const Weight& w, Workers& workers) {
  constexpr size_t kTokens = 31, kTurned = 29;
  const Matrix<float> x = random_matrix(rng, kTokens, w.cols);
  Matrix<float> turned(kTurned, w.cols), y(kTokens, w.rows), y_turned(kTurned, w.rows);
  for (size_t t = 0; t < kTurned; ++t) {
    std::ranges::copy(x.row(kTurned - 1 - t), turned.row(t).begin());
  }
  matmul(x.view(), w, y.view(), workers);
  matmul(turned.view(), w, y_turned.view(), workers);
  for (size_t t = 0; t < kTurned; ++t) {
    ASSERT_TRUE(std::ranges::equal(y_turned.row(t), y.row(kTurned - 1 - t)))
        << info(w.type).name << " token " << t;
  }
}

// The few-token path gives a token the same bits whatever stands beside it; where panels are of
// exact words, so do they, and the others in any order.
TEST(Matmul, TokensDoNotDependOnEachOther) {
  Workers workers(2);
  for_each_instruction_set([&] {
    Rng rng(4);
    for (const DType type : testing::kAllTypes) {
      const RandomWeight random(rng, type, 37, 768, -6, 1);
      expect_independent_tokens(rng, random.weight, 7, workers);
      if (!has_tiles(type)) continue;
      const bool panels = has_integer_panels() && !has_brain_panels();
      const TiledWeight tiled(random.weight);
      const bool exact = panels && has_exact_words(type);
      const size_t few = panels ? few_for_integer_panels() : 7;
      expect_independent_tokens(rng, tiled.weight, exact ? 29 : few, workers);
      if (panels) expect_independent_of_order(rng, tiled.weight, workers);
    }
  });
}

// A row of one value everywhere, and activations that all add up.
TEST(Matmul, LargestWordsAddUp) {
  Workers workers(1);
  constexpr size_t kCols = 256, kTokens = 25;
  for_each_instruction_set([&] {
    Rng rng(7);
    for (const DType type : testing::kQuantisedTypes) {
      RandomWeight random(rng, type, 1, kCols, 0, 0);
      const size_t block = info(type).block_bytes;
      for (size_t i = block; i < random.weight.bytes(); ++i) {  // all blocks alike
        random.storage[1 + i] = random.storage[1 + i % block];
      }
      std::vector<float> row(kCols);
      reference::dequantize_row(random.weight, 0, row);
      Matrix<float> x(kTokens, kCols), y(kTokens, 1);
      double sum = 0;
      for (size_t c = 0; c < kCols; ++c) {
        for (size_t t = 0; t < kTokens; ++t) x.at(t, c) = row[c] < 0 ? -3.0f : 3.0f;
        sum += 3 * std::abs(static_cast<double>(row[c]));
      }
      matmul(x.view(), TiledWeight(random.weight).weight, y.view(), workers);
      for (size_t t = 0; t < kTokens; ++t) {
        ASSERT_NEAR(y.at(t, 0), sum, 1e-3 * sum) << info(type).name << " token " << t;
      }
    }
  });
}

// What is no number shows in its token and in its row, and there alone.
TEST(Matmul, NanShows) {
  Workers workers(2);
  constexpr size_t kRows = 40, kCols = 256, kBadToken = 3, kBadRow = 17;
  for_each_instruction_set([&] {
    Rng rng(8);
    for (const float bad : {HUGE_VALF, std::nanf("")}) {
      for (const DType type : testing::kQuantisedTypes) {
        RandomWeight random(rng, type, kRows, kCols, -6, 1);
        const uint16_t half = f32_to_f16(bad);
        const size_t row = kBadRow * row_bytes(type, kCols) + testing::half_offsets(type)[0];
        std::memcpy(random.storage.data() + 1 + row, &half, sizeof(half));
        const TiledWeight tiled(random.weight);
        for (const size_t tokens : {5, 30}) {
          Matrix<float> x = random_matrix(rng, tokens, kCols), y(tokens, kRows);
          x.at(kBadToken, 100) = bad;
          matmul(x.view(), tiled.weight, y.view(), workers);
          for (size_t t = 0; t < tokens; ++t) {
            for (size_t r = 0; r < kRows; ++r) {
              ASSERT_EQ(std::isfinite(y.at(t, r)), t != kBadToken && r != kBadRow)
                  << info(type).name << " token " << t << " of " << tokens << ", row " << r;
            }
          }
        }
      }
    }
  });
}

// Whichever way the products go, of one type or of several.
TEST(Matmul, RowsAreMadeOnceAndBefore) {
  Workers workers(3);
  for_each_instruction_set([&] {
    Rng rng(9);
    const RandomWeight words(rng, DType::q4_1, 20, 64, -6, 1),
        exact(rng, DType::q8_0, 20, 64, -6, 1), floats(rng, DType::f32, 20, 64, -6, 1);
    const TiledWeight tiled_words(words.weight), tiled_exact(exact.weight);
    for (const std::vector<const Weight*>& weights :
         {std::vector<const Weight*>{&tiled_words.weight},
          {&tiled_exact.weight},
          {&floats.weight},
          {&floats.weight, &tiled_exact.weight, &tiled_words.weight}}) {
      for (const size_t tokens : {1, 5, 40}) {
        const Matrix<float> x = random_matrix(rng, tokens, 64);
        Matrix<float> made(tokens, 64), y(tokens, 20 * weights.size()), expected = y.clone();
        std::vector<Product> products, plain;
        for (size_t i = 0; i < weights.size(); ++i) {
          products.push_back({weights[i], View<float>(&y.at(0, i * 20), tokens, 20, y.cols())});
          plain.push_back({weights[i], View<float>(&expected.at(0, i * 20), tokens, 20, y.cols())});
        }
        std::vector<int> calls(tokens);
        const auto make = [&](size_t t) {
          ++calls[t];
          std::ranges::copy(x.row(t), made.row(t).begin());
        };
        matmul(made.view(), products, workers, make);
        matmul(x.view(), plain, workers);
        for (const int count : calls) ASSERT_EQ(count, 1);
        ASSERT_TRUE(std::ranges::equal(y.span(), expected.span()));
      }
    }
  });
}

TEST(Matmul, Empty) {
  Workers workers(2);
  const std::byte nothing{};
  Matrix<float> x(0, 64), y(0, 5), one(1, 64), none(1, 0);
  const std::vector<float> zeros(5 * 64);
  matmul(x.view(), {reinterpret_cast<const std::byte*>(zeros.data()), DType::f32, 5, 64}, y.view(),
         workers);
  matmul(one.view(), {&nothing, DType::f32, 0, 64}, none.view(), workers);
}

TEST(Gemm, EqualsSum) {
  Rng rng(5);
  for (const auto& [m, n, k] :
       {std::array<size_t, 3>{1, 1, 1}, {3, 5, 7}, {64, 64, 64}, {17, 130, 33}, {192, 64, 512}}) {
    const Matrix<float> a = random_matrix(rng, m, k), b = random_matrix(rng, k, n);
    Matrix<float> at(k, m), bt(n, k), start = random_matrix(rng, m, n);
    for (size_t i = 0; i < k; ++i) {
      for (size_t j = 0; j < n; ++j) bt.at(j, i) = b.at(i, j);
      for (size_t j = 0; j < m; ++j) at.at(i, j) = a.at(j, i);
    }
    for (const float beta : {0.0f, 1.0f, 0.5f}) {
      Matrix<float> c = start.clone(), ct = start.clone();
      gemm(a.view(), b.view(), Transpose::no, beta, c.view());
      gemm(a.view(), bt.view(), Transpose::yes, beta, ct.view());
      Matrix<float> added = start.clone();
      if (beta == 1.0f) add_transposed(at.view(), b.view(), added.view());
      for (size_t i = 0; i < m; ++i) {
        for (size_t j = 0; j < n; ++j) {
          double sum = static_cast<double>(beta) * start.at(i, j), magnitude = std::abs(sum);
          for (size_t l = 0; l < k; ++l) {
            const double product = static_cast<double>(a.at(i, l)) * b.at(l, j);
            sum += product;
            magnitude += std::abs(product);
          }
          ASSERT_NEAR(c.at(i, j), sum, 16 * 0x1p-24 * magnitude);
          ASSERT_NEAR(ct.at(i, j), sum, 16 * 0x1p-24 * magnitude);
          if (beta == 1.0f) {
            ASSERT_NEAR(added.at(i, j), sum, 16 * 0x1p-24 * magnitude);
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace mkv
