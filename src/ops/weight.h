// Weight: a matrix [rows x cols] of a model, in the type that its file has, used as it is.
#pragma once

#include <cstddef>

#include "base/dtype.h"

namespace mkv {

struct Weight {
  const std::byte* data = nullptr;  // mapped file or owned elsewhere; outlives the Weight
  DType type = DType::f32;
  size_t rows = 0, cols = 0;  // y[rows] = W x[cols]

  const std::byte* row(size_t r) const { return data + r * row_bytes(type, cols); }
  size_t bytes() const { return rows * row_bytes(type, cols); }
  explicit operator bool() const { return data != nullptr; }
};

}  // namespace mkv
