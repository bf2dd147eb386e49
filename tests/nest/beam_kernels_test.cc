#include "nest/beam_kernels.h"

#include <gtest/gtest.h>

#include <array>

#include "nest/beam_reference.h"
#include "nest/fixture.h"
#include "nest/slab_kernels.h"
#include "ops/each_instruction_set.h"

namespace mkv {
namespace {

// Each codebook a third finer than the one before, as residual codes are.
std::vector<CodeSlab> random_slabs(size_t count, uint64_t seed) {
  Rng rng(seed);
  std::vector<CodeSlab> slabs(count);
  float size = 1.0f;
  for (CodeSlab& slab : slabs) {
    for (auto& column : slab.codebook.entry) {
      for (float& x : column) x = size * static_cast<float>(rng.normal());
    }
    size *= 0.67f;
  }
  return slabs;
}

std::vector<const CodeSlab*> pointers(const std::vector<CodeSlab>& slabs) {
  std::vector<const CodeSlab*> all;
  for (const CodeSlab& slab : slabs) all.push_back(&slab);
  return all;
}

std::array<float, kSlabColumns> column_of(const Matrix<float>& tokens, size_t at) {
  std::array<float, kSlabColumns> out{};
  for (size_t c = 0; c < kSlabColumns; ++c) out[c] = tokens.at(c, at);
  return out;
}

// Squared length of what codes[stage][t] leave of a token.
double error_of(const std::vector<CodeSlab>& slabs, std::array<float, kSlabColumns> token,
                const uint8_t (*codes)[64], size_t t) {
  for (size_t s = 0; s < slabs.size(); ++s) {
    for (size_t c = 0; c < kSlabColumns; ++c) {
      token[c] -= slabs[s].codebook.entry[c][codes[s][t]];
    }
  }
  double sum = 0;
  for (const float x : token) sum += static_cast<double>(x) * x;
  return sum;
}

TEST(BeamKernels, FindWhatTheReferenceFinds) {
  for_each_instruction_set([] {
    size_t differing = 0, tokens = 0;
    for (const size_t stages : {1u, 2u, 5u, 16u}) {
      for (size_t beam = 2; beam <= kMostBeam; ++beam) {
        const std::vector<CodeSlab> slabs = random_slabs(stages, stages * 10 + beam);
        const Matrix<float> columns = random_matrix(kSlabColumns, 67, 7 * stages + beam);
        uint8_t codes[kMostSlabsPerColumn][64];
        encode_beam(pointers(slabs), columns.data() + 3, 67, beam, codes);
        for (size_t t = 0; t < 64; ++t, ++tokens) {
          const auto token = column_of(columns, t + 3);
          const auto expected = reference::encode_beam(pointers(slabs), token, beam);
          bool same = true;
          for (size_t s = 0; s < stages; ++s) same = same && codes[s][t] == expected.codes[s];
          differing += same ? 0 : 1;
          if (same) continue;
          // Costs are compared to 17 bits: a path that is as good.
          EXPECT_NEAR(error_of(slabs, token, codes, t), expected.cost, 0.3 * expected.cost + 1e-6);
        }
      }
    }
    EXPECT_LE(differing, tokens / 50);
  });
}

TEST(BeamKernels, MorePathsLeaveLess) {
  const std::vector<CodeSlab> slabs = random_slabs(8, 3);
  double left[kMostBeam + 1] = {};
  for (uint64_t seed = 0; seed < 10; ++seed) {
    Matrix<float> columns = random_matrix(kSlabColumns, 64, seed);
    uint8_t codes[kMostSlabsPerColumn][64];
    for (size_t beam = 2; beam <= kMostBeam; ++beam) {
      encode_beam(pointers(slabs), columns.data(), 64, beam, codes);
      for (size_t t = 0; t < 64; ++t) {
        left[beam] += error_of(slabs, column_of(columns, t), codes, t);
      }
    }
    uint8_t greedy[32];
    for (const CodeSlab& slab : slabs) encode_slab(slab.codebook, columns.data(), 64, greedy);
    for (const float x : columns.span()) left[1] += static_cast<double>(x) * x;
  }
  EXPECT_LT(left[2], 0.9 * left[1]);
  EXPECT_LT(left[3], left[2]);
  EXPECT_LT(left[4], left[3]);
}

TEST(BeamKernels, TheDeepestCodeIsReadToItsEnd) {
  const std::vector<CodeSlab> slabs = random_slabs(kMostSlabsPerColumn, 5);
  const Matrix<float> columns = random_matrix(kSlabColumns, 64, 5);
  uint8_t codes[kMostSlabsPerColumn][64];
  encode_beam(pointers(slabs), columns.data(), 64, 4, codes);
  for (size_t t = 0; t < 64; ++t) {
    EXPECT_LT(error_of(slabs, column_of(columns, t), codes, t), 1e-4);
  }
}

}  // namespace
}  // namespace mkv
