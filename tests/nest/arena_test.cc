#include "nest/arena.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <vector>

namespace mkv {
namespace {

struct Pieces {
  explicit Pieces(Arena& arena)
      : floats(arena.take<float>(3)),
        bytes(arena.take<uint8_t>(65)),
        each(arena.take_for_each<int16_t>(100)),
        more(arena.take_for_each<double>(1000)) {}
  float* floats;
  uint8_t* bytes;
  PerWorker<int16_t> each;
  PerWorker<double> more;
};

TEST(Arena, PiecesAreApart) {
  constexpr size_t kWorkers = 3;
  Arena sizes(kWorkers);
  Pieces counted(sizes);
  EXPECT_EQ(counted.floats, nullptr);
  std::vector<std::byte> memory(sizes.bytes());
  Arena arena(memory.data(), sizes);
  const Pieces pieces(arena);
  // Whatever is written to one is still there when all the others are written to.
  const auto fill = [](void* at, size_t size, int value) { std::memset(at, value, size); };
  fill(pieces.floats, 3 * sizeof(float), 1);
  fill(pieces.bytes, 65, 2);
  for (size_t w = 0; w < kWorkers; ++w) {
    fill(pieces.each.of(w), 200, static_cast<int>(10 + w));
    fill(pieces.more.of(w), 8000, static_cast<int>(20 + w));
  }
  const auto holds = [&](const void* at, size_t size, int value) {
    const auto* byte = static_cast<const uint8_t*>(at);
    EXPECT_GE(byte, reinterpret_cast<const uint8_t*>(memory.data()));
    EXPECT_LE(byte + size, reinterpret_cast<const uint8_t*>(memory.data() + memory.size()));
    EXPECT_EQ(reinterpret_cast<uintptr_t>(at) % 64, 0u);
    for (size_t i = 0; i < size; ++i) ASSERT_EQ(byte[i], value) << i;
  };
  holds(pieces.floats, 3 * sizeof(float), 1);
  holds(pieces.bytes, 65, 2);
  for (size_t w = 0; w < kWorkers; ++w) {
    holds(pieces.each.of(w), 200, static_cast<int>(10 + w));
    holds(pieces.more.of(w), 8000, static_cast<int>(20 + w));
  }
}

TEST(Arena, WorkersShareNoPage) {
  Arena sizes(2);
  Pieces counted(sizes);
  std::vector<std::byte> memory(sizes.bytes());
  Arena arena(memory.data(), sizes);
  const Pieces pieces(arena);
  const auto page = [](const void* at) { return reinterpret_cast<uintptr_t>(at) / 4096; };
  EXPECT_LT(page(pieces.bytes + 64), page(pieces.each.of(0)));
  EXPECT_LT(page(pieces.more.of(0) + 999), page(pieces.each.of(1)));
}

}  // namespace
}  // namespace mkv
