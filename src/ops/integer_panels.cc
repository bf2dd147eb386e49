// Integer products for many tokens, on x86: rows of a weight lie beside each other in a vector,
// unpacked to words once for all tokens.
#include <algorithm>
#include <limits>

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
size_t IntegerPanelRows() { return 0; }
void MultiplyIntegerPanel(const WordRows&, const Weight&, size_t, View<float>) { MKV_CHECK(false); }

#else

using IntLanes = hn::CappedTag<int32_t, 16>;
using FloatLanes = hn::CappedTag<float, 16>;
constexpr size_t kLanes = hn::MaxLanes(IntLanes());             // rows of a vector
constexpr size_t kVectors = 2, kStripRows = kVectors * kLanes;  // rows that go together
constexpr size_t kPanelRows = std::max(kStripRows, kTileRows);
constexpr size_t kPairs = kIntegerGroup / 2;  // of words: what a lane multiplies at once
constexpr size_t kTileTokens = 6;             // 2 x 6 sums of integers: of 16 registers
// Rows that are nowhere larger are taken for zeros: 1 / scale would not be finite.
constexpr float kSmallestRow = 0x1p-100f;
using IntLanesV = hn::Vec<IntLanes>;
using FloatLanesV = hn::Vec<FloatLanes>;

// With AVX-512 but no VNNI two instructions multiply and add 32 words, and so many floats.
bool HasIntegerPanels() { return HWY_TARGET != HWY_AVX3 || has_vnni(); }
// Tiles gain more by VNNI than panels do (bench/README.md).
size_t FewForIntegerPanels() { return has_vnni() || has_avx2_vnni() ? 24 : 6; }
size_t IntegerPanelRows() { return kPanelRows; }

// Rows of a weight as words, [strip][group][pair][row of the strip] with the two words of a pair
// beside each other, and what one of their words is worth [row]. Kept by each thread for the next
// panel; never given back.
struct Panel {
  Buffer<int32_t> pairs;  // [groups x kPairs x kPanelRows]
  float scales[kPanelRows];
  Buffer<float> factors;  // of a tile, [groups x (scales, offset) x kTileRows]

  void reshape(size_t groups) {
    const auto grow = [](auto& buffer, size_t size) {
      buffer.resize(std::max(buffer.size(), size));
    };
    grow(pairs, groups * kPairs * kPanelRows);
    grow(factors, groups * 2 * kTileRows);
  }
  int32_t* group(size_t row, size_t g, size_t groups) {
    const size_t strip = row / kStripRows;
    return &pairs[(strip * groups + g) * kPairs * kStripRows + row % kStripRows];
  }
};

// Codes become words by one rounded multiplication, (a * b) >> 15, so they are moved up as far as
// words go.
template <class Tile>
constexpr int kCodeShift = (Tile::kCenter == 0 ? 15 : 16) - Tile::Codes::kBits;
template <class Tile>
constexpr size_t kFactors = Tile::kScales + (Tile::kOffset ? 1 : 0);  // of a row and group

// A lane's number in both of its words.
HWY_INLINE WordV both_words(FloatV value) {
  const IntV rounded = hn::NearestInt(value);
  const IntV low = hn::And(rounded, hn::Set(Ints(), 0xffff));
  return hn::BitCast(Words(), hn::Or(low, hn::ShiftLeft<16>(rounded)));
}

// What makes words of a group's codes: of the first half of the columns, of the last.
struct WordFactors {
  WordV scale[2], offset;
};

// The pairs of quads kPair ... of a group, of a part of the rows; to: the group's first pair.
template <class Tile, size_t kPair = 0>
HWY_INLINE void unpack_quads(const uint8_t* codes, size_t part, const WordFactors& factors,
                             int32_t* to) {
  constexpr int kShift = kCodeShift<Tile>;
  ByteV quads[2];
  Tile::Codes::template quads<kPair>(codes, part, quads);
  const auto store = [&](WordV code, int32_t* at) HWY_ATTR {
    if constexpr (Tile::kCenter != 0) {
      code = hn::Sub(code, hn::Set(Words(), static_cast<int16_t>(Tile::kCenter << kShift)));
    }
    WordV word = hn::MulFixedPoint15(code, factors.scale[kPair / (kQuads / 4)]);
    if constexpr (Tile::kOffset) word = hn::Add(word, factors.offset);
    hn::StoreU(hn::BitCast(Ints(), word), Ints(), at);
  };
  for (size_t i = 0; i < 2; ++i) {
    const WordV words = hn::BitCast(Words(), quads[i]);
    const WordV odd = hn::And(words, hn::Set(Words(), static_cast<int16_t>(0xff00)));
    int32_t* even = to + (kPair * 2 + i) * kStripRows;
    store(hn::ShiftLeft<kShift>(words), even);  // moves the odd byte out
    store(hn::ShiftLeft<kShift - 8>(odd), even + kQuads * kStripRows);
  }
  if constexpr (kPair + 1 < kQuads / 2) unpack_quads<Tile, kPair + 1>(codes, part, factors, to);
}

// The factors of a tile's groups, and for each row the bits of the largest value they allow.
template <class Tile>
HWY_INLINE void read_factors(const uint8_t* block, size_t groups, float* to,
                             IntV (&largest)[kParts]) {
  constexpr float kLow = -Tile::kCenter, kHigh = (1 << Tile::Codes::kBits) - 1 - Tile::kCenter;
  for (IntV& bits : largest) bits = hn::Zero(Ints());
  for (size_t first = 0; first < groups; first += Tile::kGroups, block += Tile::kBytes) {
    const typename Tile::Factors factors(block);
    for (size_t i = 0; i < Tile::kGroups; ++i, to += kFactors<Tile> * kTileRows) {
      for (size_t part = 0; part < kParts; ++part) {
        float* at = to + part * kPartRows;
        FloatV offset = hn::Zero(Floats());
        if constexpr (Tile::kOffset) {
          offset = factors.offset(i, part);
          hn::StoreU(offset, Floats(), at + Tile::kScales * kTileRows);
        }
        for (size_t half = 0; half < Tile::kScales; ++half) {
          const FloatV scale = factors.scale(i, half, part);
          hn::StoreU(scale, Floats(), at + half * kTileRows);
          for (const float code : {kLow, kHigh}) {
            const FloatV value = hn::Abs(hn::MulAdd(scale, hn::Set(Floats(), code), offset));
            largest[part] = hn::Max(largest[part], hn::BitCast(Ints(), value));
          }
        }
      }
    }
  }
}

// A tile of the weight to the rows from `row` of the panel.
template <class Tile>
void unpack_tile(const uint8_t* block, size_t groups, size_t row, Panel& panel) {
  const Floats d;
  IntV largest[kParts];
  read_factors<Tile>(block, groups, panel.factors.data(), largest);
  FloatV inverse[kParts];
  for (size_t part = 0; part < kParts; ++part) {
    const FloatV top = hn::BitCast(d, largest[part]);
    const auto finite = hn::Le(top, hn::Set(d, std::numeric_limits<float>::max()));
    const FloatV step = hn::Mul(top, hn::Set(d, 1.0f / kLargestWeightWord));
    const FloatV none = hn::Set(d, std::numeric_limits<float>::quiet_NaN());
    hn::StoreU(hn::IfThenElse(finite, step, none), d, panel.scales + row + part * kPartRows);
    const auto some = hn::And(finite, hn::Gt(top, hn::Set(d, kSmallestRow)));
    inverse[part] = hn::IfThenElseZero(some, hn::Div(hn::Set(d, kLargestWeightWord), top));
  }
  constexpr float kOfCodes = 1 << (15 - kCodeShift<Tile>);
  const float* from = panel.factors.data();
  for (size_t first = 0; first < groups; first += Tile::kGroups, block += Tile::kBytes) {
    for (size_t i = 0; i < Tile::kGroups; ++i, from += kFactors<Tile> * kTileRows) {
      for (size_t part = 0; part < kParts; ++part) {
        const float* at = from + part * kPartRows;
        const FloatV factor = hn::Mul(inverse[part], hn::Set(d, kOfCodes));
        WordFactors words{};
        for (size_t half = 0; half < 2; ++half) {
          const float* scale = at + half * (Tile::kScales - 1) * kTileRows;
          words.scale[half] = both_words(hn::Mul(hn::LoadU(d, scale), factor));
        }
        if constexpr (Tile::kOffset) {
          const FloatV offset = hn::LoadU(d, at + Tile::kScales * kTileRows);
          words.offset = both_words(hn::Mul(offset, inverse[part]));
        }
        int32_t* to = panel.group(row + part * kPartRows, first + i, groups);
        unpack_quads<Tile>(Tile::codes(block, i), part, words, to);
      }
    }
  }
}

// Rows that the weight does not have.
void clear_rows(size_t groups, size_t row, Panel& panel) {
  for (size_t i = 0; i < groups; ++i) {
    for (size_t r = row; r < kPanelRows; ++r) {
      int32_t* pair = panel.group(r, i, groups);
      for (size_t p = 0; p < kPairs; ++p) pair[p * kStripRows] = 0;
    }
  }
  std::fill(panel.scales + row, panel.scales + kPanelRows, 0.0f);
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

// A run of groups, `pairs` of words: their sums stay integers.
template <size_t kTokens, bool kVnni>
HWY_INLINE void add_run(const int32_t* from, const int16_t* x, size_t stride, size_t pairs,
                        const float* x_scale, size_t runs, TokenSums<kTokens>& sums) {
  IntLanesV total[kTokens][kVectors], w[kVectors];
  const auto load = [&] HWY_ATTR {
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
    const FloatLanesV scale = hn::Set(FloatLanes(), x_scale[t * runs]);
    for (size_t v = 0; v < kVectors; ++v) {
      sums[t][v] = hn::MulAdd(hn::ConvertTo(FloatLanes(), total[t][v]), scale, sums[t][v]);
    }
  }
}

HWY_INLINE void store_row(const FloatLanesV (&row)[kVectors], float* to) {
  for (size_t v = 0; v < kVectors; ++v) hn::StoreU(row[v], FloatLanes(), to + v * kLanes);
}

// The rows of y [tokens x rows] from `first`: at most kStripRows, those of the panel from `strip`.
template <size_t kTokens, bool kVnni>
void multiply_tile(const Panel& panel, const WordRows& x, size_t strip, size_t token, size_t first,
                   View<float> y) {
  FloatLanesV sums[kTokens][kVectors];
  for (auto& row : sums) {
    for (FloatLanesV& sum : row) sum = hn::Zero(FloatLanes());
  }
  const int32_t* from = panel.pairs.data() + strip * x.groups * kPairs;
  const int16_t* in = x.row(token);
  const float* scales = x.row_scales(token);
  const size_t runs = x.runs(), pairs = x.together * kPairs, stride = x.groups * kIntegerGroup;
  for (size_t r = 0; r < runs; ++r, from += pairs * kStripRows, in += pairs * 2) {
    add_run<kTokens, kVnni>(from, in, stride, pairs, scales + r, runs, sums);
  }
  for (size_t v = 0; v < kVectors; ++v) {
    const FloatLanesV scale = hn::LoadU(FloatLanes(), panel.scales + strip + v * kLanes);
    for (size_t t = 0; t < kTokens; ++t) sums[t][v] = hn::Mul(sums[t][v], scale);
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
  size_t r = 0;
  for (; r < rows; r += kTileRows) {
    const std::byte* tile = w.tile((first + r) / kTileRows);
    unpack_tile<Tile>(reinterpret_cast<const uint8_t*>(tile), groups, r, panel);
  }
  if (r < kPanelRows) clear_rows(groups, r, panel);
}

template <bool kVnni>
void multiply_panel(const Panel& panel, const WordRows& x, size_t first, size_t rows,
                    View<float> y) {
  for (size_t strip = 0; strip < rows; strip += kStripRows) {
    const size_t row = first + strip;
    size_t t = 0;
    for (; t + kTileTokens <= x.tokens; t += kTileTokens) {
      multiply_tile<kTileTokens, kVnni>(panel, x, strip, t, row, y);
    }
    for (; t + 4 <= x.tokens; t += 4) multiply_tile<4, kVnni>(panel, x, strip, t, row, y);
    for (; t + 2 <= x.tokens; t += 2) multiply_tile<2, kVnni>(panel, x, strip, t, row, y);
    for (; t < x.tokens; ++t) multiply_tile<1, kVnni>(panel, x, strip, t, row, y);
  }
}

void MultiplyIntegerPanel(const WordRows& x, const Weight& w, size_t first, View<float> y) {
  thread_local Panel panel;
  panel.reshape(x.groups);
  const size_t rows = std::min(kPanelRows, w.rows - first);
  with_tile(w.type,
            [&](auto tile) { unpack_tiles<decltype(tile)>(w, first, rows, x.groups, panel); });
  constexpr bool kMayHaveVnni = HWY_TARGET == HWY_AVX2;
  if (kMayHaveVnni && has_avx2_vnni()) {
    return multiply_panel<kMayHaveVnni>(panel, x, first, rows, y);
  }
  multiply_panel<false>(panel, x, first, rows, y);
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
HWY_EXPORT(MultiplyIntegerPanel);

bool has_integer_panels() { return HWY_DYNAMIC_DISPATCH(HasIntegerPanels)(); }

size_t few_for_integer_panels() { return HWY_DYNAMIC_DISPATCH(FewForIntegerPanels)(); }
size_t integer_panel_rows() { return HWY_DYNAMIC_DISPATCH(IntegerPanelRows)(); }

void multiply_integer_panel(const WordRows& x, const Weight& w, size_t first, View<float> y) {
  MKV_CHECK(x.groups * kIntegerGroup == w.cols && w.cols % info(w.type).block_elements == 0);
  MKV_CHECK(y.cols == w.rows && x.tokens == y.rows && first < w.rows);
  MKV_CHECK(w.layout == Layout::tiles && first % kTileRows == 0);
  HWY_DYNAMIC_DISPATCH(MultiplyIntegerPanel)(x, w, first, y);
}

}  // namespace mkv
#endif  // HWY_ONCE
