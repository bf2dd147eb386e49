// Memory asked for ahead.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

namespace mkv {

// The line at p, to be written: a store to a line that another core has waits for it, and what
// follows for the store. Nothing is read, and nothing happens where there is no such memory.
inline void prefetch_to_write(const void* p) {
#if defined(__x86_64__)
  // GCC emits it for no target without "prfchw". Where a processor lacks it, it does nothing.
  asm volatile("prefetchw %0" : : "m"(*static_cast<const char*>(p)));
#else
  __builtin_prefetch(p, 1);
#endif
}

// The lines of some bytes.
inline void prefetch_to_write(const void* p, size_t bytes) {
  for (size_t i = 0; i < bytes; i += 64) prefetch_to_write(static_cast<const char*>(p) + i);
}

// To be read.
inline void prefetch(const void* p, size_t bytes) {
  for (size_t i = 0; i < bytes; i += 64) __builtin_prefetch(static_cast<const char*>(p) + i);
}

// Asks for a share of some bytes at each step of a loop: all at once would fill the queue of
// misses, and codes are read in an order that the processor does not foresee. They go to the first
// cache: asking for them in the second was slower (decision 0031).
class Prefetcher {
 public:
  Prefetcher(std::span<const uint8_t> bytes, size_t steps)
      : at_(reinterpret_cast<const char*>(bytes.data())), due_(at_), end_(at_ + bytes.size()) {
    if (steps > 0) step_ = (bytes.size() + steps - 1) / steps;  // no slabs: no steps
  }

  void step() {
    due_ += std::min(step_, static_cast<size_t>(end_ - due_));
    for (; at_ < due_; at_ += kLine) __builtin_prefetch(at_);
  }

 private:
  static constexpr size_t kLine = 64;
  const char *at_, *due_, *end_;
  size_t step_ = 0;  // bytes
};

}  // namespace mkv
