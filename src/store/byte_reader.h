// ByteReader: walks little-endian bytes of outside origin; each step is checked against what is
// left, and the error names what was being read, where, and the two sizes.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

#include "base/result.h"

namespace mkv {

class ByteReader {
  static_assert(std::endian::native == std::endian::little);

 public:
  explicit ByteReader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  size_t offset() const { return offset_; }
  size_t remaining() const { return bytes_.size() - offset_; }

  Result<std::span<const std::byte>> take(uint64_t size, std::string_view what);
  // A u64 length and that many bytes; the view is into the bytes walked.
  Result<std::string_view> read_string(std::string_view what);
  template <class T>
  Result<T> read(std::string_view what) {
    MKV_ASSIGN(const auto raw, take(sizeof(T), what));
    T value;
    std::memcpy(&value, raw.data(), sizeof(T));
    return value;
  }
  // Refuses a count whose elements, of at least `element_bytes` each, cannot all be in what is
  // left: to be called before anything is allocated for them.
  Result<void> check_count(uint64_t count, size_t element_bytes, std::string_view what) const;

 private:
  std::span<const std::byte> bytes_;
  size_t offset_ = 0;
};

}  // namespace mkv
