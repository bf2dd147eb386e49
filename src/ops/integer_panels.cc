// Integer products for many tokens, on x86: rows of a weight lie beside each other in a vector,
// unpacked to words once for all tokens.
#include <algorithm>

#include "base/prefetch.h"
#include "ops/instruction_set.h"
#include "ops/integer_products.h"
#include "ops/word_pairs.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/integer_panels.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.h.
#include "hwy/highway.h"
#include "ops/panels-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mkv {
namespace HWY_NAMESPACE {

#if HWY_TARGET == HWY_SCALAR || !HWY_ARCH_X86_64

bool HasIntegerPanels() { return false; }
size_t FewForIntegerPanels() { return 0; }
size_t IntegerPanelRows() { return 0; }
void MultiplyPanel(const WordsView&, const Weight&, size_t, View<float>) { MKV_CHECK(false); }

#else

using IntLanesV = hn::Vec<IntLanes>;
using FloatLanesV = hn::Vec<FloatLanes>;
constexpr size_t kTileTokens = 6;  // 2 x 6 sums of integers: of 16 registers

// With AVX-512 but no VNNI two instructions multiply and add 32 words, and so many floats.
bool HasIntegerPanels() { return HWY_TARGET != HWY_AVX3 || has_vnni(); }
// Tiles gain more by VNNI than panels do (bench/README.md).
size_t FewForIntegerPanels() { return has_vnni() || has_avx2_vnni() ? 24 : 6; }
size_t IntegerPanelRows() { return kPanelRows; }

// first and second += the pair of words at x, in every lane, times w.
template <bool kVnni>
HWY_INLINE void add_pairs(const int16_t* x, const IntLanesV (&w)[kVectors], IntLanesV& first,
                          IntLanesV& second) {
#if HWY_TARGET == HWY_AVX2
  add_products_of_words<kVnni>(x, w[0].raw, w[1].raw, first.raw, second.raw);
#else
  using Pair [[gnu::may_alias]] = int32_t;
  const IntLanesV in = hn::Set(IntLanes(), *reinterpret_cast<const Pair*>(x));
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

// The sums of a pair alone, which start a run.
template <bool kVnni>
HWY_INLINE void start_pairs(const int16_t* x, const IntLanesV (&w)[kVectors], IntLanesV& first,
                            IntLanesV& second) {
#if HWY_TARGET == HWY_AVX2
  if constexpr (!kVnni) return multiply_word_pairs(x, w[0].raw, w[1].raw, first.raw, second.raw);
#endif
  first = hn::Zero(IntLanes()), second = hn::Zero(IntLanes());
  add_pairs<kVnni>(x, w, first, second);
}

template <size_t kTokens>
using TokenSums = FloatLanesV[kTokens][kVectors];

// A run of groups, `pairs` of words: their sums stay integers. scale: of exact words.
template <size_t kTokens, bool kVnni, bool kExact>
HWY_INLINE void add_run(const int32_t* from, const int16_t* x, size_t stride, size_t pairs,
                        const float* x_scale, size_t runs, const float* scale,
                        TokenSums<kTokens>& sums) {
  IntLanesV total[kTokens][kVectors], w[kVectors];
  const auto load = [&]() HWY_ATTR {
    for (size_t v = 0; v < kVectors; ++v) w[v] = hn::Load(IntLanes(), from + v * kLanes);
  };
  load();
  for (size_t t = 0; t < kTokens; ++t) {
    start_pairs<kVnni>(x + t * stride, w, total[t][0], total[t][1]);
  }
#pragma GCC unroll 2
  for (size_t p = 1; p < pairs; ++p) {
    from += kStripRows, x += 2;
    load();
    for (size_t t = 0; t < kTokens; ++t) {
      add_pairs<kVnni>(x + t * stride, w, total[t][0], total[t][1]);
    }
  }
  for (size_t t = 0; t < kTokens; ++t) {
    const FloatLanesV of_token = hn::Set(FloatLanes(), x_scale[t * runs]);
    for (size_t v = 0; v < kVectors; ++v) {
      FloatLanesV factor = of_token;
      if constexpr (kExact) {
        factor = hn::Mul(hn::LoadU(FloatLanes(), scale + v * kLanes), of_token);
      }
      sums[t][v] = hn::MulAdd(hn::ConvertTo(FloatLanes(), total[t][v]), factor, sums[t][v]);
    }
  }
}

HWY_INLINE void store_row(const FloatLanesV (&row)[kVectors], float* to) {
  for (size_t v = 0; v < kVectors; ++v) hn::StoreU(row[v], FloatLanes(), to + v * kLanes);
}

// The rows of y [tokens x rows] from `first`: at most kStripRows, those of the panel from `strip`.
template <size_t kTokens, bool kVnni, bool kExact>
void multiply_tile(const Panel& panel, const WordsView& x, size_t strip, size_t token, size_t first,
                   View<float> y) {
  const size_t rows = y.cols - first;
  if (rows >= kStripRows) {
    constexpr size_t kBytes = kStripRows * sizeof(float);
    for (size_t t = 0; t < kTokens; ++t) prefetch_to_write(&y.at(token + t, first), kBytes);
  }
  FloatLanesV sums[kTokens][kVectors];
  for (auto& row : sums) {
    for (FloatLanesV& sum : row) sum = hn::Zero(FloatLanes());
  }
  const int32_t* from = panel.pairs.data() + strip * x.groups * kPairs;
  const int16_t* in = x.row(token);
  const float* scales = x.row_scales(token);
  const size_t runs = x.runs(), pairs = x.together * kPairs, stride = x.groups * kIntegerGroup;
  for (size_t r = 0; r < runs; ++r, from += pairs * kStripRows, in += pairs * 2) {
    const float* scale = panel.scales.data() + (r * kPanelRows + strip);
    add_run<kTokens, kVnni, kExact>(from, in, stride, pairs, scales + r, runs, scale, sums);
  }
  for (size_t v = 0; v < kVectors && !kExact; ++v) {
    const FloatLanesV scale = hn::LoadU(FloatLanes(), panel.scales.data() + strip + v * kLanes);
    for (size_t t = 0; t < kTokens; ++t) sums[t][v] = hn::Mul(sums[t][v], scale);
  }
  if (rows >= kStripRows) {
    for (size_t t = 0; t < kTokens; ++t) store_row(sums[t], &y.at(token + t, first));
    return;
  }
  float out[kTokens][kStripRows];
  for (size_t t = 0; t < kTokens; ++t) store_row(sums[t], out[t]);
  for (size_t t = 0; t < kTokens; ++t) std::copy_n(out[t], rows, &y.at(token + t, first));
}

// ahead: what is unpacked next, maybe.
template <bool kVnni, bool kExact>
void multiply_panel(const Panel& panel, const WordsView& x, size_t first, size_t rows,
                    std::span<const uint8_t> ahead, View<float> y) {
  Prefetcher prefetcher(ahead, x.tokens / kTileTokens);
  for (size_t strip = 0; strip < rows; strip += kStripRows) {
    const size_t row = first + strip;
    size_t t = 0;
    for (; t + kTileTokens <= x.tokens; t += kTileTokens) {
      prefetcher.step();
      multiply_tile<kTileTokens, kVnni, kExact>(panel, x, strip, t, row, y);
    }
    for (; t + 4 <= x.tokens; t += 4) {
      multiply_tile<4, kVnni, kExact>(panel, x, strip, t, row, y);
    }
    for (; t + 2 <= x.tokens; t += 2) {
      multiply_tile<2, kVnni, kExact>(panel, x, strip, t, row, y);
    }
    for (; t < x.tokens; ++t) multiply_tile<1, kVnni, kExact>(panel, x, strip, t, row, y);
  }
}

template <bool kExact>
void multiply_panel(const Panel& panel, const WordsView& x, size_t first, size_t rows,
                    std::span<const uint8_t> ahead, View<float> y) {
  constexpr bool kMayHaveVnni = HWY_TARGET == HWY_AVX2;
  if (kMayHaveVnni && has_avx2_vnni()) {
    return multiply_panel<kMayHaveVnni, kExact>(panel, x, first, rows, ahead, y);
  }
  multiply_panel<false, kExact>(panel, x, first, rows, ahead, y);
}

// The tiles of a panel, none after the last row.
std::span<const uint8_t> panel_at(const Weight& w, size_t first) {
  if (first >= w.rows || w.layout != Layout::tiles) return {};
  const size_t tile = first / kTileRows, end = std::min(w.tiles(), tile + kPanelRows / kTileRows);
  const auto* data = reinterpret_cast<const uint8_t*>(w.tile(tile));
  return {data, static_cast<size_t>(w.tile(end) - w.tile(tile))};
}

void MultiplyPanel(const WordsView& x, const Weight& w, size_t first, View<float> y) {
  thread_local Panel panel;
  panel.reshape(x.groups);
  const size_t rows = std::min(kPanelRows, w.rows - first);
  bool exact = false;
  with_tile(w.type, [&](auto tile) {
    exact = kExactWords<decltype(tile)>;
    unpack_tiles<decltype(tile)>(w, first, rows, x.groups, panel);
  });
  MKV_CHECK(exact == has_exact_words(w.type));
  const std::span<const uint8_t> ahead = panel_at(w, first + rows);
  if (exact) return multiply_panel<true>(panel, x, first, rows, ahead, y);
  multiply_panel<false>(panel, x, first, rows, ahead, y);
}

#endif  // HWY_TARGET == HWY_SCALAR || !HWY_ARCH_X86_64

}  // namespace HWY_NAMESPACE
}  // namespace mkv
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mkv {
HWY_EXPORT(HasIntegerPanels);
HWY_EXPORT(FewForIntegerPanels);
HWY_EXPORT(IntegerPanelRows);
HWY_EXPORT(MultiplyPanel);

bool has_integer_panels() { return HWY_DYNAMIC_DISPATCH(HasIntegerPanels)(); }

size_t few_for_integer_panels() { return HWY_DYNAMIC_DISPATCH(FewForIntegerPanels)(); }
size_t integer_panel_rows() { return HWY_DYNAMIC_DISPATCH(IntegerPanelRows)(); }

namespace {
void multiply_panel(const WordsView& x, const Weight& w, size_t first, View<float> y) {
  MKV_CHECK(x.groups * kIntegerGroup == w.cols && w.cols % info(w.type).block_elements == 0);
  MKV_CHECK(y.cols == w.rows && x.tokens == y.rows && first < w.rows);
  MKV_CHECK(w.layout != Layout::rows && first % kTileRows == 0);
  HWY_DYNAMIC_DISPATCH(MultiplyPanel)(x, w, first, y);
}
}  // namespace

bool has_exact_words(DType type) { return type == DType::q8_0; }

void multiply_exact_panel(const IntegerRows& x, const Weight& w, size_t first, View<float> y) {
  MKV_CHECK(has_exact_words(w.type));
  multiply_panel(x.words(), w, first, y);
}

void multiply_word_panel(const WordRows& x, const Weight& w, size_t first, View<float> y) {
  MKV_CHECK(!has_exact_words(w.type));
  multiply_panel(x.words(), w, first, y);
}

}  // namespace mkv
#endif  // HWY_ONCE
