// MappedFile: a file's bytes, read-only, without copying them. Immutable, safe from many threads.
//
// The file must not be shortened while it is mapped (the system would then stop the program); our
// own writers never do that: they replace files by renaming.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <utility>

#include "base/result.h"

namespace mkv {

class MappedFile {
 public:
  MappedFile() = default;  // no bytes
  MappedFile(MappedFile&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}
  MappedFile& operator=(MappedFile&& other) noexcept {
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  // Regular files only (or links to them): a pipe or a device has no size to check against.
  static Result<MappedFile> open(const std::filesystem::path& path);

  // The address stays the same when the MappedFile moves.
  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  std::span<const std::byte> bytes_;
};

// Lets the system take back the pages that lie wholly in `bytes`, a part of a mapped file: they are
// read again if they are needed again.
void drop_pages(std::span<const std::byte> bytes);

}  // namespace mkv
