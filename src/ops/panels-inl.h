// Rows of a weight unpacked from tiles to words, once for many tokens, per target.
#if defined(MKV_OPS_PANELS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MKV_OPS_PANELS_INL_H_
#undef MKV_OPS_PANELS_INL_H_
#else
#define MKV_OPS_PANELS_INL_H_
#endif

#include <algorithm>
#include <limits>

#include "base/buffer.h"
#include "hwy/cache_control.h"
#include "hwy/highway.h"
#include "ops/integer_products.h"
#include "ops/planes.h"
#include "ops/tiles-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mkv {
namespace HWY_NAMESPACE {

#if HWY_TARGET != HWY_SCALAR && HWY_ARCH_X86_64

using IntLanes = hn::CappedTag<int32_t, 16>;
using FloatLanes = hn::CappedTag<float, 16>;
constexpr size_t kLanes = hn::MaxLanes(IntLanes());             // rows of a vector
constexpr size_t kVectors = 2, kStripRows = kVectors * kLanes;  // rows that go together
constexpr size_t kPanelRows = std::max(kStripRows, kTileRows);
constexpr size_t kPairs = kIntegerGroup / 2;  // of words: what a lane multiplies at once
// Rows that are nowhere larger are taken for zeros: 1 / scale would not be finite.
constexpr float kSmallestRow = 0x1p-100f;

// Rows of a weight as words, [strip][group][pair][row of the strip] with the two words of a pair
// beside each other, and what one of their words is worth: [row], or of exact words [group][row].
// Kept by each thread for the next panel; never given back.
struct Panel {
  Buffer<int32_t> pairs;  // [groups x kPairs x kPanelRows]
  Buffer<float> scales;   // [groups x kPanelRows] at most
  Buffer<float> factors;  // of a tile, [groups x (scales, offset) x kTileRows]

  void reshape(size_t groups) {
    const auto grow = [](auto& buffer, size_t size) {
      buffer.resize(std::max(buffer.size(), size));
    };
    grow(pairs, groups * kPairs * kPanelRows);
    grow(scales, groups * kPanelRows);
    grow(factors, groups * 2 * kTileRows);
  }
  int32_t* group(size_t row, size_t g, size_t groups) {
    const size_t strip = row / kStripRows;
    return &pairs[(strip * groups + g) * kPairs * kStripRows + row % kStripRows];
  }
};

// Words that are the codes themselves, less their center.
template <class Tile>
constexpr bool kExactWords = Tile::Codes::kBits == 8;

// Other codes become words by one rounded multiplication, (a * b) >> 15, so they are moved up as
// far as words go.
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

// The same for exact words.
template <class Tile, size_t kPair = 0>
HWY_INLINE void unpack_exact_quads(const uint8_t* codes, size_t part, int32_t* to) {
  ByteV quads[2];
  Tile::Codes::template quads<kPair>(codes, part, quads);
  const WordV center = hn::Set(Words(), Tile::kCenter);
  for (size_t i = 0; i < 2; ++i) {
    const WordPair words = to_words(quads[i]);
    int32_t* even = to + (kPair * 2 + i) * kStripRows;
    hn::StoreU(hn::BitCast(Ints(), hn::Sub(words.even, center)), Ints(), even);
    hn::StoreU(hn::BitCast(Ints(), hn::Sub(words.odd, center)), Ints(), even + kQuads * kStripRows);
  }
  if constexpr (kPair + 1 < kQuads / 2) unpack_exact_quads<Tile, kPair + 1>(codes, part, to);
}

template <class Tile>
void unpack_exact_tile(const uint8_t* block, size_t groups, size_t row, Panel& panel) {
  static_assert(Tile::kGroups == 1 && Tile::kScales == 1 && !Tile::kOffset);
  for (size_t g = 0; g < groups; ++g, block += Tile::kBytes) {
    const typename Tile::Factors factors(block);
    for (size_t part = 0; part < kParts; ++part) {
      const size_t at = row + part * kPartRows;
      hn::StoreU(factors.scale(0, 0, part), Floats(), &panel.scales[g * kPanelRows + at]);
      unpack_exact_quads<Tile>(Tile::codes(block, 0), part, panel.group(at, g, groups));
    }
  }
}

// Bytes of a tile that are asked of the memory before they are read.
constexpr size_t kAhead = 2048;

// The factors of a tile's groups, and for each row the bits of the largest value they allow.
template <class Tile>
HWY_INLINE void read_factors(const uint8_t* block, size_t groups, float* to,
                             IntV (&largest)[kParts]) {
  constexpr float kLow = -Tile::kCenter, kHigh = (1 << Tile::Codes::kBits) - 1 - Tile::kCenter;
  for (IntV& bits : largest) bits = hn::Zero(Ints());
  for (size_t first = 0; first < groups; first += Tile::kGroups, block += Tile::kBytes) {
    // Codes as well, which are read once all factors are.
    for (size_t i = 0; i < Tile::kBytes; i += 64) hwy::Prefetch(block + kAhead + i);
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
    hn::StoreU(hn::IfThenElse(finite, step, none), d, &panel.scales[row + part * kPartRows]);
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
  for (size_t r = row; r < kPanelRows; ++r) {
    for (size_t i = 0; i < groups; ++i) panel.scales[i * kPanelRows + r] = 0.0f;
  }
}

template <class Tile>
void unpack_tiles(const Weight& w, size_t first, size_t rows, size_t groups, Panel& panel) {
  size_t r = 0;
  for (; r < rows; r += kTileRows) {
    const auto* tile = reinterpret_cast<const uint8_t*>(whole_tile(w, (first + r) / kTileRows));
    if constexpr (kExactWords<Tile>) {
      unpack_exact_tile<Tile>(tile, groups, r, panel);
    } else {
      unpack_tile<Tile>(tile, groups, r, panel);
    }
  }
  if (r < kPanelRows) clear_rows(groups, r, panel);
}

#endif  // HWY_TARGET != HWY_SCALAR && HWY_ARCH_X86_64

}  // namespace HWY_NAMESPACE
}  // namespace mkv
HWY_AFTER_NAMESPACE();

#endif  // MKV_OPS_PANELS_INL_H_
