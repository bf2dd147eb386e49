// The blocks of a tile (ops/tiles.h), per target: codes and factors of 16 rows. An element is
// scale * (code - kCenter) + offset.
#if defined(MKV_OPS_TILES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MKV_OPS_TILES_INL_H_
#undef MKV_OPS_TILES_INL_H_
#else
#define MKV_OPS_TILES_INL_H_
#endif

#include "hwy/highway.h"
#include "ops/half-inl.h"
#include "ops/integer_products.h"
#include "ops/tiles.h"

HWY_BEFORE_NAMESPACE();
namespace mkv {
namespace HWY_NAMESPACE {

// One lane has no pairs to add.
#if HWY_TARGET != HWY_SCALAR

using Bytes = hn::CappedTag<uint8_t, kTileRows * 4>;  // a quad of all rows, or of some
using Words = hn::Repartition<int16_t, Bytes>;
using Ints = hn::Repartition<int32_t, Bytes>;
using Floats = hn::Repartition<float, Bytes>;
using ByteV = hn::Vec<Bytes>;
using WordV = hn::Vec<Words>;
using IntV = hn::Vec<Ints>;
using FloatV = hn::Vec<Floats>;
constexpr size_t kByteLanes = hn::MaxLanes(Bytes());

constexpr size_t kQuads = kIntegerGroup / 4;  // of columns, in a group
// A quad of all rows is kParts vectors of bytes.
constexpr size_t kPartRows = kByteLanes / 4, kParts = kTileRows / kPartRows;
constexpr size_t kHalves = kTileRows * 2;  // bytes of a half for each row

// A vector's bytes as words: those with an even index, those with an odd one.
struct WordPair {
  WordV even, odd;
};
HWY_INLINE WordPair to_words(ByteV bytes) {
  const Words d16;
  const hn::RebindToUnsigned<Words> u16;
  const WordV words = hn::BitCast(d16, bytes);
  return {hn::And(words, hn::Set(d16, 0xff)),
          hn::BitCast(d16, hn::ShiftRight<8>(hn::BitCast(u16, words)))};
}

// The codes of a group: nibbles with kTop bits above them. quads(): those numbered 2 * kPair and
// 2 * kPair + 1, of a part of the rows.
template <int kTop>
struct NibbleCodes {
  static constexpr int kBits = 4 + kTop;
  static constexpr size_t kNibbles = kTileRows * kIntegerGroup / 2;
  static constexpr size_t kBytes = kNibbles + kTop * kTileRows * kIntegerGroup / 8;

  template <size_t kPair>
  HWY_INLINE static void quads(const uint8_t* codes, size_t part, ByteV (&out)[2]) {
    const Bytes d;
    const hn::RebindToUnsigned<Words> d16;
    const ByteV mask = hn::Set(d, 15);
    const ByteV both = hn::LoadU(d, codes + (kPair * kParts + part) * kByteLanes);
    out[0] = hn::And(both, mask);
    out[1] = hn::And(hn::BitCast(d, hn::ShiftRight<4>(hn::BitCast(d16, both))), mask);
    if constexpr (kTop > 0) {
      out[0] = with_top<2 * kPair>(codes, part, out[0]);
      out[1] = with_top<2 * kPair + 1>(codes, part, out[1]);
    }
  }
  template <size_t kQuad>
  HWY_INLINE static ByteV with_top(const uint8_t* codes, size_t part, ByteV nibbles) {
    constexpr int kBit = kQuad * kTop, kUp = 4 - kBit % 8;  // to bit 4
    const Bytes d;
    const hn::RebindToUnsigned<Words> d16;
    const uint8_t* from = codes + kNibbles + (kBit / 8 * kParts + part) * kByteLanes;
    auto top = hn::BitCast(d16, hn::LoadU(d, from));
    if constexpr (kUp > 0) top = hn::ShiftLeft<kUp>(top);
    if constexpr (kUp < 0) top = hn::ShiftRight<-kUp>(top);
    constexpr uint8_t kMask = ((1 << kTop) - 1) << 4;
    return hn::OrAnd(nibbles, hn::BitCast(d, top), hn::Set(d, kMask));
  }
};

struct ByteCodes {
  static constexpr int kBits = 8;
  static constexpr size_t kBytes = kTileRows * kIntegerGroup;

  template <size_t kPair>
  HWY_INLINE static void quads(const uint8_t* codes, size_t part, ByteV (&out)[2]) {
    for (size_t i = 0; i < 2; ++i) {
      out[i] = hn::LoadU(Bytes(), codes + ((kPair * 2 + i) * kParts + part) * kByteLanes);
    }
  }
};

// The factors of a block of kGroups groups, of which each has kScales scales (2: one for each half
// of its columns), and an offset if kOffset.
template <bool kHasMin>
struct HalfFactors {
  static constexpr size_t kBytes = kHalves * (kHasMin ? 2 : 1), kGroups = 1, kScales = 1;
  static constexpr bool kOffset = kHasMin;
  const uint8_t* block;

  HWY_INLINE explicit HalfFactors(const uint8_t* from) : block(from) {}
  HWY_INLINE FloatV scale(size_t, size_t, size_t part) const {
    return load_half(Floats(), block + part * kPartRows * 2);
  }
  HWY_INLINE FloatV offset(size_t, size_t part) const {
    return load_half(Floats(), block + kHalves + part * kPartRows * 2);
  }
};

// A part's small integers, times a factor: exact.
template <class T>
HWY_INLINE FloatV times_small(FloatV factor, const T* values) {
  const hn::Rebind<T, Floats> small;
  const IntV integers = hn::PromoteTo(Ints(), hn::LoadU(small, values));
  return hn::Mul(factor, hn::ConvertTo(Floats(), integers));
}

// Q4_K, Q5_K: d and dmin times integers of six bits, unpacked for all rows at once.
struct SixBitFactors {
  static constexpr size_t kBytes = kHalves * 2 + 12 * kTileRows, kGroups = 8, kScales = 1;
  static constexpr bool kOffset = true;
  FloatV d[kParts], min[kParts];
  uint8_t scales[8][kTileRows], mins[8][kTileRows];

  HWY_INLINE explicit SixBitFactors(const uint8_t* block) {
    for (size_t part = 0; part < kParts; ++part) {
      d[part] = load_half(Floats(), block + part * kPartRows * 2);
      min[part] = hn::Neg(load_half(Floats(), block + kHalves + part * kPartRows * 2));
    }
    const hn::FixedTag<uint8_t, kTileRows> rows;
    const auto low6 = hn::Set(rows, 63), low4 = hn::Set(rows, 15);
    for (size_t j = 0; j < 4; ++j) {
      // The first four are the low 6 bits of bytes 0 to 3 and 4 to 7; the last four have their low
      // 4 bits in the nibbles of bytes 8 to 11, and their high 2 bits on top of bytes 0 to 7.
      const uint8_t* packed = block + 2 * kHalves + j * kTileRows;
      const auto first = hn::LoadU(rows, packed), second = hn::LoadU(rows, packed + 4 * kTileRows);
      const auto third = hn::LoadU(rows, packed + 8 * kTileRows);
      hn::StoreU(hn::And(first, low6), rows, scales[j]);
      hn::StoreU(hn::And(second, low6), rows, mins[j]);
      const auto top = hn::Set(rows, 0x30);
      hn::StoreU(hn::OrAnd(hn::And(third, low4), hn::ShiftRight<2>(first), top), rows,
                 scales[4 + j]);
      hn::StoreU(hn::OrAnd(hn::ShiftRight<4>(third), hn::ShiftRight<2>(second), top), rows,
                 mins[4 + j]);
    }
  }
  HWY_INLINE FloatV scale(size_t group, size_t, size_t part) const {
    return times_small(d[part], scales[group] + part * kPartRows);
  }
  HWY_INLINE FloatV offset(size_t group, size_t part) const {
    return times_small(min[part], mins[group] + part * kPartRows);
  }
};

// Q6_K: d times signed bytes.
struct ByteFactors {
  static constexpr size_t kBytes = kHalves + 16 * kTileRows, kGroups = 8, kScales = 2;
  static constexpr bool kOffset = false;
  FloatV d[kParts];
  const int8_t* scales;

  HWY_INLINE explicit ByteFactors(const uint8_t* block)
      : scales(reinterpret_cast<const int8_t*>(block + kHalves)) {
    for (size_t part = 0; part < kParts; ++part) {
      d[part] = load_half(Floats(), block + part * kPartRows * 2);
    }
  }
  HWY_INLINE FloatV scale(size_t group, size_t half, size_t part) const {
    return times_small(d[part], scales + (group * 2 + half) * kTileRows + part * kPartRows);
  }
};

template <class FactorsOfBlock, class CodesOfGroup, int kMiddle>
struct TileFormat {
  using Factors = FactorsOfBlock;
  using Codes = CodesOfGroup;
  static constexpr size_t kGroups = Factors::kGroups, kScales = Factors::kScales;
  static constexpr size_t kBytes = Factors::kBytes + kGroups * Codes::kBytes;  // of a block
  static constexpr bool kOffset = Factors::kOffset;
  static constexpr int kCenter = kMiddle, kCenterShift = 0;  // kCenter / 2^kCenterShift

  HWY_INLINE static const uint8_t* codes(const uint8_t* block, size_t group) {
    return block + Factors::kBytes + group * Codes::kBytes;
  }
};

// fn(format) of a type that has tiles.
template <class Fn>
HWY_INLINE void with_tile(DType type, const Fn& fn) {
  switch (type) {
    case DType::q4_0:
      return fn(TileFormat<HalfFactors<false>, NibbleCodes<0>, 8>());
    case DType::q4_1:
      return fn(TileFormat<HalfFactors<true>, NibbleCodes<0>, 0>());
    case DType::q5_0:
      return fn(TileFormat<HalfFactors<false>, NibbleCodes<1>, 16>());
    case DType::q5_1:
      return fn(TileFormat<HalfFactors<true>, NibbleCodes<1>, 0>());
    case DType::q8_0:
      return fn(TileFormat<HalfFactors<false>, ByteCodes, 128>());
    case DType::q4_k:
      return fn(TileFormat<SixBitFactors, NibbleCodes<0>, 0>());
    case DType::q5_k:
      return fn(TileFormat<SixBitFactors, NibbleCodes<1>, 0>());
    case DType::q6_k:
      return fn(TileFormat<ByteFactors, NibbleCodes<2>, 32>());
    default:
      MKV_CHECK(false);
  }
}

#endif  // HWY_TARGET != HWY_SCALAR

}  // namespace HWY_NAMESPACE
}  // namespace mkv
HWY_AFTER_NAMESPACE();

#endif  // MKV_OPS_TILES_INL_H_
