// Arena: pieces of one reused buffer, each aligned to a cache line. Two passes: the first without
// memory counts the bytes, the second hands them out.
#pragma once

#include <cstddef>
#include <new>

#include "base/buffer.h"

namespace mkv {

class Arena {
 public:
  explicit Arena(std::byte* memory) : memory_(memory) {}

  template <class T>
  T* take(size_t count) {
    std::byte* at = memory_ == nullptr ? nullptr : memory_ + bytes_;
    bytes_ += (count * sizeof(T) + Buffer<T>::kAlignment - 1) / Buffer<T>::kAlignment *
              Buffer<T>::kAlignment;
    return reinterpret_cast<T*>(at);
  }
  size_t bytes() const { return bytes_; }

 private:
  std::byte* memory_;
  size_t bytes_ = 0;
};

}  // namespace mkv
