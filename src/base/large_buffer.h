// LargeBuffer: memory for megabytes that are read from end to end, in large pages where the system
// has them: an address is then found with fewer look-ups.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <span>

#include "base/check.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace mkv {

class LargeBuffer {
 public:
  LargeBuffer() = default;
  explicit LargeBuffer(size_t size) : size_(size) {
    constexpr size_t kPage = size_t{2} << 20;
    const size_t whole = (size + kPage - 1) / kPage * kPage;
    if (whole == 0) return;
    data_.reset(static_cast<std::byte*>(std::aligned_alloc(kPage, whole)));
    MKV_CHECK(data_ != nullptr);
#if defined(__linux__)
    (void)madvise(data_.get(), whole, MADV_HUGEPAGE);  // refused: small pages do
#endif
  }

  std::span<std::byte> span() { return {data_.get(), size_}; }

 private:
  struct Free {
    void operator()(std::byte* p) const { std::free(p); }
  };
  std::unique_ptr<std::byte, Free> data_;
  size_t size_ = 0;
};

}  // namespace mkv
