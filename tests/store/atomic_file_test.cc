#include "store/atomic_file.h"

#include <gmock/gmock.h>
#include <signal.h>
#include <sys/resource.h>

#include <string>

#include "store/gguf_builder.h"
#include "store/temp_dir.h"

namespace mkv {
namespace {

namespace fs = std::filesystem;
using testing::bytes_of;
using ::testing::HasSubstr;
using Atomic = testing::TempDir;

// Makes every file longer than `bytes` fail as a full disk does, while it lives.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    getrlimit(RLIMIT_FSIZE, &old_);
    const rlimit limit{bytes, old_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
    signal(SIGXFSZ, SIG_IGN);
  }
  ~FileSizeLimit() {
    setrlimit(RLIMIT_FSIZE, &old_);
    signal(SIGXFSZ, SIG_DFL);
  }

 private:
  rlimit old_{};
};

TEST_F(Atomic, FileAppearsOnCommit) {
  const auto path = write("a", "old");
  auto file = AtomicFile::create(path);
  ASSERT_TRUE(file) << file.error().message;
  ASSERT_TRUE(file->write(bytes_of("new ")));
  ASSERT_TRUE(file->write(bytes_of("text")));
  EXPECT_EQ(read(path), "old");
  EXPECT_EQ(entries(), 2u);
  ASSERT_TRUE(file->commit());
  EXPECT_EQ(read(path), "new text");
  EXPECT_EQ(entries(), 1u);
  EXPECT_FALSE(file->write(bytes_of("more")));
  EXPECT_FALSE(file->commit());
  EXPECT_EQ(read(path), "new text");
}

TEST_F(Atomic, FileWithoutCommitLeavesNothing) {
  const auto path = write("a", "old");
  {
    auto file = AtomicFile::create(path);
    ASSERT_TRUE(file);
    ASSERT_TRUE(file->write(bytes_of("new")));
    const AtomicFile moved = *std::move(file);
  }
  EXPECT_EQ(read(path), "old");
  EXPECT_EQ(entries(), 1u);
}

TEST_F(Atomic, TwoWritersOfOneFile) {
  auto a = AtomicFile::create(dir_ / "x"), b = AtomicFile::create(dir_ / "x");
  ASSERT_TRUE(a && b);
  ASSERT_TRUE(a->write(bytes_of("a")));
  ASSERT_TRUE(b->write(bytes_of("b")));
  ASSERT_TRUE(b->commit());
  ASSERT_TRUE(a->commit());
  EXPECT_EQ(read(dir_ / "x"), "a");
  EXPECT_EQ(entries(), 1u);
}

TEST_F(Atomic, FullDiskIsAnErrorAndLeavesTheOldFile) {
  const auto path = write("a", "old");
  const std::string large(100'000, 'x');
  const FileSizeLimit limit(65536);
  const auto written = write_file_atomically(path, bytes_of(large));
  ASSERT_FALSE(written);
  EXPECT_EQ(written.error().code, ErrorCode::io);
  EXPECT_EQ(written.error().message, path.string() + ": cannot write: File too large");
  EXPECT_EQ(read(path), "old");
  EXPECT_EQ(entries(), 1u);
  auto file = AtomicFile::create(path);
  ASSERT_TRUE(file);
  EXPECT_FALSE(file->write(bytes_of(large)));
  EXPECT_FALSE(file->write(bytes_of("small")));  // must not make a file with a hole in it
  EXPECT_FALSE(file->commit());
  EXPECT_EQ(read(path), "old");
  EXPECT_EQ(entries(), 1u);
}

TEST_F(Atomic, FileErrorsNameThePath) {
  const auto absent = write_file_atomically(dir_ / "no" / "a", {});
  ASSERT_FALSE(absent);
  EXPECT_THAT(absent.error().message, HasSubstr("no/a: cannot create: No such file"));
  fs::create_directory(dir_ / "d");
  write("d/x", "");
  EXPECT_THAT(write_file_atomically(dir_ / "d", {}).error().message, HasSubstr("cannot replace"));
  for (const char* path : {"", ".", "..", "/", "a/.."}) {
    EXPECT_EQ(write_file_atomically(path, {}).error().code, ErrorCode::invalid_argument) << path;
  }
  EXPECT_EQ(entries(), 1u);
}

TEST_F(Atomic, FolderReplacesTheOldOne) {
  for (const std::string text : {"one", "two"}) {
    auto folder = AtomicFolder::create((dir_ / "nest").string() + "/", "a");
    ASSERT_TRUE(folder) << folder.error().message;
    ASSERT_TRUE(write_file_atomically(folder->path() / "a", bytes_of(text)));
    fs::create_directory(folder->path() / "sub");
    ASSERT_TRUE(write_file_atomically(folder->path() / "sub" / text, bytes_of(text)));
    const auto committed = folder->commit();
    ASSERT_TRUE(committed) << committed.error().message;
    EXPECT_EQ(read(dir_ / "nest" / "a"), text);
  }
  EXPECT_TRUE(fs::exists(dir_ / "nest" / "sub" / "two"));
  EXPECT_FALSE(fs::exists(dir_ / "nest" / "sub" / "one"));
  EXPECT_EQ(entries(), 1u);
  {
    auto folder = AtomicFolder::create(dir_ / "nest", "a");
    ASSERT_TRUE(folder);
    const AtomicFolder moved = *std::move(folder);
    ASSERT_TRUE(write_file_atomically(moved.path() / "a", bytes_of("three")));
  }
  EXPECT_EQ(read(dir_ / "nest" / "a"), "two");
  EXPECT_EQ(entries(), 1u);
}

TEST_F(Atomic, FolderSparesOtherFiles) {
  fs::create_directory(dir_ / "home");
  write("home/photo", "x");
  EXPECT_THAT(AtomicFolder::create(dir_ / "home", "nest.safetensors").error().message,
              HasSubstr("home: expected an empty folder or one with nest.safetensors"));
  EXPECT_FALSE(AtomicFolder::create(dir_ / "home" / "photo", "nest.safetensors"));
  EXPECT_FALSE(AtomicFolder::create(".", "nest.safetensors"));
  EXPECT_FALSE(AtomicFolder::create(dir_ / "no" / "x", "nest.safetensors"));
  auto folder = AtomicFolder::create(dir_ / "new", "nest.safetensors");
  ASSERT_TRUE(folder);
  write("new", "came meanwhile");
  EXPECT_FALSE(folder->commit());
  EXPECT_EQ(read(dir_ / "new"), "came meanwhile");
}

}  // namespace
}  // namespace mkv
