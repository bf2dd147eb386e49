// The position mean's part of scores, with few products. A query's score of the mean key at
// position t is a sum of sinusoids in t (docs/method.md "Position mean"), over a block of 64 tokens
// a combination of 2 * pairs functions. Those of slow pairs hardly bend within a block: they lie
// in a space of few dimensions, whose basis takes their place.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "base/buffer.h"
#include "ops/rotary.h"

namespace mkv {

class MeanFunctions {
 public:
  MeanFunctions() = default;
  explicit MeanFunctions(const Rotary& rotary);

  // Functions of the position within a block, [count()][64].
  View<const float> values() const { return values_.view(); }
  size_t count() const { return values_.rows(); }
  // Coefficients [count()] of sum_i a[i] cos(t w_i) + b[i] sin(t w_i); a, b [pairs].
  void combine(std::span<const float> a, std::span<const float> b, std::span<float> out) const;

 private:
  std::vector<size_t> fast_;  // pairs whose cosine and sine are kept as they are
  Matrix<float> values_;      // cosines of fast pairs, their sines, the basis for the others
  Matrix<float> mix_cos_, mix_sin_;  // [pair][basis function], zero for fast pairs
};

}  // namespace mkv
