// SlabStore: blocks of kBlockTokens coded tokens, [block][slab][slab_bytes]. Within a block the
// slabs are in order of importance, so that cutting a live cache keeps a prefix of every block.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <utility>

#include "base/buffer.h"

namespace mkv {

class SlabStore {
 public:
  SlabStore() = default;
  SlabStore(size_t slabs, size_t slab_bytes) : slabs_(slabs), slab_bytes_(slab_bytes) {}

  SlabStore clone() const {
    SlabStore copy(slabs_, slab_bytes_);
    copy.data_ = data_.clone();
    copy.blocks_ = blocks_;
    return copy;
  }
  size_t slabs() const { return slabs_; }
  size_t blocks() const { return blocks_; }
  size_t block_bytes() const { return slabs_ * slab_bytes_; }
  size_t bytes() const { return blocks_ * block_bytes(); }
  std::byte* block(size_t index) { return data_.data() + index * block_bytes(); }
  const std::byte* block(size_t index) const { return data_.data() + index * block_bytes(); }

  // Adds zeroed blocks until there are `blocks`.
  void grow_to(size_t blocks) {
    if (blocks <= blocks_) return;
    const size_t needed = blocks * block_bytes();
    // A quarter more than needed: appending block by block stays linear in the length.
    if (needed * sizeof(std::byte) > data_.bytes()) data_.reserve(needed + needed / 4);
    data_.resize(needed);
    blocks_ = blocks;
  }
  void drop_front(size_t blocks) {
    blocks = std::min(blocks, blocks_);
    if (blocks == 0) return;
    const size_t kept = (blocks_ - blocks) * block_bytes();
    if (kept != 0) std::memmove(data_.data(), block(blocks), kept);
    blocks_ -= blocks;
    data_.resize_exactly(kept);
  }
  // Both for blocks that are soon dropped again: the store moves to `spare` and back, so that many
  // stores in turn use one memory for what they hold for a moment.
  void grow_to(size_t blocks, Buffer<std::byte>& spare) {
    const size_t needed = blocks * block_bytes();
    if (needed > data_.bytes()) move_to(spare, 0, bytes(), needed);
    grow_to(blocks);
  }
  void drop_front(size_t blocks, Buffer<std::byte>& spare) {
    blocks = std::min(blocks, blocks_);
    const size_t dropped = blocks * block_bytes(), kept = bytes() - dropped;
    if (spare.bytes() >= data_.bytes()) return drop_front(blocks);
    move_to(spare, dropped, kept, kept);
    blocks_ -= blocks;
  }
  // Keeps the leading slabs of every block and gives the rest of the memory back.
  void keep_slabs(size_t slabs) {
    if (slabs >= slabs_) return;
    const size_t old_bytes = block_bytes(), new_bytes = slabs * slab_bytes_;
    for (size_t i = 1; i < blocks_ && new_bytes != 0; ++i) {
      std::memmove(data_.data() + i * new_bytes, data_.data() + i * old_bytes, new_bytes);
    }
    slabs_ = slabs;
    data_.resize_exactly(blocks_ * new_bytes);
  }
  void clear() {
    blocks_ = 0;
    data_.resize_exactly(0);
  }

 private:
  // Exchanges the memory with `spare`, with room for `room` bytes, and takes `size` of them along.
  void move_to(Buffer<std::byte>& spare, size_t first, size_t size, size_t room) {
    spare.resize(0);
    spare.reserve(room);
    spare.resize(size);
    if (size != 0) std::memcpy(spare.data(), data_.data() + first, size);
    std::swap(data_, spare);
  }

  Buffer<std::byte> data_;
  size_t slabs_ = 0, slab_bytes_ = 0, blocks_ = 0;
};

}  // namespace mkv
