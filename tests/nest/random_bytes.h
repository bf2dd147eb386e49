// Random codes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/rng.h"

namespace mkv {

inline std::vector<uint8_t> random_bytes(size_t count, uint64_t seed) {
  std::vector<uint8_t> bytes(count);
  Rng rng(seed);
  for (uint8_t& x : bytes) x = static_cast<uint8_t>(rng.below(256));
  return bytes;
}

}  // namespace mkv
