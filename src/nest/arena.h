// Arena: pieces of one reused buffer, each aligned to a cache line. Two passes: the first without
// memory counts the bytes, the second hands them out.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/buffer.h"

namespace mkv {

// A piece for each worker.
template <class T>
class PerWorker {
 public:
  PerWorker() = default;
  PerWorker(std::byte* memory, size_t stride) : memory_(memory), stride_(stride) {}

  T* of(size_t worker) const { return reinterpret_cast<T*>(memory_ + worker * stride_); }

 private:
  std::byte* memory_ = nullptr;
  size_t stride_ = 0;  // bytes
};

// A worker's pieces lie in pages of its own: prefetchers go beyond what a worker reads, but not
// beyond a page, and a line that they bring has to be fetched back by the worker that writes it.
// From another group of cores that takes as long as the work between two such lines.
class Arena {
 public:
  explicit Arena(size_t workers) : workers_(workers) {}
  // Hands out memory that has the bytes of one that counted.
  Arena(std::byte* memory, const Arena& counted)
      : shared_(memory + (kPage - reinterpret_cast<uintptr_t>(memory) % kPage) % kPage),
        each_(shared_ + pages_of(counted.shared_bytes_)),
        stride_(pages_of(counted.each_bytes_)) {}

  template <class T>
  T* take(size_t count) {
    return reinterpret_cast<T*>(take_lines(shared_, shared_bytes_, count * sizeof(T)));
  }
  // `count` for each worker.
  template <class T>
  PerWorker<T> take_for_each(size_t count) {
    return {take_lines(each_, each_bytes_, count * sizeof(T)), stride_};
  }
  size_t bytes() const {
    return kPage + pages_of(shared_bytes_) + workers_ * pages_of(each_bytes_);
  }

 private:
  static constexpr size_t kLine = Buffer<std::byte>::kAlignment, kPage = 4096;
  static size_t round_up(size_t bytes, size_t to) { return (bytes + to - 1) / to * to; }
  static size_t pages_of(size_t bytes) { return round_up(bytes, kPage); }
  static std::byte* take_lines(std::byte* memory, size_t& taken, size_t bytes) {
    std::byte* at = memory == nullptr ? nullptr : memory + taken;
    taken += round_up(bytes, kLine);
    return at;
  }

  std::byte *shared_ = nullptr, *each_ = nullptr;
  size_t stride_ = 0;  // from one worker's pieces to the next one's
  size_t workers_ = 0, shared_bytes_ = 0, each_bytes_ = 0;
};

}  // namespace mkv
