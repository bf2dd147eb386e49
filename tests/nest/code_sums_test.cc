#include "nest/code_sums.h"

#include <gtest/gtest.h>

#include <cmath>

#include "nest/fixture.h"
#include "ops/each_instruction_set.h"

namespace mkv {
namespace {

// What the codes of 64 tokens give, in double: [dims][64].
std::vector<double> reference(std::span<const CodeSlab> slabs, View<const float> decode,
                              std::span<const float> scale, const uint8_t* codes) {
  std::vector<double> out(decode.rows * 64);
  for (size_t d = 0; d < decode.rows; ++d) {
    const float* row = decode.row(d).data();
    double* sums = out.data() + d * 64;
    for (size_t s = 0; s < slabs.size(); ++s) {
      double of_entry[kCodebookEntries] = {};
      for (size_t c = 0; c < kSlabColumns; ++c) {
        const size_t column = slabs[s].first_column + c;
        const double factor = static_cast<double>(scale[column]) * static_cast<double>(row[column]);
        for (size_t e = 0; e < kCodebookEntries; ++e) {
          of_entry[e] += static_cast<double>(slabs[s].codebook.entry[c][e]) * factor;
        }
      }
      for (size_t t = 0; t < 64; ++t) {
        const uint8_t byte = codes[s * 32 + t % 32];
        sums[t] += of_entry[t < 32 ? byte & 15u : byte >> 4u];
      }
    }
  }
  return out;
}

// Several on the same columns, as residuals are.
std::vector<CodeSlab> random_slabs(size_t count, size_t dims) {
  Rng rng(count);
  std::vector<CodeSlab> slabs(count);
  for (CodeSlab& slab : slabs) {
    slab.first_column = static_cast<uint16_t>(rng.below(dims / kSlabColumns) * kSlabColumns);
    for (auto& column : slab.codebook.entry) {
      for (float& x : column) x = static_cast<float>(rng.normal());
    }
  }
  return slabs;
}

TEST(CodeSums, AreTheLatentsTimesTheBasisUpToTheirRounding) {
  size_t sets = 0;
  for_each_instruction_set([&sets] {
    EXPECT_EQ(has_code_sums(8, 8, 64), has_avx2());
    if (!has_code_sums(8, 8, 64)) return;
    ++sets;
    for (const size_t dims : {64u, 128u, 192u, 384u}) {
      for (const size_t count : {1u, 5u, 6u, 7u, 25u, 60u}) {
        SCOPED_TRACE(::testing::Message() << dims << " " << count);
        const Matrix<float> decode = random_matrix(dims, dims, dims);
        const std::vector<CodeSlab> slabs = random_slabs(count, dims);
        std::vector<float> scale(dims);
        Rng rng(count);
        for (float& x : scale) x = static_cast<float>(0.5 + rng.uniform());
        // Out of the store, codes begin anywhere.
        std::vector<uint8_t> bytes(count * 32 + 1);
        for (uint8_t& x : bytes) x = static_cast<uint8_t>(rng.below(256));
        const uint8_t* codes = bytes.data() + count % 2;
        CodeSums sums;
        make_code_sums(slabs, decode.view(), scale, sums);
        const std::vector<double> expected = reference(slabs, decode.view(), scale, codes);
        // Among other columns, which stay as they are.
        Matrix<float> out(dims + 1, 64 + 3);
        std::ranges::fill(out.span(), 7.0f);
        Buffer<int16_t> words;
        add_up_codes(sums, codes, {out.data(), dims, 64, out.cols()}, words);
        for (size_t d = 0; d < dims; ++d) {
          const double bound =
              0.51 * static_cast<double>(count) * static_cast<double>(sums.unit[d]);
          for (size_t t = 0; t < 64; ++t) {
            ASSERT_NEAR(out.at(d, t), expected[d * 64 + t], bound) << d << " " << t;
          }
          for (size_t t = 64; t < out.cols(); ++t) ASSERT_EQ(out.at(d, t), 7.0f);
        }
      }
    }
  });
  if (sets == 0) GTEST_SKIP() << "no instruction set of this machine has such kernels";
}

// Entries that are as large as they may be, all of one sign: the sum is the largest word.
TEST(CodeSums, TheLargestSumStaysInItsWord) {
  if (!has_code_sums(40, 64, 64)) GTEST_SKIP() << "no instruction set of this machine has them";
  const size_t dims = 64, count = 40;
  std::vector<CodeSlab> slabs(count);
  for (size_t s = 0; s < count; ++s) {
    slabs[s].first_column = static_cast<uint16_t>(s % 16 * kSlabColumns);
    for (auto& column : slabs[s].codebook.entry) {
      for (size_t e = 0; e < kCodebookEntries; ++e) column[e] = e % 2 == 0 ? 1.0f : -1.0f;
    }
  }
  Matrix<float> decode(dims, dims), out(dims, 64);
  std::ranges::fill(decode.span(), 0.25f);
  const std::vector<float> scale(dims, 1.0f);
  CodeSums sums;
  make_code_sums(slabs, decode.view(), scale, sums);
  // The first 32 tokens have the largest sum, the others the least.
  const std::vector<uint8_t> codes(count * 32, 0x10);
  Buffer<int16_t> words;
  add_up_codes(sums, codes.data(), out.view(), words);
  for (size_t d = 0; d < dims; ++d) {
    for (size_t t = 0; t < 64; ++t) {
      ASSERT_NEAR(out.at(d, t), t < 32 ? 40.0f : -40.0f, 0.05f);
    }
  }
}

TEST(CodeSums, PayOnlyForFewSlabs) {
  if (!has_avx2()) GTEST_SKIP() << "no AVX2";
  EXPECT_TRUE(has_code_sums(192, 192, 192));
  EXPECT_FALSE(has_code_sums(193, 192, 192));
  EXPECT_FALSE(has_code_sums(0, 0, 192));
  EXPECT_FALSE(has_code_sums(8, 8, 32));
}

}  // namespace
}  // namespace mkv
