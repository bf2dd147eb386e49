// Integer products for many tokens, by VNNI: 16 rows of a weight lie beside each other in a vector,
// unpacked to words once for all tokens.
#include <algorithm>

#include "ops/instruction_set.h"
#include "ops/integer_products.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/integer_panels.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.h.
#include "hwy/highway.h"
#include "ops/tiles-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mkv {
namespace HWY_NAMESPACE {

#if HWY_TARGET != HWY_AVX3

bool HasIntegerPanels() { return false; }
void MultiplyIntegerPanel(const IntegerRows&, const Weight&, size_t, View<float>) {
  MKV_CHECK(false);
}

#else

bool HasIntegerPanels() { return has_vnni(); }

constexpr size_t kLanes = 16;                     // rows of a vector
constexpr size_t kVectors = kPanelRows / kLanes;  // of rows
constexpr size_t kPairs = kIntegerGroup / 2;      // of words: what a lane multiplies at once
constexpr size_t kTileTokens = 6;  // 2 x 6 sums of integers and of floats: 24 registers
using IntLanes = hn::CappedTag<int32_t, kLanes>;
using FloatLanes = hn::CappedTag<float, kLanes>;
using IntLanesV = hn::Vec<IntLanes>;
using FloatLanesV = hn::Vec<FloatLanes>;

// Rows of a weight as words, [group][pair][row] with the two words of a pair beside each other, and
// their factors [group][row]. Kept by each thread for the next panel; never given back.
struct Panel {
  Buffer<int32_t> pairs;          // [groups x kPairs x kPanelRows]
  Buffer<float> scales, offsets;  // [groups x kScales x kPanelRows], [groups x kPanelRows]

  void reshape(size_t groups) {
    const auto grow = [](auto& buffer, size_t size) {
      buffer.resize(std::max(buffer.size(), size));
    };
    grow(pairs, groups * kPairs * kPanelRows);
    grow(scales, groups * 2 * kPanelRows);
    grow(offsets, groups * kPanelRows);
  }
};

// The pairs of quads kPair ... of a group, of a part of the rows; to: the group's first pair.
template <class Tile, size_t kPair = 0>
HWY_INLINE void unpack_quads(const uint8_t* codes, size_t part, int32_t* to) {
  ByteV quads[2];
  Tile::Codes::template quads<kPair>(codes, part, quads);
  const WordV center = hn::Set(Words(), Tile::kCenter);
  for (size_t i = 0; i < 2; ++i) {
    const WordPair words = to_words(quads[i]);
    int32_t* even = to + (kPair * 2 + i) * kPanelRows;
    hn::StoreU(hn::BitCast(Ints(), hn::Sub(words.even, center)), Ints(), even);
    hn::StoreU(hn::BitCast(Ints(), hn::Sub(words.odd, center)), Ints(), even + kQuads * kPanelRows);
  }
  if constexpr (kPair + 1 < kQuads / 2) unpack_quads<Tile, kPair + 1>(codes, part, to);
}

// A tile of the weight to the rows from `row` of the panel.
template <class Tile>
void unpack_tile(const uint8_t* block, size_t groups, size_t row, Panel& panel) {
  static_assert(kParts == 2);
  for (size_t first = 0; first < groups; first += Tile::kGroups, block += Tile::kBytes) {
    const typename Tile::Factors factors(block);
    for (size_t i = 0; i < Tile::kGroups; ++i) {
      const size_t g = first + i;
      for (size_t part = 0; part < kParts; ++part) {
        const size_t at = row + part * kPartRows;
        for (size_t half = 0; half < Tile::kScales; ++half) {
          hn::StoreU(factors.scale(i, half, part), Floats(),
                     &panel.scales[(g * Tile::kScales + half) * kPanelRows + at]);
        }
        if constexpr (Tile::kOffset) {
          hn::StoreU(factors.offset(i, part), Floats(), &panel.offsets[g * kPanelRows + at]);
        }
        int32_t* to = &panel.pairs[g * kPairs * kPanelRows + at];
        unpack_quads<Tile>(Tile::codes(block, i), part, to);
      }
    }
  }
}

void clear_row(size_t groups, size_t scales, size_t row, Panel& panel) {
  for (size_t i = 0; i < groups * kPairs; ++i) panel.pairs[i * kPanelRows + row] = 0;
  for (size_t i = 0; i < groups * scales; ++i) panel.scales[i * kPanelRows + row] = 0;
  for (size_t i = 0; i < groups; ++i) panel.offsets[i * kPanelRows + row] = 0;
}

HWY_INLINE IntLanesV add_pairs(IntLanesV sum, IntLanesV w, IntLanesV x) {
  asm("vpdpwssd %2, %1, %0" : "+v"(sum.raw) : "v"(w.raw), "v"(x.raw));
  return sum;
}

// All rows of the panel times kTokens tokens.
template <class Tile, size_t kTokens>
struct PanelTile {
  const Panel& panel;
  const IntegerRows& x;
  size_t token;
  FloatLanesV sums[kVectors][kTokens];

  // The part `part` of kScales of a group: with two scales the first 16 elements, or the last; a
  // quarter of the pairs each, as even elements come before odd ones.
  HWY_INLINE void add_part(size_t group, size_t part) {
    IntLanesV total[kVectors][kTokens];
    for (auto& row : total) {
      for (IntLanesV& sum : row) sum = hn::Zero(IntLanes());
    }
    constexpr size_t kRun = Tile::kScales == 1 ? kPairs : kPairs / 4;
    for (size_t start = part * kRun; start < kPairs; start += kRun * Tile::kScales) {
      for (size_t p = start; p < start + kRun; ++p) add_pair(group, p, total);
    }
    const size_t at = (group * Tile::kScales + part) * kPanelRows;
    for (size_t v = 0; v < kVectors; ++v) {
      const FloatLanesV scale = hn::Load(FloatLanes(), panel.scales.data() + at + v * kLanes);
      for (size_t t = 0; t < kTokens; ++t) {
        const FloatLanesV x_scale = hn::Set(FloatLanes(), x.row_scales(token + t)[group]);
        const FloatLanesV value = hn::ConvertTo(FloatLanes(), total[v][t]);
        sums[v][t] = hn::MulAdd(value, hn::Mul(scale, x_scale), sums[v][t]);
      }
    }
  }
  HWY_INLINE void add_pair(size_t group, size_t p, IntLanesV (&total)[kVectors][kTokens]) {
    const int32_t* from = panel.pairs.data() + (group * kPairs + p) * kPanelRows;
    IntLanesV w[kVectors];
    for (size_t v = 0; v < kVectors; ++v) w[v] = hn::Load(IntLanes(), from + v * kLanes);
    for (size_t t = 0; t < kTokens; ++t) {
      int32_t pair;
      std::memcpy(&pair, x.row(token + t) + group * kIntegerGroup + p * 2, sizeof(pair));
      const IntLanesV in = hn::Set(IntLanes(), pair);
      for (size_t v = 0; v < kVectors; ++v) total[v][t] = add_pairs(total[v][t], w[v], in);
    }
  }
  HWY_INLINE void add_offsets(size_t group) {
    for (size_t v = 0; v < kVectors; ++v) {
      const float* from = panel.offsets.data() + group * kPanelRows + v * kLanes;
      const FloatLanesV offset = hn::Load(FloatLanes(), from);
      for (size_t t = 0; t < kTokens; ++t) {
        const FloatLanesV x_sum = hn::Set(FloatLanes(), x.row_sums(token + t)[group]);
        sums[v][t] = hn::MulAdd(offset, x_sum, sums[v][t]);
      }
    }
  }
};

template <class Tile, size_t kTokens>
void multiply_tile(const Panel& panel, const IntegerRows& x, size_t token, size_t first,
                   size_t rows, View<float> y) {
  PanelTile<Tile, kTokens> tile{panel, x, token, {}};
  for (auto& row : tile.sums) {
    for (FloatLanesV& sum : row) sum = hn::Zero(FloatLanes());
  }
  for (size_t g = 0; g < x.groups; ++g) {
    for (size_t part = 0; part < Tile::kScales; ++part) tile.add_part(g, part);
    if constexpr (Tile::kOffset) tile.add_offsets(g);
  }
  for (size_t t = 0; t < kTokens; ++t) {
    float out[kPanelRows];
    for (size_t v = 0; v < kVectors; ++v) {
      hn::StoreU(tile.sums[v][t], FloatLanes(), out + v * kLanes);
    }
    std::copy_n(out, rows, &y.at(token + t, first));
  }
}

template <class Tile, size_t kTokens>
void multiply_rest(const Panel& panel, const IntegerRows& x, size_t token, size_t first,
                   size_t rows, View<float> y) {
  if constexpr (kTokens > 0) {
    if (x.tokens - token == kTokens) {
      return multiply_tile<Tile, kTokens>(panel, x, token, first, rows, y);
    }
    multiply_rest<Tile, kTokens - 1>(panel, x, token, first, rows, y);
  }
}

template <class Tile>
void unpack_tiles(const Weight& w, size_t first, size_t rows, size_t groups, Panel& panel) {
  for (size_t r = 0; r < kPanelRows; r += kTileRows) {
    if (r < rows) {
      const std::byte* tile = w.tile((first + r) / kTileRows);
      unpack_tile<Tile>(reinterpret_cast<const uint8_t*>(tile), groups, r, panel);
    } else {
      for (size_t i = r; i < kPanelRows; ++i) clear_row(groups, Tile::kScales, i, panel);
    }
  }
}

template <class Tile>
void multiply_panel(const Panel& panel, const IntegerRows& x, size_t first, size_t rows,
                    View<float> y) {
  size_t token = 0;
  for (; token + kTileTokens <= x.tokens; token += kTileTokens) {
    multiply_tile<Tile, kTileTokens>(panel, x, token, first, rows, y);
  }
  multiply_rest<Tile, kTileTokens - 1>(panel, x, token, first, rows, y);
}

void MultiplyIntegerPanel(const IntegerRows& x, const Weight& w, size_t first, View<float> y) {
  thread_local Panel panel;
  panel.reshape(x.groups);
  const size_t rows = std::min(kPanelRows, w.rows - first);
  with_tile(w.type, [&](auto tile) {
    unpack_tiles<decltype(tile)>(w, first, rows, x.groups, panel);
    multiply_panel<decltype(tile)>(panel, x, first, rows, y);
  });
}

#endif  // HWY_TARGET != HWY_AVX3

}  // namespace HWY_NAMESPACE
}  // namespace mkv
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mkv {
HWY_EXPORT(HasIntegerPanels);
HWY_EXPORT(MultiplyIntegerPanel);

bool has_integer_panels() { return HWY_DYNAMIC_DISPATCH(HasIntegerPanels)(); }

void multiply_integer_panel(const IntegerRows& x, const Weight& w, size_t first, View<float> y) {
  MKV_CHECK(x.groups * kIntegerGroup == w.cols && w.cols % info(w.type).block_elements == 0);
  MKV_CHECK(y.cols == w.rows && x.tokens == y.rows && first < w.rows);
  MKV_CHECK(w.layout == Layout::tiles && first % kTileRows == 0);
  HWY_DYNAMIC_DISPATCH(MultiplyIntegerPanel)(x, w, first, y);
}

}  // namespace mkv
#endif  // HWY_ONCE
