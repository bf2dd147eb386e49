#include "nest/block_kernels.h"

#include <gtest/gtest.h>

#include "base/rng.h"
#include "nest/block_reference.h"
#include "nest/each_target.h"
#include "nest/fixture.h"

namespace mkv {
namespace {

std::vector<uint16_t> random_block(size_t columns, uint64_t seed, size_t misalign) {
  Rng rng(seed);
  std::vector<uint16_t> block(columns * 64 + misalign);
  for (uint16_t& x : block) x = f32_to_f16(static_cast<float>(rng.normal()));
  return block;
}

TEST(BlockKernels, ScoresEqualTheReference) {
  for_each_target([] {
    for (const size_t queries : {1u, 2u, 3u, 4u, 9u}) {
      for (const size_t columns : {0u, 1u, 3u, 16u, 63u, 192u}) {
        const auto block = random_block(columns, columns, 1);
        const Matrix<float> q = random_matrix(queries, columns + 1, 7);
        const View<const float> view(q.data(), queries, columns, columns + 1);
        Matrix<float> expected = random_matrix(queries, 70, 8), actual = expected.clone();
        reference::score_columns_f16(view, block.data() + 1, expected.view());
        score_columns_f16(view, block.data() + 1, actual.view());
        std::vector<float> wide(columns * 64 + 1);
        for (size_t i = 0; i < columns * 64; ++i) wide[i + 1] = f16_to_f32(block[i + 1]);
        Matrix<float> from_f32 = random_matrix(queries, 70, 8);
        score_columns_f32(view, wide.data() + 1, from_f32.view());
        for (size_t i = 0; i < expected.span().size(); ++i) {
          EXPECT_NEAR(actual.span()[i], expected.span()[i], 1e-4);
          EXPECT_EQ(actual.span()[i], from_f32.span()[i]);
        }
      }
    }
  });
}

TEST(BlockKernels, WeighedSumsEqualTheReference) {
  for_each_target([] {
    for (const size_t queries : {1u, 3u, 5u}) {
      for (const size_t columns : {0u, 1u, 17u, 64u}) {
        const auto block = random_block(columns, columns, 3);
        const Matrix<float> w = random_matrix(queries, 65, 7);
        const View<const float> weights(w.data(), queries, 64, 65);
        Matrix<float> expected = random_matrix(queries, columns, 8), actual = expected.clone();
        reference::weigh_columns_f16(weights, block.data() + 3, expected.view());
        weigh_columns_f16(weights, block.data() + 3, actual.view());
        for (size_t i = 0; i < expected.span().size(); ++i) {
          EXPECT_NEAR(actual.span()[i], expected.span()[i], 1e-4);
        }
      }
    }
  });
}

TEST(BlockKernels, ExpSumMaxScaleAndWiden) {
  for_each_target([] {
    for (size_t size = 0; size < 70; ++size) {
      std::vector<float> x(size), expected(size);
      Rng rng(size);
      for (float& value : x) value = static_cast<float>(10.0 * rng.normal());
      if (size > 2) x[1] = -HUGE_VALF;
      const float top = max_of(x);
      EXPECT_EQ(top, size == 0 ? -HUGE_VALF : *std::max_element(x.begin(), x.end()));
      expected = x;
      const float sum = reference::exp_and_sum(expected, top);
      EXPECT_NEAR(exp_and_sum(x, top), sum, 1e-5f * sum);
      for (size_t i = 0; i < size; ++i) EXPECT_NEAR(x[i], expected[i], 1e-6f);
      scale_by(x, 2.0f);
      for (size_t i = 0; i < size; ++i) EXPECT_NEAR(x[i], 2.0f * expected[i], 2e-6f);
    }
    const auto block = random_block(5, 1, 0);
    Matrix<float> wide(5, 130);
    widen_block(block.data(), 5, wide.view(), 65);
    for (size_t c = 0; c < 5; ++c) {
      for (size_t t = 0; t < 64; ++t) EXPECT_EQ(wide.at(c, 65 + t), f16_to_f32(block[c * 64 + t]));
      EXPECT_EQ(wide.at(c, 64), 0.0f);
    }
  });
}

}  // namespace
}  // namespace mkv
