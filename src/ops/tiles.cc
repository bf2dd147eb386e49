#include "ops/tiles.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "ops/planes.h"

namespace mkv {
namespace {

constexpr size_t kGroup = 32, kQuad = 4, kQuads = kGroup / kQuad, kHalf = 2;

// A block in the file: what it has, and from which byte.
struct Shape {
  size_t columns;
  size_t halves, halves_at;  // d [, m]
  size_t scales, scales_at;  // bytes of the K types
  // Nibbles: of `run` columns the low ones, of the next `run` the high ones. 0: bytes.
  size_t codes_at, run;
  size_t top, top_at;  // bits of a code above its nibble
};

constexpr Shape shape_of(DType type) {
  switch (type) {
    case DType::q4_0:
      return {32, 1, 0, 0, 0, 2, 16, 0, 0};
    case DType::q4_1:
      return {32, 2, 0, 0, 0, 4, 16, 0, 0};
    case DType::q5_0:
      return {32, 1, 0, 0, 0, 6, 16, 1, 2};
    case DType::q5_1:
      return {32, 2, 0, 0, 0, 8, 16, 1, 4};
    case DType::q8_0:
      return {32, 1, 0, 0, 0, 2, 0, 0, 0};
    case DType::q4_k:
      return {256, 2, 0, 12, 4, 16, 32, 0, 0};
    case DType::q5_k:
      return {256, 2, 0, 12, 4, 48, 32, 1, 16};
    case DType::q6_k:
      return {256, 1, 208, 16, 192, 0, 64, 2, 128};
    default:
      return {};
  }
}

// Where the bits above column c's nibble are: the byte from top_at, the lowest bit. The types of
// 32 columns have them in order; the K types in runs of 32 columns, a column's beside its next's.
struct TopBits {
  size_t byte, shift;
};
constexpr TopBits top_bits(const Shape& shape, size_t c) {
  if (shape.columns == kGroup) return {c / 8, c % 8};
  const size_t bit = c / kGroup * shape.top;
  return {bit / 8 * kGroup + c % kGroup, bit % 8};
}

// The codes of a block, one a byte, as the file has them.
template <DType kType>
void read_codes(const uint8_t* block, uint8_t* codes) {
  constexpr Shape kShape = shape_of(kType);
  const uint8_t* from = block + kShape.codes_at;
  if constexpr (kShape.run == 0) {
    std::memcpy(codes, from, kShape.columns);
  } else {
    for (size_t c = 0; c < kShape.columns; c += 2 * kShape.run, from += kShape.run) {
      for (size_t i = 0; i < kShape.run; ++i) {
        codes[c + i] = from[i] & 15;
        codes[c + kShape.run + i] = from[i] >> 4;
      }
    }
  }
  if constexpr (kShape.top > 0) {
    const uint8_t* top = block + kShape.top_at;
    for (size_t c = 0; c < kShape.columns; ++c) {
      const TopBits at = top_bits(kShape, c);
      const int bits = top[at.byte] >> at.shift & ((1 << kShape.top) - 1);
      codes[c] = static_cast<uint8_t>(codes[c] | bits << 4);
    }
  }
}

template <DType kType>
void write_codes(const uint8_t* codes, uint8_t* block) {
  constexpr Shape kShape = shape_of(kType);
  uint8_t* to = block + kShape.codes_at;
  if constexpr (kShape.run == 0) {
    std::memcpy(to, codes, kShape.columns);
  } else {
    for (size_t c = 0; c < kShape.columns; c += 2 * kShape.run, to += kShape.run) {
      for (size_t i = 0; i < kShape.run; ++i) {
        to[i] = static_cast<uint8_t>((codes[c + i] & 15) | codes[c + kShape.run + i] << 4);
      }
    }
  }
  if constexpr (kShape.top > 0) {
    uint8_t* top = block + kShape.top_at;
    std::fill_n(top, kShape.columns * kShape.top / 8, uint8_t{0});
    for (size_t c = 0; c < kShape.columns; ++c) {
      const TopBits at = top_bits(kShape, c);
      top[at.byte] = static_cast<uint8_t>(top[at.byte] | codes[c] >> 4 << at.shift);
    }
  }
}

// A row's part of a group in the tile: units of four bytes, one of each column of a quad; 16 rows'
// units lie beside each other.
template <DType kType>
struct Units {
  static constexpr Shape kShape = shape_of(kType);
  static constexpr size_t kTop = kShape.top;
  static constexpr size_t kCount = kShape.run == 0 ? kQuads : kQuads / 2 + kTop;
  uint32_t units[kCount];

  static constexpr uint32_t of_each(uint32_t byte) { return byte * 0x01010101u; }

  void pack(const uint8_t* codes) {
    uint32_t quads[kQuads];
    std::memcpy(quads, codes, sizeof(quads));
    if constexpr (kShape.run == 0) {
      for (size_t q = 0; q < kQuads; ++q) units[q] = quads[q] ^ of_each(128);
    } else {
      for (size_t i = 0; i < kQuads / 2; ++i) {
        units[i] = (quads[2 * i] & of_each(15)) | (quads[2 * i + 1] & of_each(15)) << 4;
      }
      std::fill_n(units + kQuads / 2, kTop, 0u);
      for (size_t bit = 0; bit < kQuads * kTop; bit += kTop) {
        units[kQuads / 2 + bit / 8] |= (quads[bit / kTop] >> 4 & of_each((1 << kTop) - 1))
                                       << bit % 8;
      }
    }
  }
  void unpack(uint8_t* codes) const {
    uint32_t quads[kQuads];
    if constexpr (kShape.run == 0) {
      for (size_t q = 0; q < kQuads; ++q) quads[q] = units[q] ^ of_each(128);
    } else {
      for (size_t q = 0; q < kQuads; ++q) quads[q] = units[q / 2] >> q % 2 * 4 & of_each(15);
      for (size_t bit = 0; bit < kQuads * kTop; bit += kTop) {
        const uint32_t top = units[kQuads / 2 + bit / 8] >> bit % 8 & of_each((1 << kTop) - 1);
        quads[bit / kTop] |= top << 4;
      }
    }
    std::memcpy(codes, quads, sizeof(quads));
  }
};

// The blocks of row r of a tile. The functions are called with a block of the file and of the tile.
template <DType kType>
struct RowOfTile {
  static constexpr Shape kShape = shape_of(kType);
  static constexpr size_t kGroups = kShape.columns / kGroup;
  static constexpr size_t kFactors = kTileRows * (kShape.halves * kHalf + kShape.scales);
  static constexpr size_t kUnits = Units<kType>::kCount;
  size_t r;

  size_t half(size_t h) const { return (h * kTileRows + r) * kHalf; }
  size_t scale(size_t s) const { return (kShape.halves * kHalf + s) * kTileRows + r; }
  size_t unit(size_t group, size_t u) const {
    return kFactors + ((group * kUnits + u) * kTileRows + r) * kQuad;
  }

  void pack(const uint8_t* block, uint8_t* tile) const {
    for (size_t h = 0; h < kShape.halves; ++h) {
      std::memcpy(tile + half(h), block + kShape.halves_at + h * kHalf, kHalf);
    }
    for (size_t s = 0; s < kShape.scales; ++s) tile[scale(s)] = block[kShape.scales_at + s];
    uint8_t codes[kShape.columns];
    read_codes<kType>(block, codes);
    for (size_t g = 0; g < kGroups; ++g) {
      Units<kType> packed;
      packed.pack(codes + g * kGroup);
      for (size_t u = 0; u < kUnits; ++u) std::memcpy(tile + unit(g, u), &packed.units[u], kQuad);
    }
  }
  void unpack(const uint8_t* tile, uint8_t* block) const {
    for (size_t h = 0; h < kShape.halves; ++h) {
      std::memcpy(block + kShape.halves_at + h * kHalf, tile + half(h), kHalf);
    }
    for (size_t s = 0; s < kShape.scales; ++s) block[kShape.scales_at + s] = tile[scale(s)];
    uint8_t codes[kShape.columns];
    for (size_t g = 0; g < kGroups; ++g) {
      Units<kType> packed;
      for (size_t u = 0; u < kUnits; ++u) std::memcpy(&packed.units[u], tile + unit(g, u), kQuad);
      packed.unpack(codes + g * kGroup);
    }
    write_codes<kType>(codes, block);
  }
};

// fn(type as a constant).
template <DType kType>
using Constant = std::integral_constant<DType, kType>;
template <class Fn>
void with_type(DType type, const Fn& fn) {
  switch (type) {
    case DType::q4_0:
      return fn(Constant<DType::q4_0>());
    case DType::q4_1:
      return fn(Constant<DType::q4_1>());
    case DType::q5_0:
      return fn(Constant<DType::q5_0>());
    case DType::q5_1:
      return fn(Constant<DType::q5_1>());
    case DType::q8_0:
      return fn(Constant<DType::q8_0>());
    case DType::q4_k:
      return fn(Constant<DType::q4_k>());
    case DType::q5_k:
      return fn(Constant<DType::q5_k>());
    case DType::q6_k:
      return fn(Constant<DType::q6_k>());
    default:
      MKV_CHECK(false);
  }
}

}  // namespace

bool has_tiles(DType type) { return info(type).block_elements > 1; }

void pack_tile(const Weight& w, size_t tile, std::span<std::byte> out) {
  const size_t first = tile * kTileRows, rows = std::min(kTileRows, w.rows - first);
  const size_t bytes = row_bytes(w.type, w.cols), block_bytes = info(w.type).block_bytes;
  MKV_CHECK(out.size() == kTileRows * bytes);
  if (rows < kTileRows) std::ranges::fill(out, std::byte{0});
  with_type(w.type, [&](auto type) {
    for (size_t r = 0; r < rows; ++r) {
      const auto* from = reinterpret_cast<const uint8_t*>(w.row(first + r));
      auto* to = reinterpret_cast<uint8_t*>(out.data());
      for (size_t b = 0; b < bytes; b += block_bytes) {
        RowOfTile<type()>{r}.pack(from + b, to + b * kTileRows);
      }
    }
  });
}

void unpack_row(const Weight& w, size_t row, std::span<std::byte> out) {
  MKV_CHECK(row < w.rows && out.size() == row_bytes(w.type, w.cols));
  const size_t block_bytes = info(w.type).block_bytes;
  with_type(w.type, [&](auto type) {
    const auto* from = reinterpret_cast<const uint8_t*>(whole_tile(w, row / kTileRows));
    auto* to = reinterpret_cast<uint8_t*>(out.data());
    for (size_t b = 0; b < out.size(); b += block_bytes) {
      RowOfTile<type()>{row % kTileRows}.unpack(from + b * kTileRows, to + b);
    }
  });
}

}  // namespace mkv
