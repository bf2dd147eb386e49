#include "nest/slab_kernels.h"

#include <gtest/gtest.h>

#include <array>

#include "nest/each_target.h"
#include "nest/fixture.h"
#include "nest/slab_reference.h"

namespace mkv {
namespace {

Codebook random_codebook(uint64_t seed) {
  Rng rng(seed);
  Codebook codebook;
  for (auto& column : codebook.entry) {
    for (float& x : column) x = static_cast<float>(rng.normal());
  }
  codebook.update_norms();
  return codebook;
}

TEST(SlabKernels, CodesAndResidualsEqualTheReference) {
  for_each_target([] {
    for (uint64_t seed = 0; seed < 20; ++seed) {
      const Codebook codebook = random_codebook(seed);
      Matrix<float> expected = random_matrix(kSlabColumns, 67, seed + 100);
      Matrix<float> actual = expected.clone();
      std::array<uint8_t, 32> expected_codes{}, codes{};
      reference::encode_slab(codebook, expected.data() + 3, 67, expected_codes.data());
      encode_slab(codebook, actual.data() + 3, 67, codes.data());
      size_t differing = 0;  // fused arithmetic may break a tie of two entries the other way
      for (size_t t = 0; t < 64; ++t) {
        const bool same =
            reference::code_at(codes.data(), t) == reference::code_at(expected_codes.data(), t);
        differing += same ? 0 : 1;
        for (size_t c = 0; same && c < kSlabColumns; ++c) {
          EXPECT_EQ(actual.at(c, t + 3), expected.at(c, t + 3));
        }
      }
      EXPECT_LE(differing, 1u);
    }
  });
}

TEST(SlabKernels, ExpansionEqualsTheReference) {
  for_each_target([] {
    for (uint64_t seed = 0; seed < 20; ++seed) {
      const Codebook codebook = random_codebook(seed);
      Rng rng(seed);
      std::array<uint8_t, 33> codes{};
      for (uint8_t& code : codes) code = static_cast<uint8_t>(rng.below(256));
      Matrix<float> expected = random_matrix(kSlabColumns, 65, seed), actual = expected.clone();
      reference::expand_slab(codebook, codes.data() + 1, expected.data() + 1, 65);
      expand_slab(codebook, codes.data() + 1, actual.data() + 1, 65);
      for (size_t i = 0; i < expected.span().size(); ++i) {
        EXPECT_EQ(actual.span()[i], expected.span()[i]);
      }
    }
  });
}

TEST(SlabKernels, WhatIsTakenOffComesBack) {
  const Codebook codebook = random_codebook(1);
  const Matrix<float> original = random_matrix(kSlabColumns, 64, 2);
  Matrix<float> residual = original.clone();
  std::array<uint8_t, 32> codes{};
  encode_slab(codebook, residual.data(), 64, codes.data());
  expand_slab(codebook, codes.data(), residual.data(), 64);
  for (size_t i = 0; i < original.span().size(); ++i) {
    EXPECT_NEAR(residual.span()[i], original.span()[i], 1e-6f);
  }
}

}  // namespace
}  // namespace mkv
