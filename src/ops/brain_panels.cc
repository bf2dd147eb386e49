#include "ops/brain_panels.h"

#include <algorithm>

#include "ops/instruction_set.h"
#include "ops/planes.h"
#include "ops/weight_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/brain_panels.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.h.
#include "hwy/highway.h"
#include "ops/tiles-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mkv {
namespace HWY_NAMESPACE {

#if HWY_TARGET != HWY_AVX3

void UnpackBrainTile(const Weight&, size_t, size_t, size_t, uint16_t*) { MKV_CHECK(false); }

#else

// An element is scale * code + offset: of the rows of a tile.
struct RowFactors {
  FloatV scale, offset;
};
template <class Tile>
HWY_INLINE RowFactors factors_of(const typename Tile::Factors& factors, size_t group, size_t half) {
  RowFactors rows;
  rows.scale = factors.scale(group, half, 0);
  if constexpr (Tile::kOffset) {
    static_assert(Tile::kCenter == 0);
    rows.offset = factors.offset(group, 0);
  } else {  // exact, as centers are powers of two
    rows.offset = hn::Mul(rows.scale, hn::Set(Floats(), -static_cast<float>(Tile::kCenter)));
  }
  return rows;
}

// What of x the nearest bf16 is, as the upper half; x becomes the rest.
HWY_INLINE IntV take_part(FloatV& x) {
  const Ints d;
  const IntV bits = hn::Add(hn::BitCast(d, x), hn::Set(d, 0x8000));
  const IntV part = hn::And(bits, hn::Set(d, static_cast<int32_t>(0xffff0000)));
  x = hn::Sub(x, hn::BitCast(Floats(), part));
  return part;
}

// Columns 2 * kPair and the next of a quad, in both parts.
template <int kPair>
HWY_INLINE void split_pair(IntV quad, const RowFactors& factors, uint16_t* to) {
  const Ints d;
  const hn::RebindToUnsigned<Ints> du;
  const hn::FixedTag<int16_t, 32> d16;
  const IntV mask = hn::Set(d, 0xff);
  const auto bits = hn::BitCast(du, quad);
  const IntV even = hn::And(hn::BitCast(d, hn::ShiftRight<16 * kPair>(bits)), mask);
  const IntV shifted = hn::BitCast(d, hn::ShiftRight<16 * kPair + 8>(bits));
  const IntV odd = kPair == 1 ? shifted : hn::And(shifted, mask);
  FloatV low = hn::MulAdd(hn::ConvertTo(Floats(), even), factors.scale, factors.offset);
  FloatV high = hn::MulAdd(hn::ConvertTo(Floats(), odd), factors.scale, factors.offset);
  for (size_t part = 0; part < 2; ++part) {
    const IntV first = take_part(low), second = take_part(high);
    const IntV pair = hn::Or(hn::BitCast(d, hn::ShiftRight<16>(hn::BitCast(du, first))), second);
    hn::StoreU(hn::BitCast(d16, pair), d16, reinterpret_cast<int16_t*>(to) + part * kBrainTile);
  }
}

template <class Tile, size_t kFirst = 0>
HWY_INLINE void split_quads(const uint8_t* codes, const RowFactors (&factors)[Tile::kScales],
                            uint16_t* to) {
  ByteV quads[2];
  Tile::Codes::template quads<kFirst>(codes, 0, quads);
  for (size_t i = 0; i < 2; ++i) {
    const IntV quad = hn::BitCast(Ints(), quads[i]);
    const size_t column = (kFirst * 2 + i) * 4;
    const RowFactors& of_quad = factors[column * Tile::kScales / kIntegerGroup];
    split_pair<0>(quad, of_quad, to + column * kTileRows);
    split_pair<1>(quad, of_quad, to + (column + 2) * kTileRows);
  }
  if constexpr (kFirst + 1 < kQuads / 2) split_quads<Tile, kFirst + 1>(codes, factors, to);
}

template <class Tile>
void split_groups(const uint8_t* tile, size_t first, size_t count, uint16_t* to) {
  const uint8_t* block = tile + first / Tile::kGroups * Tile::kBytes;
  for (size_t done = 0; done < count; block += Tile::kBytes) {
    const typename Tile::Factors factors(block);
    for (size_t g = (first + done) % Tile::kGroups; g < Tile::kGroups && done < count; ++g) {
      RowFactors rows[Tile::kScales];
      for (size_t half = 0; half < Tile::kScales; ++half) {
        rows[half] = factors_of<Tile>(factors, g, half);
      }
      split_quads<Tile>(Tile::codes(block, g), rows, to);
      to += 2 * kBrainTile;
      ++done;
    }
  }
}

// Groups first ... first+count-1 of a tile of w as a tile of the right side, in two parts.
void UnpackBrainTile(const Weight& w, size_t tile, size_t first, size_t count, uint16_t* to) {
  static_assert(kIntegerGroup == kBrainColumns && kTileRows == kBrainRows && kParts == 1);
  with_tile(w.type, [&](auto format) {
    split_groups<decltype(format)>(reinterpret_cast<const uint8_t*>(whole_tile(w, tile)), first,
                                   count, to);
  });
}

#endif  // HWY_TARGET != HWY_AVX3

}  // namespace HWY_NAMESPACE
}  // namespace mkv
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mkv {
HWY_EXPORT(UnpackBrainTile);

namespace {

constexpr size_t kDepth = 8;  // blocks of a panel at a time: 32 rows in two parts take 32 KB
constexpr size_t kTokenTiles = 32;

// Kept by each thread that multiplies.
struct PanelScratch {
  Buffer<uint16_t> panel;  // [tile of 16 rows][block][part]
  Buffer<float> rows;      // [16][kDepth * kBrainColumns], of weights without blocks
  Buffer<float> sums;      // [tokens][rows of the panel], where y has no room for whole tiles
};

// Blocks block ... of 16 rows of a weight without blocks of its own.
void split_plain(const Weight& w, size_t first, size_t block, size_t blocks, size_t parts,
                 Buffer<float>& scratch, uint16_t* to) {
  const size_t column = block * kBrainColumns;
  const size_t cols = std::min(blocks * kBrainColumns, w.cols - column);
  const size_t rows = std::min(kBrainRows, w.rows - first);
  scratch.resize(std::max(scratch.size(), kBrainRows * kDepth * kBrainColumns));
  const View<float> x(scratch.data(), rows, cols);
  for (size_t r = 0; r < rows; ++r) {
    const Weight row{w.row(first + r) + row_bytes(w.type, column), w.type, 1, cols};
    dequantize_rows(row, 0, x.rows_from(r, 1));
  }
  split_right_rows(x, 0, parts, to);
}

void unpack_panel(const Weight& w, size_t first, const BrainOperand& panel, size_t block,
                  size_t blocks, PanelScratch& scratch) {
  for (size_t t = 0; t < panel.tiles; ++t) {
    uint16_t* to = scratch.panel.data() + t * panel.stride;
    if (w.layout != Layout::rows) {
      HWY_DYNAMIC_DISPATCH(UnpackBrainTile)(w, first / kTileRows + t, block, blocks, to);
    } else {
      split_plain(w, first + t * kBrainRows, block, blocks, panel.parts, scratch.rows, to);
    }
  }
}

}  // namespace

void BrainRows::reshape(size_t token_count, size_t col_count, size_t part_count) {
  tokens = token_count;
  cols = col_count;
  parts = part_count;
  data.resize(std::max(data.size(), tiles() * tile_size()));
}

bool has_brain_panels() { return has_amx(); }

BrainParts brain_parts(DType type) {
  if (type == DType::f32) return BrainParts::three_three;
  if (type == DType::f16) return BrainParts::three_two;
  return type == DType::bf16 ? BrainParts::three_one : BrainParts::two_two;
}

void to_brain_rows(View<const float> x, size_t first, size_t last, BrainRows& out) {
  MKV_CHECK(out.tokens == x.rows && out.cols == x.cols && last <= out.tiles());
  for (size_t t = first; t < last; ++t) {
    split_left(x, t * kBrainRows, out.parts, out.data.data() + t * out.tile_size());
  }
}

void multiply_brain_panel(const BrainRows& x, const Weight& w, size_t first, size_t rows,
                          View<float> y) {
  MKV_CHECK(x.cols == w.cols && y.cols == w.rows && x.tokens == y.rows);
  MKV_CHECK(first % kTileRows == 0 && rows <= kMaxBrainPanelRows && first + rows <= w.rows);
  thread_local PanelScratch scratch;
  const BrainParts parts = brain_parts(w.type);
  const size_t block = right_parts(parts) * kBrainTile;
  BrainOperand panel{nullptr, (rows + kBrainRows - 1) / kBrainRows, kDepth * block,
                     right_parts(parts)};
  scratch.panel.resize(std::max(scratch.panel.size(), panel.tiles * panel.stride));
  panel.data = scratch.panel.data();
  const bool direct = rows % kBrainRows == 0 && x.tokens % kBrainRows == 0;
  for (size_t t = 0; t < x.tiles(); t += kTokenTiles) {
    const size_t tiles = std::min(kTokenTiles, x.tiles() - t), token = t * kBrainRows;
    const size_t tokens = std::min(tiles * kBrainRows, x.tokens - token);
    View<float> c(&y.at(token, first), tokens, rows, y.stride);
    if (!direct) {
      const size_t height = tiles * kBrainRows, width = panel.tiles * kBrainRows;
      scratch.sums.resize(std::max(scratch.sums.size(), height * width));
      c = View<float>(scratch.sums.data(), height, width);
    }
    for (size_t b = 0; b < x.blocks(); b += kDepth) {
      const size_t blocks = std::min(kDepth, x.blocks() - b);
      unpack_panel(w, first, panel, b, blocks, scratch);
      const BrainOperand left{x.data.data() + t * x.tile_size() + b * x.parts * kBrainTile, tiles,
                              x.tile_size(), x.parts};
      multiply_brain(left, panel, blocks, parts, b == 0, c);
    }
    if (direct) continue;
    for (size_t i = 0; i < tokens; ++i) std::copy_n(c.row(i).data(), rows, &y.at(token + i, first));
  }
}

void multiply_brain_columns(const BrainRows& left, View<const float> x, View<float> c) {
  MKV_CHECK(x.rows == left.cols && left.tokens % kBrainRows == 0 && x.cols % kBrainRows == 0);
  constexpr BrainParts kParts = BrainParts::two_two;
  thread_local Buffer<uint16_t> kept;
  BrainOperand right{nullptr, x.cols / kBrainRows, left.tile_size(), left.parts};
  kept.resize(std::max(kept.size(), right.tiles * right.stride));
  for (size_t t = 0; t < right.tiles; ++t) {
    split_right(x, t * kBrainRows, right.parts, kept.data() + t * right.stride);
  }
  right.data = kept.data();
  const BrainOperand all{left.data.data(), left.tiles(), left.tile_size(), left.parts};
  multiply_brain(all, right, left.blocks(), kParts, true, c);
}

}  // namespace mkv
#endif  // HWY_ONCE
