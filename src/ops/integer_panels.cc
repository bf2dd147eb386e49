// Integer products for many tokens, on x86: rows of a weight lie beside each other in a vector,
// unpacked to words once for all tokens.
#include <algorithm>

#include "ops/instruction_set.h"
#include "ops/integer_products.h"
#include "ops/word_pairs.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/integer_panels.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.h.
#include "hwy/highway.h"
#include "ops/tiles-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mkv {
namespace HWY_NAMESPACE {

#if HWY_TARGET == HWY_SCALAR || !HWY_ARCH_X86_64

bool HasIntegerPanels() { return false; }
size_t FewForIntegerPanels() { return 0; }
void MultiplyIntegerPanel(const IntegerRows&, const Weight&, size_t, View<float>) {
  MKV_CHECK(false);
}

#else

// With AVX-512 but no VNNI two instructions multiply and add 32 words, and so many floats.
bool HasIntegerPanels() { return HWY_TARGET != HWY_AVX3 || has_vnni(); }
// Tiles gain more by VNNI than panels do (bench/README.md).
size_t FewForIntegerPanels() { return has_vnni() || has_avx2_vnni() ? 24 : 6; }

using IntLanes = hn::CappedTag<int32_t, 16>;
using FloatLanes = hn::CappedTag<float, 16>;
constexpr size_t kLanes = hn::MaxLanes(IntLanes());             // rows of a vector
constexpr size_t kVectors = 2, kStripRows = kVectors * kLanes;  // rows that go together
constexpr size_t kPairs = kIntegerGroup / 2;  // of words: what a lane multiplies at once
constexpr size_t kTileTokens = 6;             // 2 x 6 sums of integers: of 16 registers
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

// first and second += the pair of words at x, in every lane, times w.
template <bool kVnni>
HWY_INLINE void add_pairs(const int16_t* x, const IntLanesV (&w)[kVectors], IntLanesV& first,
                          IntLanesV& second) {
  using Pair [[gnu::may_alias]] = int32_t;
  [[maybe_unused]] const Pair& pair = *reinterpret_cast<const Pair*>(x);
#if HWY_TARGET == HWY_AVX2
  if constexpr (kVnni) {
    IntLanesV in;
    asm("vpbroadcastd %3, %2\n\t"
        "%{vex%} vpdpwssd %4, %2, %0\n\t"
        "%{vex%} vpdpwssd %5, %2, %1"
        : "+x"(first.raw), "+x"(second.raw), "=&x"(in.raw)
        : "m"(pair), "x"(w[0].raw), "x"(w[1].raw));
  } else {
    add_word_pairs(x, w[0].raw, w[1].raw, first.raw, second.raw);
  }
#else
  const IntLanesV in = hn::Set(IntLanes(), pair);
#if HWY_TARGET == HWY_AVX3
  asm("vpdpwssd %2, %1, %0" : "+v"(first.raw) : "v"(w[0].raw), "v"(in.raw));
  asm("vpdpwssd %2, %1, %0" : "+v"(second.raw) : "v"(w[1].raw), "v"(in.raw));
#else
  const hn::Repartition<int16_t, IntLanes> words;
  IntLanesV unused = hn::Zero(IntLanes());  // on x86 all products are in the first sum
  const auto add = [&](IntLanesV of, IntLanesV sum) {
    return hn::ReorderWidenMulAccumulate(IntLanes(), hn::BitCast(words, of), hn::BitCast(words, in),
                                         sum, unused);
  };
  first = add(w[0], first), second = add(w[1], second);
#endif
#endif
}

// What is left of a type once its rows are words: so many types are one product.
template <size_t kScalesOfGroup, bool kHasOffset>
struct PanelFactors {
  static constexpr size_t kScales = kScalesOfGroup;
  static constexpr bool kOffset = kHasOffset;
};
template <class Tile>
using FactorsOf = PanelFactors<Tile::kScales, Tile::kOffset>;

// Where a strip of a panel and some tokens have the group that is next.
struct StripGroup {
  const int32_t* pairs;           // [kPairs] with kPanelRows between
  const float *scales, *offsets;  // scales with kPanelRows between
  const int16_t* x;               // of the first token
  const float *x_scales, *x_sums;
  size_t groups;  // the distance of two tokens
};

template <size_t kTokens>
using TokenSums = FloatLanesV[kTokens][kVectors];

template <size_t kRun, size_t kTokens, bool kVnni>
HWY_INLINE void add_run(const StripGroup& group, size_t start,
                        IntLanesV (&total)[kTokens][kVectors]) {
  const int32_t* from = group.pairs + start * kPanelRows;
  const int16_t* in = group.x + start * 2;
  const size_t stride = group.groups * kIntegerGroup;
#pragma GCC unroll 2
  for (size_t p = 0; p < kRun; ++p, from += kPanelRows, in += 2) {
    IntLanesV w[kVectors];
    for (size_t v = 0; v < kVectors; ++v) w[v] = hn::Load(IntLanes(), from + v * kLanes);
    for (size_t t = 0; t < kTokens; ++t) {
      add_pairs<kVnni>(in + t * stride, w, total[t][0], total[t][1]);
    }
  }
}

// The part `part` of kScales of a group: with two scales the first 16 elements, or the last; a
// quarter of the pairs each, as even elements come before odd ones.
template <class Factors, size_t kTokens, bool kVnni>
HWY_INLINE void add_part(const StripGroup& group, size_t part, TokenSums<kTokens>& sums) {
  IntLanesV total[kTokens][kVectors];
  for (auto& row : total) {
    for (IntLanesV& sum : row) sum = hn::Zero(IntLanes());
  }
  if constexpr (Factors::kScales == 1) {
    add_run<kPairs, kTokens, kVnni>(group, 0, total);
  } else {
    add_run<kPairs / 4, kTokens, kVnni>(group, part * kPairs / 4, total);
    add_run<kPairs / 4, kTokens, kVnni>(group, (part + 2) * kPairs / 4, total);
  }
  const float* from = group.scales + part * kPanelRows;
  for (size_t t = 0; t < kTokens; ++t) {
    const FloatLanesV x_scale = hn::Set(FloatLanes(), group.x_scales[t * group.groups]);
    for (size_t v = 0; v < kVectors; ++v) {
      const FloatLanesV scale = hn::Load(FloatLanes(), from + v * kLanes);
      const FloatLanesV value = hn::ConvertTo(FloatLanes(), total[t][v]);
      sums[t][v] = hn::MulAdd(value, hn::Mul(scale, x_scale), sums[t][v]);
    }
  }
}

template <size_t kTokens>
HWY_INLINE void add_offsets(const StripGroup& group, TokenSums<kTokens>& sums) {
  for (size_t t = 0; t < kTokens; ++t) {
    const FloatLanesV x_sum = hn::Set(FloatLanes(), group.x_sums[t * group.groups]);
    for (size_t v = 0; v < kVectors; ++v) {
      const FloatLanesV offset = hn::Load(FloatLanes(), group.offsets + v * kLanes);
      sums[t][v] = hn::MulAdd(offset, x_sum, sums[t][v]);
    }
  }
}

HWY_INLINE void store_row(const FloatLanesV (&row)[kVectors], float* to) {
  for (size_t v = 0; v < kVectors; ++v) hn::StoreU(row[v], FloatLanes(), to + v * kLanes);
}

// The rows of y [tokens x rows] from `first`: at most kStripRows, those of the panel from `strip`.
template <class Factors, size_t kTokens, bool kVnni>
void multiply_tile(const Panel& panel, const IntegerRows& x, size_t strip, size_t token,
                   size_t first, View<float> y) {
  FloatLanesV sums[kTokens][kVectors];
  for (auto& row : sums) {
    for (FloatLanesV& sum : row) sum = hn::Zero(FloatLanes());
  }
  StripGroup group{panel.pairs.data() + strip,
                   panel.scales.data() + strip,
                   panel.offsets.data() + strip,
                   x.row(token),
                   x.row_scales(token),
                   x.row_sums(token),
                   x.groups};
  for (size_t g = 0, groups = x.groups; g < groups; ++g) {
    for (size_t part = 0; part < Factors::kScales; ++part) {
      add_part<Factors, kTokens, kVnni>(group, part, sums);
    }
    if constexpr (Factors::kOffset) add_offsets<kTokens>(group, sums);
    group.pairs += kPairs * kPanelRows, group.x += kIntegerGroup;
    group.scales += Factors::kScales * kPanelRows, group.offsets += kPanelRows;
    ++group.x_scales, ++group.x_sums;
  }
  const size_t rows = y.cols - first;
  if (rows >= kStripRows) {
    for (size_t t = 0; t < kTokens; ++t) store_row(sums[t], &y.at(token + t, first));
    return;
  }
  float out[kTokens][kStripRows];
  for (size_t t = 0; t < kTokens; ++t) store_row(sums[t], out[t]);
  for (size_t t = 0; t < kTokens; ++t) std::copy_n(out[t], rows, &y.at(token + t, first));
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

template <class Factors, bool kVnni>
void multiply_panel(const Panel& panel, const IntegerRows& x, size_t first, size_t rows,
                    View<float> y) {
  for (size_t strip = 0; strip < rows; strip += kStripRows) {
    const size_t row = first + strip;
    size_t t = 0;
    for (; t + kTileTokens <= x.tokens; t += kTileTokens) {
      multiply_tile<Factors, kTileTokens, kVnni>(panel, x, strip, t, row, y);
    }
    for (; t + 4 <= x.tokens; t += 4) multiply_tile<Factors, 4, kVnni>(panel, x, strip, t, row, y);
    for (; t + 2 <= x.tokens; t += 2) multiply_tile<Factors, 2, kVnni>(panel, x, strip, t, row, y);
    for (; t < x.tokens; ++t) multiply_tile<Factors, 1, kVnni>(panel, x, strip, t, row, y);
  }
}

void MultiplyIntegerPanel(const IntegerRows& x, const Weight& w, size_t first, View<float> y) {
  thread_local Panel panel;
  panel.reshape(x.groups);
  const size_t rows = std::min(kPanelRows, w.rows - first);
  with_tile(w.type, [&](auto tile) {
    using Tile = decltype(tile);
    unpack_tiles<Tile>(w, first, rows, x.groups, panel);
    constexpr bool kMayHaveVnni = HWY_TARGET == HWY_AVX2;
    if (kMayHaveVnni && has_avx2_vnni()) {
      return multiply_panel<FactorsOf<Tile>, kMayHaveVnni>(panel, x, first, rows, y);
    }
    multiply_panel<FactorsOf<Tile>, false>(panel, x, first, rows, y);
  });
}

#endif  // HWY_TARGET == HWY_SCALAR || !HWY_ARCH_X86_64

}  // namespace HWY_NAMESPACE
}  // namespace mkv
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mkv {
HWY_EXPORT(HasIntegerPanels);
HWY_EXPORT(FewForIntegerPanels);
HWY_EXPORT(MultiplyIntegerPanel);

bool has_integer_panels() { return HWY_DYNAMIC_DISPATCH(HasIntegerPanels)(); }

size_t few_for_integer_panels() { return HWY_DYNAMIC_DISPATCH(FewForIntegerPanels)(); }

void multiply_integer_panel(const IntegerRows& x, const Weight& w, size_t first, View<float> y) {
  MKV_CHECK(x.groups * kIntegerGroup == w.cols && w.cols % info(w.type).block_elements == 0);
  MKV_CHECK(y.cols == w.rows && x.tokens == y.rows && first < w.rows);
  MKV_CHECK(w.layout == Layout::tiles && first % kTileRows == 0);
  HWY_DYNAMIC_DISPATCH(MultiplyIntegerPanel)(x, w, first, y);
}

}  // namespace mkv
#endif  // HWY_ONCE
