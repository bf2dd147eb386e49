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
#include "ops/integer-inl.h"
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
  Buffer<float> row_factors[2];   // of one row

  void reshape(size_t groups) {
    const auto grow = [](auto& buffer, size_t size) {
      buffer.resize(std::max(buffer.size(), size));
    };
    const size_t padded = (groups + kMostBlocks) / kMostBlocks * kMostBlocks;
    grow(pairs, groups * kPairs * kPanelRows);
    grow(scales, groups * 2 * kPanelRows);
    grow(offsets, groups * kPanelRows);
    for (auto& factors : row_factors) grow(factors, 2 * padded);
  }
};

// Row `row` of the panel from the blocks of one row of the weight.
template <class Format, size_t kGroup = 0>
HWY_INLINE void unpack_block(const uint8_t* block, int32_t* to) {
  ByteV bytes[kByteVectors];
  Format::template bytes<kGroup>(block, bytes);
  static_assert(kByteVectors == 1);
  const WordPair words = to_words<Format::kSigned>(bytes[0]);
  alignas(64) int32_t pairs[kPairs];
  hn::Store(hn::BitCast(Ints(), words.even), Ints(), pairs);
  hn::Store(hn::BitCast(Ints(), words.odd), Ints(), pairs + kPairs / 2);
  for (size_t p = 0; p < kPairs; ++p) to[(kGroup * kPairs + p) * kPanelRows] = pairs[p];
  if constexpr (kGroup + 1 < Format::kGroups) unpack_block<Format, kGroup + 1>(block, to);
}

template <class Format>
void unpack_row(const uint8_t* blocks, size_t groups, size_t row, Panel& panel) {
  float* scales = panel.row_factors[0].data();
  float* offsets = panel.row_factors[1].data();
  const size_t count = groups / Format::kGroups;
  constexpr size_t kStep = kMostBlocks / Format::kGroups;
  for (size_t b = 0; b < count; b += kStep) {
    const size_t g = b * Format::kGroups;
    Format::factors(blocks + b * Format::kBytes, std::min(kStep, count - b),
                    scales + g * Format::kScales, offsets + g);
  }
  for (size_t i = 0; i < groups * Format::kScales; ++i) {
    panel.scales[i * kPanelRows + row] = scales[i];
  }
  if constexpr (Format::kOffset) {
    for (size_t g = 0; g < groups; ++g) panel.offsets[g * kPanelRows + row] = offsets[g];
  }
  int32_t* to = panel.pairs.data() + row;
  for (size_t b = 0; b < count; ++b, blocks += Format::kBytes) {
    unpack_block<Format>(blocks, to);
    to += Format::kGroups * kPairs * kPanelRows;
  }
}

// A tile of the weight to the rows from `row` of the panel.
template <class Tile>
void unpack_tile(const uint8_t* group, size_t groups, size_t row, Panel& panel) {
  static_assert(kParts == 2);
  for (size_t g = 0; g < groups; ++g, group += Tile::kBytes) {
    for (size_t part = 0; part < kParts; ++part) {
      const size_t at = row + part * kPartRows;
      const uint8_t* halves = group + part * kPartRows * 2;
      hn::StoreU(load_half(Floats(), halves), Floats(), &panel.scales[g * kPanelRows + at]);
      if constexpr (Tile::kOffset) {
        const FloatV min = load_half(Floats(), halves + kHalves);
        hn::StoreU(min, Floats(), &panel.offsets[g * kPanelRows + at]);
      }
      for (size_t pair = 0; pair < kQuads / 2; ++pair) {
        ByteV codes[2];
        Tile::quads(group, pair, part, codes);
        for (size_t i = 0; i < 2; ++i) {
          const WordPair words = to_words<false>(codes[i]);
          const WordV center = hn::Set(Words(), Tile::kCenter);
          int32_t* to = &panel.pairs[(g * kPairs + pair * 2 + i) * kPanelRows + at];
          hn::StoreU(hn::BitCast(Ints(), hn::Sub(words.even, center)), Ints(), to);
          hn::StoreU(hn::BitCast(Ints(), hn::Sub(words.odd, center)), Ints(),
                     to + kQuads * kPanelRows);
        }
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
template <class Format, size_t kTokens>
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
    constexpr size_t kRun = Format::kScales == 1 ? kPairs : kPairs / 4;
    for (size_t start = part * kRun; start < kPairs; start += kRun * Format::kScales) {
      for (size_t p = start; p < start + kRun; ++p) add_pair(group, p, total);
    }
    const size_t at = (group * Format::kScales + part) * kPanelRows;
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

template <class Format, size_t kTokens>
void multiply_tile(const Panel& panel, const IntegerRows& x, size_t token, size_t first,
                   size_t rows, View<float> y) {
  PanelTile<Format, kTokens> tile{panel, x, token, {}};
  for (auto& row : tile.sums) {
    for (FloatLanesV& sum : row) sum = hn::Zero(FloatLanes());
  }
  for (size_t g = 0; g < x.groups; ++g) {
    for (size_t part = 0; part < Format::kScales; ++part) tile.add_part(g, part);
    if constexpr (Format::kOffset) tile.add_offsets(g);
  }
  for (size_t t = 0; t < kTokens; ++t) {
    float out[kPanelRows];
    for (size_t v = 0; v < kVectors; ++v) {
      hn::StoreU(tile.sums[v][t], FloatLanes(), out + v * kLanes);
    }
    std::copy_n(out, rows, &y.at(token + t, first));
  }
}

template <class Format, size_t kTokens>
void multiply_rest(const Panel& panel, const IntegerRows& x, size_t token, size_t first,
                   size_t rows, View<float> y) {
  if constexpr (kTokens > 0) {
    if (x.tokens - token == kTokens) {
      return multiply_tile<Format, kTokens>(panel, x, token, first, rows, y);
    }
    multiply_rest<Format, kTokens - 1>(panel, x, token, first, rows, y);
  }
}

template <class Format>
void unpack_rows(const Weight& w, size_t first, size_t rows, size_t groups, Panel& panel) {
  for (size_t r = 0; r < rows; ++r) {
    unpack_row<Format>(reinterpret_cast<const uint8_t*>(w.row(first + r)), groups, r, panel);
  }
  for (size_t r = rows; r < kPanelRows; ++r) clear_row(groups, Format::kScales, r, panel);
}

template <class Tile>
void unpack_tiles(const Weight& w, size_t first, size_t rows, size_t groups, Panel& panel) {
  for (size_t r = 0; r < kPanelRows; r += kTileRows) {
    if (r < rows) {
      const std::byte* tile = w.tile((first + r) / kTileRows);
      unpack_tile<Tile>(reinterpret_cast<const uint8_t*>(tile), groups, r, panel);
    } else {
      for (size_t i = r; i < kPanelRows; ++i) clear_row(groups, 1, i, panel);
    }
  }
}

template <class Format>
void multiply_panel(const Panel& panel, const IntegerRows& x, size_t first, size_t rows,
                    View<float> y) {
  size_t token = 0;
  for (; token + kTileTokens <= x.tokens; token += kTileTokens) {
    multiply_tile<Format, kTileTokens>(panel, x, token, first, rows, y);
  }
  multiply_rest<Format, kTileTokens - 1>(panel, x, token, first, rows, y);
}

void MultiplyIntegerPanel(const IntegerRows& x, const Weight& w, size_t first, View<float> y) {
  thread_local Panel panel;
  panel.reshape(x.groups);
  const size_t rows = std::min(kPanelRows, w.rows - first);
  if (w.layout == Layout::tiles) {
    return with_tile(w.type, [&](auto tile) {
      unpack_tiles<decltype(tile)>(w, first, rows, x.groups, panel);
      multiply_panel<decltype(tile)>(panel, x, first, rows, y);
    });
  }
  with_format(w.type, [&](auto format) {
    unpack_rows<decltype(format)>(w, first, rows, x.groups, panel);
    multiply_panel<decltype(format)>(panel, x, first, rows, y);
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

bool has_integer_panels(DType type) {
  return has_integer_products(type) && HWY_DYNAMIC_DISPATCH(HasIntegerPanels)();
}

void multiply_integer_panel(const IntegerRows& x, const Weight& w, size_t first, View<float> y) {
  MKV_CHECK(x.groups * kIntegerGroup == w.cols && w.cols % info(w.type).block_elements == 0);
  MKV_CHECK(y.cols == w.rows && x.tokens == y.rows && first < w.rows);
  HWY_DYNAMIC_DISPATCH(MultiplyIntegerPanel)(x, w, first, y);
}

}  // namespace mkv
#endif  // HWY_ONCE
