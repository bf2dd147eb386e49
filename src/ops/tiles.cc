#include "ops/tiles.h"

#include <algorithm>
#include <cstring>

namespace mkv {
namespace {

constexpr size_t kGroup = 32, kQuad = 4, kQuads = kGroup / kQuad, kHalf = 2;

// A row's part of a group: what its block in the file has before the codes, and where these go.
struct Shape {
  size_t halves = 1;  // before the codes of a block: d [, m]
  bool nibbles = true;

  explicit Shape(DType type) : halves(type == DType::q4_1 ? 2 : 1), nibbles(type != DType::q8_0) {
    MKV_CHECK(has_tiles(type));
  }
  size_t block() const { return halves * kHalf + (nibbles ? kGroup / 2 : kGroup); }
  size_t codes() const { return halves * kTileRows * kHalf; }
};

// Bytes [quad][4 columns] of a block's codes: its nibbles are those of columns i and i + 16, a
// tile's those of two neighbouring quads.
void to_quads(const std::byte* codes, bool nibbles, std::byte* quads) {
  if (!nibbles) {
    for (size_t i = 0; i < kGroup; ++i) quads[i] = codes[i] ^ std::byte{128};
    return;
  }
  std::byte columns[kGroup];
  for (size_t i = 0; i < kGroup / 2; ++i) {
    columns[i] = codes[i] & std::byte{15};
    columns[i + kGroup / 2] = codes[i] >> 4;
  }
  for (size_t i = 0; i < kGroup / 2; ++i) {
    const size_t low = i / kQuad * 2 * kQuad + i % kQuad;
    quads[i] = columns[low] | columns[low + kQuad] << 4;
  }
}

void from_quads(const std::byte* quads, bool nibbles, std::byte* codes) {
  if (!nibbles) {
    for (size_t i = 0; i < kGroup; ++i) codes[i] = quads[i] ^ std::byte{128};
    return;
  }
  std::byte columns[kGroup];
  for (size_t i = 0; i < kGroup / 2; ++i) {
    const size_t low = i / kQuad * 2 * kQuad + i % kQuad;
    columns[low] = quads[i] & std::byte{15};
    columns[low + kQuad] = quads[i] >> 4;
  }
  for (size_t i = 0; i < kGroup / 2; ++i) codes[i] = columns[i] | columns[i + kGroup / 2] << 4;
}

}  // namespace

bool has_tiles(DType type) {
  return type == DType::q4_0 || type == DType::q4_1 || type == DType::q8_0;
}

void pack_tile(const Weight& w, size_t tile, std::span<std::byte> out) {
  const Shape shape(w.type);
  const size_t first = tile * kTileRows, rows = std::min(kTileRows, w.rows - first);
  MKV_CHECK(out.size() == kTileRows * row_bytes(w.type, w.cols));
  if (rows < kTileRows) std::ranges::fill(out, std::byte{0});
  const size_t in_quads = shape.nibbles ? kQuads / 2 : kQuads;
  for (size_t r = 0; r < rows; ++r) {
    const std::byte* block = w.row(first + r);
    std::byte* group = out.data();
    for (size_t g = 0; g < w.cols / kGroup; ++g) {
      for (size_t h = 0; h < shape.halves; ++h) {
        std::memcpy(group + (h * kTileRows + r) * kHalf, block + h * kHalf, kHalf);
      }
      std::byte quads[kGroup];
      to_quads(block + shape.halves * kHalf, shape.nibbles, quads);
      for (size_t q = 0; q < in_quads; ++q) {
        std::memcpy(group + shape.codes() + (q * kTileRows + r) * kQuad, quads + q * kQuad, kQuad);
      }
      block += shape.block();
      group += shape.block() * kTileRows;
    }
  }
}

void unpack_row(const Weight& w, size_t row, std::span<std::byte> out) {
  const Shape shape(w.type);
  MKV_CHECK(row < w.rows && out.size() == row_bytes(w.type, w.cols));
  const size_t r = row % kTileRows, in_quads = shape.nibbles ? kQuads / 2 : kQuads;
  const std::byte* group = w.tile(row / kTileRows);
  std::byte* block = out.data();
  for (size_t g = 0; g < w.cols / kGroup; ++g) {
    for (size_t h = 0; h < shape.halves; ++h) {
      std::memcpy(block + h * kHalf, group + (h * kTileRows + r) * kHalf, kHalf);
    }
    std::byte quads[kGroup];
    for (size_t q = 0; q < in_quads; ++q) {
      std::memcpy(quads + q * kQuad, group + shape.codes() + (q * kTileRows + r) * kQuad, kQuad);
    }
    from_quads(quads, shape.nibbles, block + shape.halves * kHalf);
    block += shape.block();
    group += shape.block() * kTileRows;
  }
}

}  // namespace mkv
