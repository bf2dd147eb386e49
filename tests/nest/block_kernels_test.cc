#include "nest/block_kernels.h"

#include <gtest/gtest.h>

#include "base/rng.h"
#include "nest/block_reference.h"
#include "nest/fixture.h"
#include "ops/each_instruction_set.h"

namespace mkv {
namespace {

std::vector<uint16_t> random_block(size_t columns, uint64_t seed, size_t misalign) {
  Rng rng(seed);
  std::vector<uint16_t> block(columns * 64 + misalign);
  for (uint16_t& x : block) x = f32_to_f16(static_cast<float>(rng.normal()));
  return block;
}

// Two blocks of f16 and the same as f32, both misaligned.
struct Blocks {
  size_t stride;  // elements
  std::vector<uint16_t> half;
  std::vector<float> wide;

  Blocks(size_t columns, uint64_t seed)
      : stride(columns * 64 + 3), half(random_block(2 * columns + 1, seed, 7)), wide(half.size()) {
    for (size_t i = 0; i < half.size(); ++i) wide[i] = f16_to_f32(half[i]);
  }
  ColumnBlocks of(DType type) const {
    const void* data = type == DType::f32 ? static_cast<const void*>(wide.data() + 1)
                                          : static_cast<const void*>(half.data() + 1);
    return {static_cast<const std::byte*>(data), row_bytes(type, stride), type};
  }
};

TEST(BlockKernels, ScoresEqualTheReference) {
  for_each_instruction_set([] {
    for (const size_t queries : {1u, 2u, 3u, 4u, 9u}) {
      for (const size_t columns : {0u, 1u, 3u, 16u, 63u, 192u}) {
        const Blocks blocks(columns, columns);
        const Matrix<float> q = random_matrix(queries, columns + 1, 7);
        const View<const float> view(q.data(), queries, columns, columns + 1);
        for (const size_t tokens : {64u, 128u}) {
          Matrix<float> expected = random_matrix(queries, 140, 8), actual = expected.clone();
          Matrix<float> from_f32 = expected.clone();
          const auto part = [&](Matrix<float>& m) {
            return View<float>(m.data(), queries, tokens, 140);
          };
          reference::score_columns(view, blocks.of(DType::f16), part(expected));
          score_columns(view, blocks.of(DType::f16), part(actual));
          score_columns(view, blocks.of(DType::f32), part(from_f32));
          for (size_t i = 0; i < expected.span().size(); ++i) {
            EXPECT_NEAR(actual.span()[i], expected.span()[i], 1e-4);
            EXPECT_EQ(actual.span()[i], from_f32.span()[i]);
          }
        }
      }
    }
  });
}

TEST(BlockKernels, WeighedSumsEqualTheReference) {
  for_each_instruction_set([] {
    for (const size_t queries : {1u, 3u, 4u, 5u}) {
      for (const size_t columns : {0u, 1u, 17u, 64u}) {
        const Blocks blocks(columns, columns);
        const Matrix<float> w = random_matrix(queries, 131, 7);
        for (const size_t tokens : {64u, 128u}) {
          const View<const float> weights(w.data(), queries, tokens, 131);
          Matrix<float> expected = random_matrix(queries, columns, 8), actual = expected.clone();
          Matrix<float> from_f32 = expected.clone();
          reference::weigh_columns(weights, blocks.of(DType::f16), expected.view());
          weigh_columns(weights, blocks.of(DType::f16), actual.view());
          weigh_columns(weights, blocks.of(DType::f32), from_f32.view());
          for (size_t i = 0; i < expected.span().size(); ++i) {
            EXPECT_NEAR(actual.span()[i], expected.span()[i], 1e-4);
            EXPECT_EQ(actual.span()[i], from_f32.span()[i]);
          }
        }
      }
    }
  });
}

TEST(BlockKernels, StoredTokensEqualTheReferenceAndTouchNothingElse) {
  for_each_instruction_set([] {
    for (const size_t columns : {0u, 1u, 7u, 8u, 9u, 64u, 100u, 192u}) {
      for (const size_t misalign : {0u, 1u, 3u}) {
        const std::vector<uint16_t> from = random_block(columns + 1, columns, misalign);
        const View<const uint16_t> rows(from.data() + misalign, kStoredTokens, columns,
                                        columns + 5);
        for (const size_t first : {0u, 8u, 56u}) {
          std::vector<uint16_t> expected = random_block(columns + 1, 3, misalign);
          std::vector<uint16_t> actual = expected;
          reference::store_tokens(rows, expected.data() + misalign + first);
          store_tokens(rows, actual.data() + misalign + first);
          ASSERT_EQ(actual, expected) << columns << " " << misalign << " " << first;
        }
      }
    }
  });
}

TEST(BlockKernels, ExpSumMaxScaleAndWiden) {
  for_each_instruction_set([] {
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
    widen_block({reinterpret_cast<const std::byte*>(block.data()), 0, DType::f16}, 5, wide.view(),
                65);
    for (size_t c = 0; c < 5; ++c) {
      for (size_t t = 0; t < 64; ++t) EXPECT_EQ(wide.at(c, 65 + t), f16_to_f32(block[c * 64 + t]));
      EXPECT_EQ(wide.at(c, 64), 0.0f);
    }
  });
}

// The sum of peaks lies between the sum of all and that over the number of blocks.
TEST(BlockKernels, PeaksBoundTheSum) {
  for_each_instruction_set([] {
    for (size_t blocks = 1; blocks < 6; ++blocks) {
      std::vector<float> x(blocks * 64);
      Rng rng(blocks);
      for (float& value : x) value = static_cast<float>(3.0 * rng.normal());
      x[65 % x.size()] = -HUGE_VALF;
      std::vector<float> peaks(x.begin(), x.begin() + 64), all = x;
      for (size_t t = 64; t < x.size(); ++t) peaks[t % 64] = std::max(peaks[t % 64], x[t]);
      const float top = *std::ranges::max_element(x), sum = reference::exp_and_sum(peaks, top);
      for (const float least : {-HUGE_VALF, top - 1.0f, top, top + 0.1f, top + 8.0f, HUGE_VALF}) {
        const Peaks found = peaks_of(x, least);
        EXPECT_EQ(found.top, top);
        EXPECT_EQ(found.reach, top + std::log(sum) >= least) << least - top;
      }
      EXPECT_TRUE(peaks_of(x, top + std::log(sum) - 1e-5f).reach);
      EXPECT_FALSE(peaks_of(x, top + std::log(sum) + 1e-5f).reach);
      const float of_all = reference::exp_and_sum(all, top);
      EXPECT_LE(sum, 1.00001f * of_all);
      EXPECT_GE(1.00001f * sum * static_cast<float>(blocks), of_all);
    }
    const std::vector<float> alike(256, 2.0f), hidden(64, -HUGE_VALF);
    EXPECT_TRUE(peaks_of(alike, 2.0f + std::log(64.0f) - 1e-5f).reach);
    EXPECT_FALSE(peaks_of(alike, 2.0f + std::log(64.0f) + 1e-5f).reach);
    EXPECT_EQ(peaks_of(hidden, 0.0f).top, -HUGE_VALF);
    EXPECT_FALSE(peaks_of(hidden, 0.0f).reach);
  });
}

}  // namespace
}  // namespace mkv
