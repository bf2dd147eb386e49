// What the tests of ops/ share: sizes, types and random inputs.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "base/buffer.h"
#include "base/dtype.h"
#include "base/half.h"
#include "base/rng.h"
#include "ops/each_instruction_set.h"
#include "ops/tiles.h"
#include "ops/weight.h"

namespace mkv::testing {

// Around every multiple of 1, 4, 8 and 16 lanes, and the sizes of a small model.
inline std::vector<size_t> sizes() {
  std::vector<size_t> sizes;
  for (size_t n = 0; n <= 70; ++n) sizes.push_back(n);
  for (const size_t n : {127, 128, 129, 576, 1023, 1024, 1025, 1536}) sizes.push_back(n);
  return sizes;
}

inline std::vector<float> normals(Rng& rng, size_t size, double scale = 1.0) {
  std::vector<float> values(size);
  for (float& v : values) v = static_cast<float>(rng.normal() * scale);
  return values;
}

inline Matrix<float> random_matrix(Rng& rng, size_t rows, size_t cols) {
  Matrix<float> m(rows, cols);
  for (float& v : m.span()) v = static_cast<float>(rng.normal());
  return m;
}

// `size` normals one float after an aligned address, for loads that straddle cache lines.
struct Misaligned {
  Misaligned(Rng& rng, size_t size) : storage(normals(rng, size + 17)), size_(size) {}
  std::span<float> span() { return {first(), size_}; }
  float* first() {
    float* p = storage.data();
    while (reinterpret_cast<uintptr_t>(p) % 64 != 4) ++p;
    return p;
  }
  std::vector<float> storage;
  size_t size_;
};

constexpr DType kAllTypes[] = {DType::f32,  DType::f16,  DType::bf16, DType::q4_0,
                               DType::q4_1, DType::q5_0, DType::q5_1, DType::q8_0,
                               DType::q4_k, DType::q5_k, DType::q6_k};
constexpr DType kQuantisedTypes[] = {DType::q4_0, DType::q4_1, DType::q5_0, DType::q5_1,
                                     DType::q8_0, DType::q4_k, DType::q5_k, DType::q6_k};

// Offsets of the binary16 numbers in a block of a quantised type.
inline std::vector<size_t> half_offsets(DType type) {
  switch (type) {
    case DType::q4_0:
    case DType::q5_0:
    case DType::q8_0:
      return {0};
    case DType::q6_k:
      return {208};
    default:
      return {0, 2};
  }
}

// A weight with random quants, and scales of both signs from 2^low to 2^high. It starts at an odd
// address: nothing says how a file is aligned.
struct RandomWeight {
  RandomWeight(Rng& rng, DType type, size_t rows, size_t cols, double low, double high)
      : storage(rows * row_bytes(type, cols) + 1) {
    std::byte* data = storage.data() + 1;
    weight = {data, type, rows, cols};
    const auto scale = [&] {
      const double magnitude = std::exp2(low + (high - low) * rng.uniform());
      return static_cast<float>(rng.below(2) == 0 ? magnitude : -magnitude);
    };
    const size_t block_bytes = info(type).block_bytes;
    for (size_t i = 0; i < weight.bytes(); ++i) data[i] = static_cast<std::byte>(rng.below(256));
    for (size_t i = 0; i < weight.bytes(); i += block_bytes) {
      const float value = scale();
      const uint16_t half = f32_to_f16(value), brain = f32_to_bf16(value);
      if (type == DType::f32) {
        std::memcpy(data + i, &value, 4);
      } else if (type == DType::f16) {
        std::memcpy(data + i, &half, 2);
      } else if (type == DType::bf16) {
        std::memcpy(data + i, &brain, 2);
      } else {
        for (const size_t offset : half_offsets(type)) {
          const uint16_t h = f32_to_f16(scale());
          std::memcpy(data + i + offset, &h, 2);
        }
      }
    }
  }
  std::vector<std::byte> storage;
  Weight weight;
};

// The same weight in tiles; at an odd address, too.
struct TiledWeight {
  explicit TiledWeight(const Weight& rows) {
    weight = {nullptr, rows.type, rows.rows, rows.cols, Layout::tiles};
    const size_t tile_bytes = kTileRows * row_bytes(rows.type, rows.cols);
    storage.resize(weight.tiled_bytes() + 1);
    weight.data = storage.data() + 1;
    for (size_t t = 0; t < weight.tiles(); ++t) {
      pack_tile(rows, t, {storage.data() + 1 + t * tile_bytes, tile_bytes});
    }
  }
  std::vector<std::byte> storage;
  Weight weight;
};

}  // namespace mkv::testing
