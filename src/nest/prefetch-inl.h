// Prefetcher: asks for a share of some bytes at each step of a loop: all at once would fill the
// queue of misses, and codes are read in an order that the processor does not foresee.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "hwy/cache_control.h"

namespace mkv {

class Prefetcher {
 public:
  Prefetcher(std::span<const uint8_t> bytes, size_t steps)
      : at_(reinterpret_cast<const char*>(bytes.data())),
        left_((bytes.size() + kLine - 1) / kLine),
        lines_(steps == 0 ? 0 : (left_ + steps - 1) / steps) {}  // no slabs: no steps

  HWY_INLINE void step() {
    const size_t lines = std::min(lines_, left_);
    for (size_t i = 0; i < lines; ++i, at_ += kLine) __builtin_prefetch(at_, 0, 2);
    left_ -= lines;
  }

 private:
  static constexpr size_t kLine = 64;
  const char* at_;
  size_t left_, lines_;
};

}  // namespace mkv
