// Weight: a matrix [rows x cols] of a model, in the type that its file has, used as it is.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "base/dtype.h"

namespace mkv {

// Rows one after the other, as files have them; tiles of kTileRows rows (ops/tiles.h); or tiles in
// two planes of bits (ops/planes.h).
enum class Layout : uint8_t { rows, tiles, planes };
inline constexpr size_t kTileRows = 16;

struct Weight {
  const std::byte* data = nullptr;  // mapped file or owned elsewhere; outlives the Weight
  DType type = DType::f32;
  size_t rows = 0, cols = 0;  // y[rows] = W x[cols]
  Layout layout = Layout::rows;

  const std::byte* row(size_t r) const {
    MKV_CHECK(layout == Layout::rows);
    return data + r * row_bytes(type, cols);
  }
  const std::byte* tile(size_t t) const {
    MKV_CHECK(layout == Layout::tiles);
    return data + t * kTileRows * row_bytes(type, cols);
  }
  size_t tiles() const { return (rows + kTileRows - 1) / kTileRows; }
  // In a file, and in memory: the last tile may be filled up.
  size_t bytes() const { return rows * row_bytes(type, cols); }
  size_t tiled_bytes() const { return tiles() * kTileRows * row_bytes(type, cols); }
  explicit operator bool() const { return data != nullptr; }
};

}  // namespace mkv
