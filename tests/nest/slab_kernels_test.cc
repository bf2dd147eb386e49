#include "nest/slab_kernels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <utility>

#include "nest/fixture.h"
#include "nest/random_bytes.h"
#include "nest/slab_reference.h"
#include "ops/each_instruction_set.h"

namespace mkv {
namespace {

Codebook random_codebook(uint64_t seed) {
  Rng rng(seed);
  Codebook codebook;
  for (auto& column : codebook.entry) {
    for (float& x : column) x = static_cast<float>(rng.normal());
  }
  return codebook;
}

TEST(SlabKernels, CodesAndResidualsEqualTheReference) {
  for_each_instruction_set([] {
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
  for_each_instruction_set([] {
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

// Slabs over `columns` latent columns, the first of them many times, the last once or never.
std::vector<CodeSlab> random_slabs(size_t count, size_t columns, uint64_t seed) {
  std::vector<CodeSlab> slabs(count);
  std::vector<float> size(columns, 1.0f);  // shrinks from slab to slab, as residuals do
  Rng rng(seed);
  for (size_t s = 0; s < count; ++s) {
    const size_t groups = columns / kSlabColumns;
    slabs[s].first_column =
        static_cast<uint16_t>(kSlabColumns * std::min(rng.below(groups), rng.below(groups)));
    slabs[s].codebook = random_codebook(seed + s);
    for (auto& column : slabs[s].codebook.entry) {
      for (float& x : column) x *= size[slabs[s].first_column];
    }
    size[slabs[s].first_column] *= 0.6f;
  }
  return slabs;
}

// Mean and variance of each column over tokens whose codes are random.
TEST(SlabKernels, MomentsAreThoseOfRandomCodes) {
  constexpr size_t kColumns = 16, kDraws = 40'000;
  const std::vector<CodeSlab> slabs = random_slabs(9, kColumns, 3);
  const ColumnMoments moments = moments_of(slabs, kColumns);
  std::vector<double> sum(kColumns), squares(kColumns);
  Rng rng(5);
  for (size_t draw = 0; draw < kDraws; ++draw) {
    std::vector<double> token(kColumns);
    for (const CodeSlab& slab : slabs) {
      const size_t code = rng.below(kCodebookEntries);
      for (size_t c = 0; c < kSlabColumns; ++c) {
        token[slab.first_column + c] += double(slab.codebook.entry[c][code]);
      }
    }
    for (size_t c = 0; c < kColumns; ++c) {
      sum[c] += token[c] / kDraws;
      squares[c] += token[c] * token[c] / kDraws;
    }
  }
  for (size_t c = 0; c < kColumns; ++c) {
    const double variance = squares[c] - sum[c] * sum[c];
    EXPECT_NEAR(moments.mean[c], sum[c], 4.0 * std::sqrt(variance / kDraws) + 1e-6);
    EXPECT_NEAR(moments.variance[c], variance, 0.05 * variance + 1e-6);
  }
  EXPECT_GT(moments.variance[0], 0.0f);
}

TEST(SlabKernels, TablesEqualTheReference) {
  for_each_instruction_set([] {
    const std::vector<CodeSlab> slabs = random_slabs(13, 32, 4);
    const Matrix<float> query = random_matrix(1, 32, 5);
    Matrix<float> expected(13, kCodebookEntries), actual(13, kCodebookEntries);
    reference::tabulate_slabs(slabs, query.data(), expected.data());
    tabulate_slabs(slabs, query.data(), actual.data());
    for (size_t i = 0; i < expected.span().size(); ++i) {
      EXPECT_NEAR(actual.span()[i], expected.span()[i], 1e-5);
    }
  });
}

// Scores of a softmax, the largest 0: a few large weights, and the flatter the more.
std::vector<float> softmax_scores(size_t size, double flatness, uint64_t seed) {
  Rng rng(seed);
  std::vector<float> scores(size);
  for (float& x : scores) x = static_cast<float>(std::log(rng.uniform()) / flatness);
  const float largest = *std::ranges::max_element(scores);
  for (float& x : scores) x -= largest;
  return scores;
}

TEST(SlabKernels, WeightsAreRoundedToTheLargest) {
  for_each_instruction_set([] {
    const float most = has_vnni() || has_avx2_vnni() ? 255.0f : 127.0f;
    for (const size_t size : {64u, 128u, 256u}) {
      for (const double flatness : {0.002, 1.0, 1e6}) {
        std::vector<float> scores = softmax_scores(size, flatness, size);
        const float top = 5.0f;  // any
        for (float& x : scores) x += top;
        std::vector<uint8_t> weights(size);
        const auto [unit, sum] = soften_to_bytes(scores, top, weights.data());
        EXPECT_GE(unit, 1.0f / 255.1f);
        // 16 tokens of the largest weight may have to fit a word; few do where the rest is small.
        EXPECT_LE(unit, (flatness < 0.1 ? 1.0f / 127.0f : 16.0f / 250.0f) * 1.01f);
        double expected = 0.0;
        for (size_t t = 0; t < size; ++t) {
          const double weight = std::exp(double(scores[t]) - double(top));
          expected += weight;
          EXPECT_NEAR(static_cast<float>(weights[t]) * unit, weight, 0.501f * unit);
        }
        EXPECT_NEAR(sum, expected, 1e-6 * expected);
      }
      std::vector<uint8_t> weights(size, 1);
      std::vector<float> single(size, -HUGE_VALF);  // what is not seen
      single[size / 2] = 3.0f;                      // nothing else limits the unit
      const auto [unit, sum] = soften_to_bytes(single, 3.0f, weights.data());
      EXPECT_FLOAT_EQ(unit, 1.0f / most);
      EXPECT_EQ(sum, 1.0f);
      EXPECT_EQ(weights[size / 2], most);
      EXPECT_EQ(std::ranges::count(weights, 0), ptrdiff_t(size) - 1);
    }
  });
}

TEST(SlabKernels, WeighedSumsEqualTheReference) {
  for_each_instruction_set([] {
    for (const size_t heads : {1u, 3u, 9u, 16u}) {
      for (const size_t blocks : {1u, 3u, 4u}) {
        const size_t count = 37, columns = 48, stride = count * 32 + 3;
        const auto slabs = random_slabs(count, columns, heads);
        const Matrix<float> scale = random_matrix(1, columns, 6),
                            factor = random_matrix(1, heads, 7);
        CodePlanes planes = make_code_planes(slabs, scale.row(0));
        const auto codes = random_bytes(blocks * stride + 3, 2);
        std::vector<uint8_t> weights(heads * kWeighBlocks * 64);
        for (size_t h = 0; h < heads; ++h) {  // from flat ones to a single one
          const double flatness = std::pow(10.0, 6.0 - double(h));
          soften_to_bytes(softmax_scores(blocks * 64, flatness, h), 0.0f,
                          weights.data() + h * kWeighBlocks * 64);
        }
        const CodeBlocks view{codes.data() + 3, stride, blocks};
        Matrix<float> expected = random_matrix(heads, columns, 8), actual = expected.clone();
        reference::weigh_slabs(planes, view, weights.data(), factor.row(0), expected.view());
        weigh_slabs(planes, view, weights.data(), factor.row(0), actual.view());
        // Planes of one column nearly cancel each other, the more so the larger the weights are.
        Matrix<float> magnitude(heads, columns);
        for (const CodePlanes::Plane& plane : std::exchange(planes.planes, {})) {
          planes.planes = {plane};
          Matrix<float> part(heads, columns);
          reference::weigh_slabs(planes, view, weights.data(), factor.row(0), part.view());
          for (size_t i = 0; i < part.span().size(); ++i) {
            magnitude.span()[i] += std::abs(part.span()[i]);
          }
        }
        for (size_t i = 0; i < expected.span().size(); ++i) {
          EXPECT_NEAR(actual.span()[i], expected.span()[i], 1e-6f * magnitude.span()[i] + 1e-6f);
        }
      }
    }
  });
}

TEST(SlabKernels, PlanesHoldTheColumns) {
  const size_t columns = 16;
  for (const size_t count : {2u, 8u, 40u, 300u}) {
    const auto slabs = random_slabs(count, columns, count);
    const std::vector<float> scale(columns, 1.5f);
    const CodePlanes planes = make_code_planes(slabs, scale);
    const auto codes = random_bytes(count * 32, 2);
    Matrix<float> expected(columns, 64), actual(columns, 64);
    for (size_t s = 0; s < count; ++s) {
      reference::expand_slab(slabs[s].codebook, codes.data() + s * 32,
                             expected.row(slabs[s].first_column).data(), 64);
    }
    // Each slab of the last plane of some slabs is within half a unit.
    std::map<std::pair<size_t, size_t>, float> bounds;  // by column and first slab
    for (const CodePlanes::Plane& plane : planes.planes) {
      for (size_t c = 0; c < kSlabColumns; ++c) {
        bounds[{plane.first_column + c, planes.slabs[plane.begin]}] =
            0.5f * static_cast<float>(plane.end - plane.begin) * plane.scale[c];
      }
    }
    for (const CodePlanes::Plane& plane : planes.planes) {
      for (size_t c = 0; c < kSlabColumns; ++c) {
        for (size_t t = 0; t < 64; ++t) {
          int sum = 0;
          for (size_t s = plane.begin; s < plane.end; ++s) {
            sum += planes.entries[(s * kSlabColumns + c) * kCodebookEntries +
                                  reference::code_at(codes.data() + planes.slabs[s] * 32, t)];
          }
          EXPECT_LE(std::abs(sum), 127);
          actual.at(plane.first_column + c, t) += plane.scale[c] * static_cast<float>(sum);
        }
      }
    }
    for (size_t c = 0; c < columns; ++c) {
      float bound = 1e-4f;
      for (const auto& [key, value] : bounds) bound += key.first == c ? value : 0.0f;
      for (size_t t = 0; t < 64; ++t) {
        EXPECT_NEAR(actual.at(c, t), 1.5f * expected.at(c, t), bound);
      }
    }
  }
}

}  // namespace
}  // namespace mkv
