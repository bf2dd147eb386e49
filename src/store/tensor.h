// A tensor inside a mapped file: where its bytes are and what they mean.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "base/dtype.h"

namespace mkv {

struct TensorView {
  std::string name;
  DType type = DType::f32;
  std::vector<size_t> shape;  // outermost first (PyTorch order); the last dimension is contiguous
  const std::byte* data = nullptr;  // owned by the file it came from; aligned for its element
  size_t size_bytes = 0;
};

}  // namespace mkv
