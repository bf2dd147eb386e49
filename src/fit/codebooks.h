// Codebooks of a space's nested code, fitted greedily (docs/method.md "Nested code").
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/buffer.h"
#include "nest/nest.h"

namespace mkv {

struct CodebookOptions {
  size_t max_slabs = 0;        // of the space
  size_t max_per_column = 16;  // slabs on the same columns, i.e. bits a column
  size_t iterations = 10;      // of k-means
  uint64_t seed = 1;
};

struct SpaceCode {
  std::vector<CodeSlab> slabs;
  std::vector<double> gains;  // by slab: fall of the mean squared error of a token's latents
  double energy = 0;          // mean squared length of a token's latents: the error without slabs
};

// latents [dims][padded tokens] are consumed: what is left is the residual. `weights` [padded
// tokens] weigh the tokens' errors (0 for padding).
SpaceCode fit_codebooks(Matrix<float>& latents, std::span<const float> weights,
                        const CodebookOptions& options);

// The scale of a column whose tokens and their decoding so vary: var / cov, which for least-error
// entries is var / (var - error); at most 4.
float unbiased_scale(double variance, double covariance);

}  // namespace mkv
