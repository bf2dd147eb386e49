// How far the twin's logits are from the engine's.
#pragma once

#include <torch/torch.h>

#include <algorithm>
#include <cmath>

#include "base/buffer.h"

namespace mkv::training {

struct Difference {
  double largest = 0, root_mean_square = 0;  // as fractions of the logits' root mean square
};

inline Difference difference(const Matrix<float>& engine, const torch::Tensor& twin) {
  const torch::Tensor rows = twin.contiguous();
  double largest = 0, sum = 0, square = 0;
  for (size_t i = 0; i < engine.span().size(); ++i) {
    const double x = engine.span()[i], d = x - rows.data_ptr<float>()[i];
    largest = std::max(largest, std::abs(d));
    sum += d * d;
    square += x * x;
  }
  const auto count = static_cast<double>(engine.span().size());
  return {largest / std::sqrt(square / count), std::sqrt(sum / square)};
}

}  // namespace mkv::training
