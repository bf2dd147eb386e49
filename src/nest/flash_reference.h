// Scalar twin of nest/flash_codes.h, for tests.
#pragma once

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "nest/flash_codes.h"

namespace mkv::flash {

// A query's or a key's step.
inline float code_step(std::span<const float> in, std::span<const uint16_t> order,
                       const CodeRange& range) {
  const size_t top = top_columns(in.size());
  float largest[2] = {}, squares[2] = {};
  for (size_t i = 0; i < in.size(); ++i) {
    const float x = in[order[i]];
    const size_t side = i < top ? 0 : 1;
    largest[side] = std::max(largest[side], std::abs(x));
    squares[side] += x * x;
  }
  return std::max({largest[0] / range.top, largest[1] / range.most,
                   std::sqrt(squares[1]) / range.bytes,
                   std::sqrt(squares[0] + squares[1]) / range.all});
}

// A query or a key as the kernels see it.
inline std::vector<float> rounded_as_code(std::span<const float> in,
                                          std::span<const uint16_t> order, const CodeRange& range) {
  const float step = code_step(in, order, range);
  std::vector<float> out(in.size(), 0.0f);
  for (size_t i = 0; i < in.size() && step > 0.0f; ++i) {
    const float unit = i < top_columns(in.size()) ? step / range.top_unit : step;
    out[order[i]] = unit * std::nearbyint(in[order[i]] / unit);
  }
  return out;
}

}  // namespace mkv::flash
