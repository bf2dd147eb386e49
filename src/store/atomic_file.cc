#include "store/atomic_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <utility>

#include "base/check.h"
#include "store/message.h"

namespace mkv {
namespace {

namespace fs = std::filesystem;

// The target without a trailing slash; "", "/", "." and ".." cannot be renamed over.
Result<fs::path> usable_target(const fs::path& path) {
  fs::path target = path.lexically_normal();
  if (target.filename().empty()) target = target.parent_path();
  if (target.filename().empty() || target.filename() == "." || target.filename() == "..") {
    return make_error(ErrorCode::invalid_argument,
                      concat("'", path.string(), "': expected the name of a file or folder"));
  }
  return target;
}

fs::path folder_of(const fs::path& target) {
  return target.has_parent_path() ? target.parent_path() : fs::path(".");
}

// Hidden, beside the target (a rename cannot cross file systems), and of this process.
fs::path temporary_name(const fs::path& target, int attempt) {
  return folder_of(target) / concat(".", target.filename().string(), ".", getpid(), "-", attempt);
}

// Calls make(temporary) with names until one is free. 0, or the errno.
template <class Make>
int make_temporary(const fs::path& target, const Make& make, fs::path& temporary) {
  constexpr int kAttempts = 1000;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    temporary = temporary_name(target, attempt);
    if (make(temporary)) return 0;
    if (errno != EEXIST) return errno;
  }
  return EEXIST;
}

// Makes what is at `path` durable: for a folder, the names in it. 0, or the errno.
int sync_path(const fs::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return errno;
  const int failed = fsync(fd) == 0 ? 0 : errno;
  ::close(fd);
  return failed == EINVAL ? 0 : failed;  // a file system that cannot sync folders
}

Result<void> sync_tree(const fs::path& root) {
  std::error_code failed;
  fs::recursive_directory_iterator entry(root, failed);
  for (; !failed && entry != fs::recursive_directory_iterator(); entry.increment(failed)) {
    if (entry->is_symlink(failed)) continue;
    if (const int os_code = sync_path(entry->path())) {
      return os_error(entry->path(), "write", os_code);
    }
  }
  if (failed) return os_error(root, "list", failed.value());
  if (const int os_code = sync_path(root)) return os_error(root, "write", os_code);
  return {};
}

Result<void> sync_folder_of(const fs::path& target) {
  if (const int os_code = sync_path(folder_of(target))) {
    return os_error(folder_of(target), "write", os_code);
  }
  return {};
}

Result<void> check_replaceable(const fs::path& target, std::string_view marker) {
  std::error_code failed;
  const auto status = fs::symlink_status(target, failed);
  if (status.type() == fs::file_type::not_found) return {};
  if (failed) return os_error(target, "read", failed.value());
  if (status.type() != fs::file_type::directory) {
    return make_error(ErrorCode::invalid_argument,
                      target.string() + ": expected a folder or nothing, found a file");
  }
  const bool empty = fs::is_empty(target, failed);
  if (failed) return os_error(target, "list", failed.value());
  if (empty || fs::exists(target / marker, failed)) return {};
  return make_error(ErrorCode::invalid_argument,
                    concat(target.string(), ": expected an empty folder or one with ", marker,
                           ", found other files, which would be lost"));
}

}  // namespace

Result<AtomicFile> AtomicFile::create(const fs::path& target) {
  AtomicFile file;
  MKV_ASSIGN(file.target_, usable_target(target));
  const auto make = [&](const fs::path& temporary) {
    file.fd_ = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    return file.fd_ >= 0;
  };
  fs::path temporary;  // kept only if it was made: the destructor removes it
  if (const int os_code = make_temporary(file.target_, make, temporary)) {
    return os_error(target, "create", os_code);
  }
  file.temporary_ = std::move(temporary);
  return file;
}

AtomicFile::AtomicFile(AtomicFile&& other) noexcept
    : target_(std::move(other.target_)),
      temporary_(std::exchange(other.temporary_, {})),
      fd_(std::exchange(other.fd_, -1)) {}

AtomicFile::~AtomicFile() { discard(); }

void AtomicFile::discard() {
  if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
  temporary_.clear();
}

Error AtomicFile::fail(std::string_view action, int os_code) {
  discard();
  return os_error(target_, action, os_code);
}

Result<void> AtomicFile::write(std::span<const std::byte> bytes) {
  if (fd_ < 0) return fail("write after an error or a commit", EBADF);
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return fail("write", errno);
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
  return {};
}

Result<void> AtomicFile::commit() {
  if (fd_ < 0) return fail("commit after an error or a commit", EBADF);
  if (fsync(fd_) != 0 && errno != EINVAL) return fail("write", errno);
  if (::close(std::exchange(fd_, -1)) != 0) return fail("write", errno);
  if (::rename(temporary_.c_str(), target_.c_str()) != 0) return fail("replace", errno);
  temporary_.clear();
  return sync_folder_of(target_);
}

Result<void> write_file_atomically(const fs::path& target, std::span<const std::byte> bytes) {
  MKV_ASSIGN(AtomicFile file, AtomicFile::create(target));
  MKV_TRY(file.write(bytes));
  return file.commit();
}

Result<AtomicFolder> AtomicFolder::create(const fs::path& target, std::string_view marker) {
  AtomicFolder folder;
  folder.marker_ = marker;
  MKV_ASSIGN(folder.target_, usable_target(target));
  MKV_TRY(check_replaceable(folder.target_, marker));
  const auto make = [](const fs::path& temporary) { return ::mkdir(temporary.c_str(), 0777) == 0; };
  fs::path temporary;
  if (const int os_code = make_temporary(folder.target_, make, temporary)) {
    return os_error(target, "create", os_code);
  }
  folder.temporary_ = std::move(temporary);
  return folder;
}

AtomicFolder::AtomicFolder(AtomicFolder&& other) noexcept
    : target_(std::move(other.target_)),
      temporary_(std::exchange(other.temporary_, {})),
      marker_(std::move(other.marker_)) {}

AtomicFolder::~AtomicFolder() {
  std::error_code ignored;
  if (!temporary_.empty()) fs::remove_all(temporary_, ignored);
}

Result<void> AtomicFolder::commit() {
  MKV_CHECK(!temporary_.empty());
  MKV_TRY(check_replaceable(target_, marker_));  // again: much time may have passed
  MKV_TRY(sync_tree(temporary_));
  // A folder with files cannot be renamed over: the old one steps aside first.
  fs::path old;
  const auto step_aside = [&](const fs::path& name) {
    std::error_code ignored;
    if (fs::exists(name, ignored)) {
      errno = EEXIST;
      return false;
    }
    return ::rename(target_.c_str(), name.c_str()) == 0;
  };
  const int moved = make_temporary(target_, step_aside, old);
  if (moved != 0 && moved != ENOENT) return os_error(target_, "replace", moved);
  if (::rename(temporary_.c_str(), target_.c_str()) != 0) {
    const int os_code = errno;
    if (moved == 0) ::rename(old.c_str(), target_.c_str());
    return os_error(target_, "replace", os_code);
  }
  temporary_.clear();
  MKV_TRY(sync_folder_of(target_));
  std::error_code ignored;
  if (moved == 0) fs::remove_all(old, ignored);
  return {};
}

}  // namespace mkv
