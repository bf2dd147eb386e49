// Quantised weights as integers, per target: each format turns a group of 32 neighbouring elements
// into bytes in registers, and its blocks into factors. An element is scale * byte + offset.
//
// A format has kBytes and kGroups (of 32 elements) a block; kScales scales a group (2: one for each
// half); kSigned bytes or unsigned ones; and offsets only if kOffset. Layouts: README.md.
#if defined(MKV_OPS_INTEGER_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MKV_OPS_INTEGER_INL_H_
#undef MKV_OPS_INTEGER_INL_H_
#else
#define MKV_OPS_INTEGER_INL_H_
#endif

#include <cstring>

#include "base/dtype.h"
#include "hwy/highway.h"
#include "ops/half-inl.h"
#include "ops/integer_products.h"

HWY_BEFORE_NAMESPACE();
namespace mkv {
namespace HWY_NAMESPACE {

// One lane has no pairs to add.
#if HWY_TARGET != HWY_SCALAR

using Bytes = hn::CappedTag<uint8_t, kIntegerGroup>;
using Words = hn::Repartition<int16_t, Bytes>;
using Ints = hn::Repartition<int32_t, Bytes>;
using Floats = hn::Repartition<float, Bytes>;
using ByteV = hn::Vec<Bytes>;
using WordV = hn::Vec<Words>;
using IntV = hn::Vec<Ints>;
using FloatV = hn::Vec<Floats>;
constexpr size_t kByteLanes = hn::MaxLanes(Bytes());
constexpr size_t kByteVectors = kIntegerGroup / kByteLanes;  // 1, or 2 of 16 bytes

// A vector's bytes as words: those with an even index, those with an odd one.
struct WordPair {
  WordV even, odd;
};
template <bool kSigned>
HWY_INLINE WordPair to_words(ByteV bytes) {
  const Words d16;
  const WordV words = hn::BitCast(d16, bytes);
  if constexpr (kSigned) {
    return {hn::ShiftRight<8>(hn::ShiftLeft<8>(words)), hn::ShiftRight<8>(words)};
  } else {
    const hn::RebindToUnsigned<Words> u16;
    return {hn::And(words, hn::Set(d16, 0xff)),
            hn::BitCast(d16, hn::ShiftRight<8>(hn::BitCast(u16, words)))};
  }
}

// Highway 1.0.3 has no name for VNNI, nor a target that may use it: so it is written as assembly,
// and asked for at run time (has_vnni()).
constexpr bool kMayHaveVnni = HWY_TARGET == HWY_AVX3;

// sum + a * b, products of neighbours added.
template <bool kVnni>
HWY_INLINE IntV add_products(IntV sum, WordV a, WordV b) {
#if HWY_TARGET == HWY_AVX3
  if constexpr (kVnni) {
    asm("vpdpwssd %2, %1, %0" : "+v"(sum.raw) : "v"(a.raw), "v"(b.raw));
    return sum;
  }
#endif
  IntV other = hn::Zero(Ints());
  sum = hn::ReorderWidenMulAccumulate(Ints(), a, b, sum, other);
  return hn::Add(sum, other);
}

// 16 nibbles' bytes as 32 bytes: low nibbles, then high ones.
HWY_INLINE void split_nibbles(const uint8_t* p, ByteV (&out)[kByteVectors]) {
  const Bytes d;
  const ByteV mask = hn::Set(d, 15);
  if constexpr (kByteVectors == 2) {
    const ByteV bytes = hn::LoadU(d, p);
    out[0] = hn::And(bytes, mask);
    out[1] = hn::And(hn::ShiftRight<4>(bytes), mask);
  } else {
    alignas(32) static constexpr uint32_t kShift[8] = {0, 0, 0, 0, 4, 4, 4, 4};
    const hn::Repartition<uint32_t, Bytes> d32;
    const auto words = hn::BitCast(d32, hn::LoadDup128(d, p));
    out[0] = hn::And(hn::BitCast(d, hn::Shr(words, hn::Load(d32, kShift))), mask);
  }
}

using EightFloats = hn::CappedTag<float, 8>;
constexpr size_t kMostBlocks = 64;  // a call of factors()

// The halves of `count` blocks, `stride` bytes apart, as floats; zeros up to a multiple of 8. All
// that writes factors may write up to 7 behind the last.
HWY_INLINE void load_halves(const uint8_t* blocks, size_t stride, size_t count, float* out) {
  uint8_t halves[2 * kMostBlocks];
  for (size_t b = 0; b < count; ++b) std::memcpy(halves + 2 * b, blocks + b * stride, 2);
  for (size_t b = count; b % 8 != 0; ++b) halves[2 * b] = halves[2 * b + 1] = 0;
  for (size_t b = 0; b < count; b += hn::MaxLanes(EightFloats())) {
    hn::StoreU(load_half(EightFloats(), halves + 2 * b), EightFloats(), out + b);
  }
}

// The same for eight blocks at a time, and with the halves that follow them in `next`, if kNext.
// False if this target cannot.
template <size_t kStride, bool kNext>
HWY_INLINE bool load_halves_by_eights(const uint8_t* blocks, size_t count, float* out,
                                      float* next) {
#if HWY_TARGET == HWY_AVX3
  // A load of 64 bytes holds kPerLoad blocks' halves. Each is followed by one permutation, which
  // takes what it holds and leaves the rest as it is.
  constexpr size_t kPerLoad = (64 - 4) / kStride + 1, kLoads = (8 + kPerLoad - 1) / kPerLoad;
  struct Plan {
    size_t start[kLoads];
    alignas(64) uint16_t index[kLoads][32];
  };
  static constexpr Plan kPlan = [] {
    Plan plan{};
    for (size_t l = 0; l < kLoads; ++l) {
      const size_t first = l * kPerLoad, end = 8 * kStride;
      plan.start[l] = first * kStride + 64 <= end ? first * kStride : end - 64;
      for (size_t i = 0; i < 32; ++i) {
        const size_t block = i % 8, word = (block * kStride - plan.start[l]) / 2 + i / 8;
        const bool here = i < 16 && block / kPerLoad == l;
        plan.index[l][i] = static_cast<uint16_t>(here ? 32 + word : i);
      }
    }
    return plan;
  }();
  for (size_t b = 0; b < count; b += 8, blocks += 8 * kStride) {
    const size_t bytes = (count - b) * kStride;
    __m512i words = _mm512_setzero_si512();
    for (size_t l = 0; l < kLoads; ++l) {
      const size_t here = bytes > kPlan.start[l] ? bytes - kPlan.start[l] : 0;
      const __mmask64 mask = here >= 64 ? ~__mmask64{0} : (__mmask64{1} << here) - 1;
      words = _mm512_permutex2var_epi16(words, _mm512_load_si512(kPlan.index[l]),
                                        _mm512_maskz_loadu_epi8(mask, blocks + kPlan.start[l]));
    }
    const __m512 floats = _mm512_cvtph_ps(_mm512_castsi512_si256(words));
    _mm256_storeu_ps(out + b, _mm512_castps512_ps256(floats));
    if constexpr (kNext) _mm256_storeu_ps(next + b, _mm512_extractf32x8_ps(floats, 1));
  }
  return true;
#else
  (void)blocks, (void)count, (void)out, (void)next;
  return false;
#endif
}

// The first half of each block, and the second if kBoth.
template <size_t kStride, bool kBoth>
HWY_INLINE void load_block_halves(const uint8_t* blocks, size_t count, float* first,
                                  float* second) {
  if (load_halves_by_eights<kStride, kBoth>(blocks, count, first, second)) {
    return;
  }
  load_halves(blocks, kStride, count, first);
  if constexpr (kBoth) load_halves(blocks + 2, kStride, count, second);
}

// Q4_0, Q4_1, Q5_0, Q5_1.
template <bool kFiveBits, bool kHasMin>
struct NibbleFormat {
  static constexpr size_t kBytes = 18 + 4 * size_t{kFiveBits} + 2 * size_t{kHasMin};
  static constexpr size_t kGroups = 1, kScales = 1;
  static constexpr bool kSigned = false, kOffset = true;

  static void factors(const uint8_t* blocks, size_t count, float* scales, float* offsets) {
    load_block_halves<kBytes, kHasMin>(blocks, count, scales, offsets);
    if constexpr (!kHasMin) {
      const auto middle = hn::Set(EightFloats(), kFiveBits ? -16.0f : -8.0f);
      for (size_t b = 0; b < count; b += hn::MaxLanes(EightFloats())) {
        const auto scale = hn::LoadU(EightFloats(), scales + b);
        hn::StoreU(hn::Mul(scale, middle), EightFloats(), offsets + b);
      }
    }
  }
  template <size_t kGroup>
  HWY_INLINE static void bytes(const uint8_t* block, ByteV (&out)[kByteVectors]) {
    const Bytes d;
    const uint8_t* p = block + (kHasMin ? 4 : 2);
    split_nibbles(p + (kFiveBits ? 4 : 0), out);
    if constexpr (kFiveBits) {
      uint8_t bits[16] = {};  // LoadMaskBits may read 8 from where it starts
      std::memcpy(bits, p, 4);
      for (size_t i = 0; i < kByteVectors; ++i) {
        const auto mask = hn::LoadMaskBits(d, bits + i * kByteLanes / 8);
        out[i] = hn::Or(out[i], hn::IfThenElseZero(mask, hn::Set(d, 16)));
      }
    }
  }
};

struct Q8_0Format {
  static constexpr size_t kBytes = 34, kGroups = 1, kScales = 1;
  static constexpr bool kSigned = true, kOffset = false;

  static void factors(const uint8_t* blocks, size_t count, float* scales, float*) {
    load_block_halves<kBytes, false>(blocks, count, scales, nullptr);
  }
  template <size_t kGroup>
  HWY_INLINE static void bytes(const uint8_t* block, ByteV (&out)[kByteVectors]) {
    for (size_t i = 0; i < kByteVectors; ++i) {
      out[i] = hn::LoadU(Bytes(), block + 2 + i * kByteLanes);
    }
  }
};

// Eight small integers times a factor.
template <class T>
HWY_INLINE void scale_eight(const T* values, float factor, float* out) {
  const EightFloats d;
  const hn::Rebind<int32_t, EightFloats> d32;
  const hn::Rebind<T, EightFloats> dt;
  for (size_t i = 0; i < 8; i += hn::MaxLanes(d)) {
    const auto value = hn::ConvertTo(d, hn::PromoteTo(d32, hn::LoadU(dt, values + i)));
    hn::StoreU(hn::Mul(value, hn::Set(d, factor)), d, out + i);
  }
}

// Q4_K, Q5_K.
template <bool kFiveBits>
struct K4Format {
  static constexpr size_t kBytes = kFiveBits ? 176 : 144, kGroups = 8, kScales = 1;
  static constexpr bool kSigned = false, kOffset = true;

  static void factors(const uint8_t* blocks, size_t count, float* scales, float* offsets) {
    float d[kMostBlocks], min[kMostBlocks];
    load_halves(blocks, kBytes, count, d);
    load_halves(blocks + 2, kBytes, count, min);
    for (size_t b = 0; b < count; ++b) {
      uint8_t small[2][8];
      unpack_pairs(blocks + b * kBytes + 4, small);
      scale_eight(small[0], d[b], scales + b * 8);
      scale_eight(small[1], -min[b], offsets + b * 8);
    }
  }
  // Four pairs at a time in the bytes of a word. The first four are the low 6 bits of words 0 and
  // 1; the last four have their low 4 bits in word 2 and their high 2 bits on top of words 0, 1.
  HWY_INLINE static void unpack_pairs(const uint8_t* packed, uint8_t (&out)[2][8]) {
    uint32_t word[3];
    std::memcpy(word, packed, sizeof(word));
    const uint32_t words[2][2] = {
        {word[0] & 0x3f3f3f3fu, (word[2] & 0x0f0f0f0fu) | ((word[0] >> 2) & 0x30303030u)},
        {word[1] & 0x3f3f3f3fu, ((word[2] >> 4) & 0x0f0f0f0fu) | ((word[1] >> 2) & 0x30303030u)}};
    std::memcpy(out, words, sizeof(words));
  }
  template <size_t kGroup>
  HWY_INLINE static void bytes(const uint8_t* block, ByteV (&out)[kByteVectors]) {
    const Bytes d;
    const uint8_t* nibbles = block + (kFiveBits ? 48 : 16) + kGroup / 2 * 32;
    for (size_t i = 0; i < kByteVectors; ++i) {
      out[i] = hn::LoadU(d, nibbles + i * kByteLanes);
      if constexpr (kGroup % 2 == 1) out[i] = hn::ShiftRight<4>(out[i]);
      out[i] = hn::And(out[i], hn::Set(d, 15));
      if constexpr (kFiveBits) {
        const ByteV bit = hn::Set(d, uint8_t{1 << kGroup});
        const ByteV fifth = hn::LoadU(d, block + 16 + i * kByteLanes);
        out[i] = hn::Or(out[i], hn::IfThenElseZero(hn::TestBit(fifth, bit), hn::Set(d, 16)));
      }
    }
  }
};

struct Q6KFormat {
  static constexpr size_t kBytes = 210, kGroups = 8, kScales = 2;
  static constexpr bool kSigned = true, kOffset = false;

  static void factors(const uint8_t* blocks, size_t count, float* scales, float*) {
    float d[kMostBlocks];
    load_halves(blocks + 208, kBytes, count, d);
    for (size_t b = 0; b < count; ++b) {
      const auto* small = reinterpret_cast<const int8_t*>(blocks + b * kBytes + 192);
      scale_eight(small, d[b], scales + b * 16);
      scale_eight(small + 8, d[b], scales + b * 16 + 8);
    }
  }
  template <size_t kGroup>
  HWY_INLINE static void bytes(const uint8_t* block, ByteV (&out)[kByteVectors]) {
    constexpr size_t kHalf = kGroup / 4, kQuarter = kGroup % 4;
    const Bytes d;
    const uint8_t* low = block + kHalf * 64 + kQuarter % 2 * 32;
    const uint8_t* high = block + 128 + kHalf * 32;
    for (size_t i = 0; i < kByteVectors; ++i) {
      ByteV q = hn::LoadU(d, low + i * kByteLanes), top = hn::LoadU(d, high + i * kByteLanes);
      if constexpr (kQuarter >= 2) q = hn::ShiftRight<4>(q);
      if constexpr (kQuarter == 0) top = hn::ShiftLeft<4>(top);
      if constexpr (kQuarter == 1) top = hn::ShiftLeft<2>(top);
      if constexpr (kQuarter == 3) top = hn::ShiftRight<2>(top);
      q = hn::Or(hn::And(q, hn::Set(d, 15)), hn::And(top, hn::Set(d, 0x30)));
      out[i] = hn::Sub(q, hn::Set(d, 32));
    }
  }
};

// fn(format) of a quantised type.
template <class Fn>
HWY_INLINE void with_format(DType type, const Fn& fn) {
  switch (type) {
    case DType::q4_0:
      return fn(NibbleFormat<false, false>());
    case DType::q4_1:
      return fn(NibbleFormat<false, true>());
    case DType::q5_0:
      return fn(NibbleFormat<true, false>());
    case DType::q5_1:
      return fn(NibbleFormat<true, true>());
    case DType::q8_0:
      return fn(Q8_0Format());
    case DType::q4_k:
      return fn(K4Format<false>());
    case DType::q5_k:
      return fn(K4Format<true>());
    case DType::q6_k:
      return fn(Q6KFormat());
    default:
      MKV_CHECK(false);
  }
}

#endif  // HWY_TARGET != HWY_SCALAR

}  // namespace HWY_NAMESPACE
}  // namespace mkv
HWY_AFTER_NAMESPACE();

#endif  // MKV_OPS_INTEGER_INL_H_
