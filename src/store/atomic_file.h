// Writing that is whole or not at all, through a power cut too: what is written goes to a temporary
// beside the target; commit() makes it durable and renames it over the target. Without a commit
// the destructor removes the temporary, and a target that was there stays as it was.
// Each object belongs to one thread.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"

namespace mkv {

class AtomicFile {
 public:
  // The folder of `target` must exist.
  static Result<AtomicFile> create(const std::filesystem::path& target);
  AtomicFile(AtomicFile&& other) noexcept;
  AtomicFile& operator=(AtomicFile&& other) = delete;
  ~AtomicFile();

  // After an error the temporary is gone, and further calls fail.
  Result<void> write(std::span<const std::byte> bytes);
  Result<void> commit();

 private:
  AtomicFile() = default;
  Error fail(std::string_view action, int os_code);
  void discard();

  std::filesystem::path target_, temporary_;  // temporary_ is empty once committed or removed
  int fd_ = -1;
};

Result<void> write_file_atomically(const std::filesystem::path& target,
                                   std::span<const std::byte> bytes);

// The same for a folder: create files in path(), then commit().
class AtomicFolder {
 public:
  // A folder that is already at `target` is replaced with all that is in it, so it must be empty
  // or hold a file `marker` (e.g. "nest.safetensors"): another folder, named by mistake, is refused
  // here, before any work.
  static Result<AtomicFolder> create(const std::filesystem::path& target, std::string_view marker);
  AtomicFolder(AtomicFolder&& other) noexcept;
  AtomicFolder& operator=(AtomicFolder&& other) = delete;
  ~AtomicFolder();

  const std::filesystem::path& path() const { return temporary_; }
  Result<void> commit();

 private:
  AtomicFolder() = default;

  std::filesystem::path target_, temporary_;  // temporary_ is empty once committed
  std::string marker_;
};

}  // namespace mkv
