#include "nest/slab_store.h"

#include <gtest/gtest.h>

#include <array>

namespace mkv {
namespace {

constexpr size_t kStores = 3, kSlabs = 3, kSlabBytes = 32, kKept = 2;

// A store whose blocks are filled with their numbers, `first` being that of the first it holds.
struct Numbered {
  SlabStore store{kSlabs, kSlabBytes};
  size_t first = 0;

  void expect_numbers(size_t blocks) const {
    ASSERT_EQ(store.blocks(), blocks);
    for (size_t i = 0; i < blocks * store.block_bytes(); ++i) {
      ASSERT_EQ(static_cast<size_t>(store.block(0)[i]), first + i / store.block_bytes()) << i;
    }
  }
  void grow_and_drop(size_t blocks, Buffer<std::byte>& spare) {
    const size_t before = store.blocks(), end = before + blocks;
    store.grow_to(end, spare);
    for (size_t b = before; b < end; ++b) {
      std::byte* block = store.block(b);
      for (size_t i = 0; i < store.block_bytes(); ++i) ASSERT_EQ(block[i], std::byte{0});
      std::fill_n(block, store.block_bytes(), static_cast<std::byte>(first + b));
    }
    expect_numbers(end);
    store.drop_front(end - kKept, spare);
    first += end - kKept;
    expect_numbers(kKept);
  }
};

TEST(SlabStore, StoresInTurnShareWhatTheyHoldForAMoment) {
  std::array<Numbered, kStores> stores;
  Buffer<std::byte> spare;
  for (const size_t blocks : {size_t{9}, size_t{7}, size_t{2}, size_t{20}, size_t{18}}) {
    const std::byte* shared = nullptr;
    for (Numbered& numbered : stores) {
      ASSERT_NO_FATAL_FAILURE(numbered.grow_and_drop(blocks, spare));
      EXPECT_GE(spare.bytes(), blocks * kSlabs * kSlabBytes);
      EXPECT_TRUE(shared == nullptr || spare.data() == shared);
      shared = spare.data();
    }
  }
}

// Of a store that needs no other memory, what is dropped is dropped in place.
TEST(SlabStore, LeavesALargerSpareAlone) {
  Numbered numbered;
  Buffer<std::byte> spare(64 * kSlabs * kSlabBytes);
  const std::byte* large = spare.data();
  numbered.store.grow_to(4);
  for (size_t b = 0; b < 4; ++b) {
    std::fill_n(numbered.store.block(b), numbered.store.block_bytes(), static_cast<std::byte>(b));
  }
  numbered.store.drop_front(1, spare);
  numbered.first = 1;
  numbered.expect_numbers(3);
  EXPECT_EQ(spare.data(), large);
}

}  // namespace
}  // namespace mkv
