// Decoders of weight blocks, per target: each turns 32 neighbouring elements of a row into float32
// vectors in registers. dequantize_row stores them, the mat-vec multiplies them at once.
//
// A decoder has kBytes and kGroups (of 32 elements) a block, is made from a block's address, and
// its decode<group>(out) fills out[kVectors]. kPlain: the type has no blocks, 32 elements are only
// our step, and a row may end inside one. Quants are widened to int32 before they are masked and
// shifted: vectors of n bytes come from memory for free, while byte shifts and cross-lane moves do
// not. Layouts: ggml, see README.md. All values are exact but for the rounding of the last sum.
#if defined(MKV_OPS_DECODE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MKV_OPS_DECODE_INL_H_
#undef MKV_OPS_DECODE_INL_H_
#else
#define MKV_OPS_DECODE_INL_H_
#endif

#include <cstring>

#include "hwy/highway.h"
#include "ops/half-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mkv {
namespace HWY_NAMESPACE {

constexpr size_t kGroupElements = 32;
using Group32 = hn::CappedTag<float, 16>;  // 16: the shortest run with one scale (Q6_K)
using GroupInt = hn::Rebind<int32_t, Group32>;
using GroupV = hn::Vec<Group32>;
using GroupIntV = hn::Vec<GroupInt>;
constexpr size_t kLanes = hn::MaxLanes(Group32());
constexpr size_t kVectors = kGroupElements / kLanes;  // of a group

HWY_INLINE GroupV broadcast_half(const uint8_t* p) {
  return hn::Set(Group32(), hn::GetLane(load_half(hn::CappedTag<float, 1>(), p)));
}
// Lanes bytes at p, as integers.
HWY_INLINE GroupIntV load_bytes(const uint8_t* p) {
  const hn::Rebind<uint8_t, Group32> d8;
  return hn::PromoteTo(GroupInt(), hn::LoadU(d8, p));
}
HWY_INLINE GroupIntV load_signed_bytes(const uint8_t* p) {
  const hn::Rebind<int8_t, Group32> d8;
  return hn::PromoteTo(GroupInt(), hn::LoadU(d8, reinterpret_cast<const int8_t*>(p)));
}
HWY_INLINE GroupV to_float(GroupIntV v) { return hn::ConvertTo(Group32(), v); }
// `value` where v has any bit of `bit`, else 0.
HWY_INLINE GroupIntV if_bit(GroupIntV v, GroupIntV bit, int32_t value) {
  const GroupInt d;
  return hn::IfThenElseZero(hn::Eq(hn::And(v, bit), bit), hn::Set(d, value));
}

struct F32Decoder {
  static constexpr size_t kBytes = 128, kGroups = 1;
  static constexpr bool kPlain = true;
  const uint8_t* p;
  HWY_INLINE explicit F32Decoder(const uint8_t* block) : p(block) {}
  template <size_t kGroup>
  HWY_INLINE void decode(GroupV* out) const {
    for (size_t i = 0; i < kVectors; ++i) {
      out[i] = load_bytes_as(Group32(), p + i * kLanes * sizeof(float));
    }
  }
};

struct F16Decoder {
  static constexpr size_t kBytes = 64, kGroups = 1;
  static constexpr bool kPlain = true;
  const uint8_t* p;
  HWY_INLINE explicit F16Decoder(const uint8_t* block) : p(block) {}
  template <size_t kGroup>
  HWY_INLINE void decode(GroupV* out) const {
    for (size_t i = 0; i < kVectors; ++i) out[i] = load_half(Group32(), p + i * kLanes * 2);
  }
};

struct BF16Decoder {
  static constexpr size_t kBytes = 64, kGroups = 1;
  static constexpr bool kPlain = true;
  const uint8_t* p;
  HWY_INLINE explicit BF16Decoder(const uint8_t* block) : p(block) {}
  template <size_t kGroup>
  HWY_INLINE void decode(GroupV* out) const {
    for (size_t i = 0; i < kVectors; ++i) out[i] = load_bfloat(Group32(), p + i * kLanes * 2);
  }
};

// Q4_0, Q4_1: f16 d [, f16 m], 16 bytes of nibbles: low ones are elements 0-15, high ones 16-31.
// Q5_0, Q5_1: f16 d [, f16 m], u32 of fifth bits, nibbles. Value: d * q + m; without m, it is
// -d * half of the range.
template <bool kFiveBits, bool kHasMin>
struct NibbleDecoder {
  static constexpr size_t kBytes = 18 + 4 * size_t{kFiveBits} + 2 * size_t{kHasMin}, kGroups = 1;
  static constexpr bool kPlain = false;
  GroupV d, m;
  const uint8_t* p;
  HWY_INLINE explicit NibbleDecoder(const uint8_t* block) : d(broadcast_half(block)), p(block + 2) {
    if constexpr (kHasMin) {
      m = broadcast_half(p);
      p += 2;
    } else {
      m = hn::Mul(d, hn::Set(Group32(), kFiveBits ? -16.0f : -8.0f));
    }
  }
  template <size_t kGroup>
  HWY_INLINE void decode(GroupV* out) const {
    constexpr size_t kHalf = kGroupElements / 2;
    const uint8_t* nibbles = p + (kFiveBits ? 4 : 0);
    for (size_t i = 0; i < kHalf; i += kLanes) {
      const GroupIntV bytes = load_bytes(nibbles + i);
      GroupIntV low = hn::And(bytes, hn::Set(GroupInt(), 15)), high = hn::ShiftRight<4>(bytes);
      if constexpr (kFiveBits) {
        low = hn::Or(low, fifth_bits(i));
        high = hn::Or(high, fifth_bits(i + kHalf));
      }
      out[i / kLanes] = hn::MulAdd(to_float(low), d, m);
      out[(i + kHalf) / kLanes] = hn::MulAdd(to_float(high), d, m);
    }
  }
  // 16 in the lanes whose element (first + lane) has its bit set.
  HWY_INLINE GroupIntV fifth_bits(size_t first) const {
    alignas(64) static constexpr uint32_t kBit[32] = {
        1u << 0,  1u << 1,  1u << 2,  1u << 3,  1u << 4,  1u << 5,  1u << 6,  1u << 7,
        1u << 8,  1u << 9,  1u << 10, 1u << 11, 1u << 12, 1u << 13, 1u << 14, 1u << 15,
        1u << 16, 1u << 17, 1u << 18, 1u << 19, 1u << 20, 1u << 21, 1u << 22, 1u << 23,
        1u << 24, 1u << 25, 1u << 26, 1u << 27, 1u << 28, 1u << 29, 1u << 30, 1u << 31};
    int32_t bits;
    std::memcpy(&bits, p, sizeof(bits));
    const hn::Rebind<uint32_t, Group32> d32;
    const GroupIntV bit = hn::BitCast(GroupInt(), hn::Load(d32, kBit + first));
    return if_bit(hn::Set(GroupInt(), bits), bit, 16);
  }
};

// f16 d, 32 signed bytes: d * q.
struct Q8_0Decoder {
  static constexpr size_t kBytes = 34, kGroups = 1;
  static constexpr bool kPlain = false;
  GroupV d;
  const uint8_t* p;
  HWY_INLINE explicit Q8_0Decoder(const uint8_t* block) : d(broadcast_half(block)), p(block + 2) {}
  template <size_t kGroup>
  HWY_INLINE void decode(GroupV* out) const {
    for (size_t i = 0; i < kVectors; ++i) {
      out[i] = hn::Mul(to_float(load_signed_bytes(p + i * kLanes)), d);
    }
  }
};

// f16 d, f16 dmin, eight 6-bit (scale, minimum) pairs in 12 bytes, [32 bytes of fifth bits: bit g
// of byte j is for element j of group g], 128 bytes of nibbles: 32 bytes hold groups 2k (low) and
// 2k+1 (high). Value: d * scale * q - dmin * min.
template <bool kFiveBits>
struct K4Decoder {
  static constexpr size_t kBytes = kFiveBits ? 176 : 144, kGroups = 8;
  static constexpr bool kPlain = false;
  float scales[8], mins[8];
  const uint8_t* block_;

  HWY_INLINE explicit K4Decoder(const uint8_t* block) : block_(block) {
    // Four pairs at a time in the bytes of a word. The first four are the low 6 bits of words 0 and
    // 1; the last four have their low 4 bits in word 2 and their high 2 bits on top of words 0, 1.
    uint32_t word[3];
    std::memcpy(word, block + 4, sizeof(word));
    const uint32_t scale_words[2] = {word[0] & 0x3f3f3f3fu,
                                     (word[2] & 0x0f0f0f0fu) | ((word[0] >> 2) & 0x30303030u)};
    const uint32_t min_words[2] = {word[1] & 0x3f3f3f3fu,
                                   ((word[2] >> 4) & 0x0f0f0f0fu) | ((word[1] >> 2) & 0x30303030u)};
    multiply(scale_words, block, scales);
    multiply(min_words, block + 2, mins);
  }
  HWY_INLINE static void multiply(const uint32_t (&words)[2], const uint8_t* factor, float* out) {
    const hn::CappedTag<float, 8> d;
    const hn::Rebind<int32_t, decltype(d)> d32;
    const hn::Rebind<uint8_t, decltype(d)> d8;
    uint8_t bytes[8];
    std::memcpy(bytes, words, sizeof(bytes));
    const auto f = hn::Set(d, hn::GetLane(load_half(hn::CappedTag<float, 1>(), factor)));
    for (size_t i = 0; i < 8; i += hn::MaxLanes(d)) {
      const auto value = hn::ConvertTo(d, hn::PromoteTo(d32, hn::LoadU(d8, bytes + i)));
      hn::StoreU(hn::Mul(value, f), d, out + i);
    }
  }
  template <size_t kGroup>
  HWY_INLINE void decode(GroupV* out) const {
    const GroupInt d32;
    const GroupV scale = hn::Set(Group32(), scales[kGroup]);
    const GroupV min = hn::Set(Group32(), mins[kGroup]);
    const uint8_t* nibbles = block_ + (kFiveBits ? 48 : 16) + kGroup / 2 * 32;
    for (size_t i = 0; i < kGroupElements; i += kLanes) {
      const GroupIntV bytes = load_bytes(nibbles + i);
      GroupIntV q;
      if constexpr (kGroup % 2 == 0) {
        q = hn::And(bytes, hn::Set(d32, 15));
      } else {
        q = hn::ShiftRight<4>(bytes);
      }
      if constexpr (kFiveBits) {
        q = hn::Or(q, if_bit(load_bytes(block_ + 16 + i), hn::Set(d32, 1 << kGroup), 16));
      }
      out[i / kLanes] = hn::MulSub(to_float(q), scale, min);
    }
  }
};

// 128 bytes of low nibbles, 64 bytes of high bit pairs, 16 signed scales, f16 d. In each half of
// 128 elements, group g takes its nibbles from bytes g % 2 * 32 + j (low ones if g < 2) and its
// pair from bits 2g of byte j. Value: d * scale * (q - 32), a scale for 16 elements.
struct Q6KDecoder {
  static constexpr size_t kBytes = 210, kGroups = 8;
  static constexpr bool kPlain = false;
  float d;
  const uint8_t* block_;
  HWY_INLINE explicit Q6KDecoder(const uint8_t* block)
      : d(hn::GetLane(load_half(hn::CappedTag<float, 1>(), block + 208))), block_(block) {}
  template <size_t kGroup>
  HWY_INLINE void decode(GroupV* out) const {
    constexpr size_t kHalf = kGroup / 4, kQuarter = kGroup % 4;
    const GroupInt d32;
    const uint8_t* low = block_ + kHalf * 64 + kQuarter % 2 * 32;
    const uint8_t* high = block_ + 128 + kHalf * 32;
    const auto* scales = reinterpret_cast<const int8_t*>(block_ + 192 + kGroup * 2);
    for (size_t i = 0; i < kGroupElements; i += kLanes) {
      const GroupIntV nibbles = load_bytes(low + i), pairs = load_bytes(high + i);
      GroupIntV q;
      if constexpr (kQuarter < 2) {
        q = hn::And(nibbles, hn::Set(d32, 15));
      } else {
        q = hn::ShiftRight<4>(nibbles);
      }
      GroupIntV top;  // the pair, at bits 4 and 5
      if constexpr (kQuarter < 2) {
        top = hn::ShiftLeft<4 - 2 * static_cast<int>(kQuarter % 2)>(pairs);
      } else {
        top = hn::ShiftRight<2 * static_cast<int>(kQuarter % 2)>(pairs);
      }
      q = hn::Or(q, hn::And(top, hn::Set(d32, 0x30)));
      const GroupV scale = hn::Set(Group32(), d * static_cast<float>(scales[i / 16]));
      out[i / kLanes] = hn::Mul(to_float(hn::Sub(q, hn::Set(d32, 32))), scale);
    }
  }
};

}  // namespace HWY_NAMESPACE
}  // namespace mkv
HWY_AFTER_NAMESPACE();

#endif  // MKV_OPS_DECODE_INL_H_
