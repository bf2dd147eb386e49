// Codebooks fitted together: what they gain, and what stays true of them.
#include "fit/joint_codebooks.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/rng.h"
#include "nest/slab_kernels.h"

namespace mkv {
namespace {

Matrix<float> normal_latents(size_t columns, size_t tokens, double decay) {
  Rng rng(5);
  Matrix<float> latents(columns, tokens);
  for (size_t c = 0; c < columns; ++c) {
    for (float& x : latents.row(c)) {
      x = static_cast<float>(rng.normal() * std::pow(decay, static_cast<double>(c)));
    }
  }
  return latents;
}

SpaceCode fit_alone(const Matrix<float>& latents, std::span<const float> weights, size_t slabs) {
  CodebookOptions options;
  options.max_slabs = slabs;
  Matrix<float> residual = latents.clone();
  return fit_codebooks(residual, weights, options);
}

// Mean squared error of tokens when all slabs code them greedily.
double error_of(const Matrix<float>& latents, std::span<const CodeSlab> slabs) {
  Matrix<float> left = latents.clone();
  uint8_t codes[32];
  for (const CodeSlab& slab : slabs) {
    for (size_t b = 0; b < left.cols(); b += 64) {
      encode_slab(slab.codebook, left.row(slab.first_column).data() + b, left.cols(), codes);
    }
  }
  double sum = 0.0;
  for (const float x : left.span()) sum += static_cast<double>(x) * x;
  return sum / static_cast<double>(left.cols());
}

TEST(JointCodebooks, EveryPrefixErrsLessThanWithStagesFittedAlone) {
  const Matrix<float> latents = normal_latents(4, 4096, 0.8);
  const std::vector<float> weights(latents.cols(), 1.0f);
  const SpaceCode alone = fit_alone(latents, weights, 6);
  const SpaceCode joint = refit_codebooks(latents, weights, alone.slabs, {});
  ASSERT_EQ(joint.slabs.size(), 6u);
  double logarithms = 0.0;
  for (size_t n = 1; n <= 6; ++n) {
    logarithms += std::log(error_of(latents, std::span(joint.slabs).first(n)) /
                           error_of(latents, std::span(alone.slabs).first(n)));
  }
  EXPECT_LT(logarithms / 6.0, std::log(0.97));
  EXPECT_LT(error_of(latents, joint.slabs), 0.93 * error_of(latents, alone.slabs));
}

TEST(JointCodebooks, GainsAreWhatEachPrefixTakesOffTheError) {
  const Matrix<float> latents = normal_latents(16, 1280, 0.8);
  const std::vector<float> weights(latents.cols(), 1.0f);
  const SpaceCode alone = fit_alone(latents, weights, 12);
  const SpaceCode joint = refit_codebooks(latents, weights, alone.slabs, {.rounds = 4});
  EXPECT_NEAR(joint.energy, alone.energy, 1e-6 * alone.energy);
  ASSERT_EQ(joint.gains.size(), 12u);
  double left = joint.energy;
  for (size_t n = 0; n < 12; ++n) {
    left -= joint.gains[n];
    EXPECT_NEAR(left, error_of(latents, std::span(joint.slabs).first(n + 1)), 1e-5 * joint.energy);
    for (const float scale : joint.slabs[n].scale) {
      EXPECT_GE(scale, 0.9f);
      EXPECT_LE(scale, 4.0f);
    }
  }
}

// Sums of entries of two planted codebooks, from a start beside them.
TEST(JointCodebooks, FindsTheEntriesThatMadeTheTokens) {
  Rng rng(3);
  std::vector<CodeSlab> planted(2);
  for (size_t s = 0; s < 2; ++s) {
    for (size_t e = 0; e < kCodebookEntries; ++e) {
      for (size_t c = 0; c < kSlabColumns; ++c) {  // corners of a cube, so that none is ambiguous
        planted[s].codebook.entry[c][e] = (e >> c & 1u ? 1.0f : -1.0f) * (s == 0 ? 8.0f : 1.0f);
      }
    }
  }
  Matrix<float> latents(kSlabColumns, 2048);
  for (size_t t = 0; t < latents.cols(); ++t) {
    const size_t first = rng.below(16), second = rng.below(16);
    for (size_t c = 0; c < kSlabColumns; ++c) {
      latents.at(c, t) = planted[0].codebook.entry[c][first] + planted[1].codebook.entry[c][second];
    }
  }
  std::vector<CodeSlab> start = planted;
  for (CodeSlab& slab : start) {
    for (auto& column : slab.codebook.entry) {
      for (float& x : column) x += 0.1f * static_cast<float>(rng.normal());
    }
  }
  const std::vector<float> weights(latents.cols(), 1.0f);
  EXPECT_GT(error_of(latents, start), 1e-2);
  const SpaceCode joint = refit_codebooks(latents, weights, start, {.rounds = 20});
  EXPECT_LT(error_of(latents, joint.slabs), 1e-4);
}

TEST(JointCodebooks, PaddingIsNotSeenAndNoRoundsChangeNoEntry) {
  Matrix<float> latents = normal_latents(8, 640, 0.7);
  std::vector<float> weights(latents.cols(), 1.0f);
  std::fill_n(weights.end() - 40, 40, 0.0f);
  const SpaceCode alone = fit_alone(latents, weights, 6);
  const SpaceCode joint = refit_codebooks(latents, weights, alone.slabs, {});
  for (size_t c = 0; c < latents.rows(); ++c) std::fill_n(latents.row(c).end() - 40, 40, 100.0f);
  const SpaceCode again = refit_codebooks(latents, weights, alone.slabs, {});
  const SpaceCode same = refit_codebooks(latents, weights, alone.slabs, {.rounds = 0});
  ASSERT_EQ(joint.slabs.size(), again.slabs.size());
  bool moved = false;
  for (size_t s = 0; s < joint.slabs.size(); ++s) {
    EXPECT_EQ(std::memcmp(&joint.slabs[s], &again.slabs[s], sizeof(CodeSlab)), 0) << s;
    EXPECT_TRUE(std::ranges::any_of(alone.slabs, [&](const CodeSlab& slab) {
      return std::memcmp(&slab.codebook, &same.slabs[s].codebook, sizeof(Codebook)) == 0;
    }));
    moved |= std::ranges::none_of(alone.slabs, [&](const CodeSlab& slab) {
      return std::memcmp(&slab.codebook, &joint.slabs[s].codebook, sizeof(Codebook)) == 0;
    });
  }
  EXPECT_TRUE(moved);
}

}  // namespace
}  // namespace mkv
