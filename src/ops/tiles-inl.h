// The groups of a tile (ops/tiles.h), per target: codes and factors of 16 rows. An element is
// d * (code - kCenter) + m.
#if defined(MKV_OPS_TILES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MKV_OPS_TILES_INL_H_
#undef MKV_OPS_TILES_INL_H_
#else
#define MKV_OPS_TILES_INL_H_
#endif

#include "ops/integer-inl.h"
#include "ops/tiles.h"

HWY_BEFORE_NAMESPACE();
namespace mkv {
namespace HWY_NAMESPACE {

#if HWY_TARGET != HWY_SCALAR

constexpr size_t kQuads = kIntegerGroup / 4;  // of columns, in a group
// A quad of all rows is kParts vectors of bytes.
constexpr size_t kPartRows = kByteLanes / 4, kParts = kTileRows / kPartRows;
constexpr size_t kHalves = kTileRows * 2;  // bytes of a half for each row

// quads(): those numbered 2 * pair and 2 * pair + 1, of a part of the rows.
template <bool kHasMin, int kMiddle>
struct NibbleTile {
  static constexpr size_t kCodes = kHalves * (kHasMin ? 2 : 1), kBytes = kCodes + kTileRows * 16;
  static constexpr size_t kScales = 1;
  static constexpr bool kOffset = kHasMin;
  static constexpr int kCenter = kMiddle;

  HWY_INLINE static void quads(const uint8_t* group, size_t pair, size_t part, ByteV (&out)[2]) {
    const Bytes d;
    const hn::RebindToUnsigned<Words> d16;
    const ByteV mask = hn::Set(d, 15);
    const ByteV both = hn::LoadU(d, group + kCodes + (pair * kParts + part) * kByteLanes);
    out[0] = hn::And(both, mask);
    out[1] = hn::And(hn::BitCast(d, hn::ShiftRight<4>(hn::BitCast(d16, both))), mask);
  }
};

struct ByteTile {
  static constexpr size_t kCodes = kHalves, kBytes = kCodes + kTileRows * kIntegerGroup;
  static constexpr size_t kScales = 1;
  static constexpr bool kOffset = false;
  static constexpr int kCenter = 128;

  HWY_INLINE static void quads(const uint8_t* group, size_t pair, size_t part, ByteV (&out)[2]) {
    for (size_t i = 0; i < 2; ++i) {
      const size_t quad = pair * 2 + i;
      out[i] = hn::LoadU(Bytes(), group + kCodes + (quad * kParts + part) * kByteLanes);
    }
  }
};

// fn(format) of a type that has tiles.
template <class Fn>
HWY_INLINE void with_tile(DType type, const Fn& fn) {
  switch (type) {
    case DType::q4_0:
      return fn(NibbleTile<false, 8>());
    case DType::q4_1:
      return fn(NibbleTile<true, 0>());
    case DType::q8_0:
      return fn(ByteTile());
    default:
      MKV_CHECK(false);
  }
}

#endif  // HWY_TARGET != HWY_SCALAR

}  // namespace HWY_NAMESPACE
}  // namespace mkv
HWY_AFTER_NAMESPACE();

#endif  // MKV_OPS_TILES_INL_H_
