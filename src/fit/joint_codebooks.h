// Codebooks of slabs on the same columns fitted together: fit_codebooks fits each to what those
// before it left over, which is best for none of them but the last (docs/method.md "Nested code").
#pragma once

#include <cstddef>
#include <span>

#include "base/buffer.h"
#include "fit/codebooks.h"
#include "nest/nest.h"

namespace mkv {

struct JointOptions {
  size_t rounds = 40;    // of coding tokens and solving for all entries at once; 0: none
  size_t parts = 4;      // a round codes one of so many parts of the tokens, in turn,
  size_t last_full = 4;  // the last rounds all of them, and the best of these is kept
  // An error of a prefix counts by its own size to the power of minus this: with 0 the shortest
  // prefixes count most, with 1 a tenth less counts the same at all depths.
  double depth_power = 0.7;
  double ridge = 1e-2;  // of an entry's mean weight, towards where it is
};

// Moves the entries of a space's slabs so that its prefixes err less under the encoder's greedy
// codes. latents [dims][padded tokens] and weights as for fit_codebooks. Slabs stay on their
// columns; their order follows their new gains.
SpaceCode refit_codebooks(const Matrix<float>& latents, std::span<const float> weights,
                          std::span<const CodeSlab> slabs, const JointOptions& options);

}  // namespace mkv
