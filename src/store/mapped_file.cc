#include "store/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

#include "store/message.h"

namespace mkv {
namespace {

Result<std::span<const std::byte>> map_descriptor(const std::filesystem::path& path, int fd) {
  struct stat status {};
  if (fstat(fd, &status) != 0) return os_error(path, "read", errno);
  if (S_ISDIR(status.st_mode)) return os_error(path, "read as a file", EISDIR);
  if (!S_ISREG(status.st_mode)) {
    return make_error(ErrorCode::invalid_argument,
                      concat(path.string(), ": expected a regular file, found a pipe or device"));
  }
  const auto size = static_cast<size_t>(status.st_size);
  if (size == 0) return std::span<const std::byte>();  // mmap refuses an empty range
  void* data = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
  if (data == MAP_FAILED) return os_error(path, "map", errno);
  return std::span<const std::byte>(static_cast<const std::byte*>(data), size);
}

}  // namespace

Result<MappedFile> MappedFile::open(const std::filesystem::path& path) {
  // Without O_NONBLOCK, opening a pipe that nobody writes to would wait for ever.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return os_error(path, "open", errno);
  auto mapped = map_descriptor(path, fd);
  ::close(fd);  // the mapping does not need it
  MKV_ASSIGN(const auto bytes, std::move(mapped));
  MappedFile file;
  file.bytes_ = bytes;
  return file;
}

void drop_pages(std::span<const std::byte> bytes) {
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto start = reinterpret_cast<uintptr_t>(bytes.data());
  const uintptr_t first = (start + page - 1) / page * page;
  const uintptr_t last = (start + bytes.size()) / page * page;
  if (first >= last) return;
  (void)madvise(const_cast<std::byte*>(bytes.data()) + (first - start), last - first,
                MADV_DONTNEED);
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

}  // namespace mkv
