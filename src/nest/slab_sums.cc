// Weighted sums of coded tokens, from their codes, for any processor with vectors; slab_avx512.cc
// has them for VNNI.
#include "base/check.h"
#include "base/prefetch.h"
#include "nest/avx512.h"
#include "nest/kv_cache.h"
#include "nest/slab_kernels.h"
#include "nest/slab_reference.h"
#include "ops/instruction_set.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "nest/slab_sums.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.h.
#include "hwy/highway.h"
#include "ops/exp-inl.h"

#if HWY_ARCH_X86_64
#include <immintrin.h>
#endif

HWY_BEFORE_NAMESPACE();
namespace mkv {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr size_t kTokens = 64, kHalf = 32, kEntries = kCodebookEntries, kColumns = kSlabColumns;

#if HWY_TARGET == HWY_SCALAR

Softened SoftenToBytes(const float* scores, size_t size, float top, bool, uint8_t* weights) {
  return reference::soften_to_bytes({scores, size}, top, weights);
}
void WeighSlabs(const CodePlanes& planes, const CodeBlocks& blocks, const uint8_t* weights, bool,
                std::span<const float> factor, View<float> sums) {
  reference::weigh_slabs(planes, blocks, weights, factor, sums);
}

#else

// What weights of one lane may add up to so that their products with bytes add up to a word.
constexpr float kMostOfLane = 258.0f;

// Bytes of which a 128-bit part is looked up at once.
using Bytes = hn::CappedTag<uint8_t, kHalf>;
using Words = hn::Repartition<uint16_t, Bytes>;
using ByteVec = hn::Vec<Bytes>;
using WordVec = hn::Vec<Words>;

// What products of weights and columns read: bytes where pairs of byte products add up to words
// (weights stay below 128 for that), words elsewhere.
#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3
using Column = int8_t;
#else
using Column = int16_t;
#endif

// A plane's columns of a block [4][64].
HWY_INLINE void expand_plane(const CodePlanes& planes, const CodePlanes::Plane& plane,
                             const uint8_t* codes, Column* columns) {
  const Bytes d8;
  const hn::RebindToSigned<Bytes> ds8;
  const size_t n = hn::Lanes(d8);
  const ByteVec low_half = hn::Set(d8, 15);
  for (size_t i = 0; i < kHalf; i += n) {
    ByteVec sums[2][kColumns];
    for (size_t c = 0; c < kColumns; ++c) sums[0][c] = sums[1][c] = hn::Zero(d8);
    for (size_t s = plane.begin; s < plane.end; ++s) {
      const ByteVec both = hn::LoadU(d8, codes + planes.slabs[s] * kHalf + i);
      const ByteVec first = hn::And(both, low_half);
      const ByteVec second =
          hn::And(hn::BitCast(d8, hn::ShiftRight<4>(hn::BitCast(Words(), both))), low_half);
      const auto* entries =
          reinterpret_cast<const uint8_t*>(planes.entries.data() + s * kColumns * kEntries);
      for (size_t c = 0; c < kColumns; ++c) {
        const ByteVec table = hn::LoadDup128(d8, entries + c * kEntries);
        sums[0][c] = hn::Add(sums[0][c], hn::TableLookupBytes(table, first));
        sums[1][c] = hn::Add(sums[1][c], hn::TableLookupBytes(table, second));
      }
    }
    for (size_t c = 0; c < kColumns; ++c) {
      for (size_t h = 0; h < 2; ++h) {
        const auto bytes = hn::BitCast(ds8, sums[h][c]);
        Column* to = columns + c * kTokens + h * kHalf + i;
        if constexpr (sizeof(Column) == 1) {
          hn::StoreU(bytes, ds8, reinterpret_cast<int8_t*>(to));
        } else {
          const hn::Half<decltype(ds8)> half;
          const hn::Repartition<int16_t, Bytes> d16;
          auto* words = reinterpret_cast<int16_t*>(to);
          hn::StoreU(hn::PromoteTo(d16, hn::LowerHalf(half, bytes)), d16, words);
          hn::StoreU(hn::PromoteTo(d16, hn::UpperHalf(half, bytes)), d16, words + n / 2);
        }
      }
    }
  }
}

using Ints = hn::Repartition<int32_t, Bytes>;
using IntVec = hn::Vec<Ints>;

// What is multiplied at once: so many tokens of a column. `Sums` adds up the products of all blocks
// of one call.
#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3
constexpr size_t kStep = kHalf;
using WeightVec = __m256i;
HWY_INLINE WeightVec load_weights(const uint8_t* weights) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(weights));
}
using ColumnVec = __m256i;
HWY_INLINE ColumnVec load_column(const Column* column) {
  return _mm256_load_si256(reinterpret_cast<const __m256i*>(column));
}
constexpr size_t kHeadsTogether = 3;
constexpr bool kMayHaveVnni = HWY_TARGET == HWY_AVX2;  // AVX-VNNI; for AVX-512: slab_avx512.cc
// Words hold them: weights are rounded so that those of a lane's tokens, two neighbours of every
// 32, add up to at most kMostOfLane. With VNNI four neighbours add up in 32 bits.
template <bool kVnni>
struct Sums {
  __m256i sums;

  HWY_INLINE void clear() { sums = _mm256_setzero_si256(); }
  HWY_INLINE void add(WeightVec weights, ColumnVec column) {
    if constexpr (kVnni) {
      asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sums) : "x"(weights), "x"(column));
    } else {
      sums = _mm256_add_epi16(sums, _mm256_maddubs_epi16(weights, column));
    }
  }
  HWY_INLINE __m256i total() const {
    return kVnni ? sums : _mm256_madd_epi16(sums, _mm256_set1_epi16(1));
  }
};
// The sums of four vectors' lanes.
template <bool kVnni>
HWY_INLINE hn::Vec<hn::FixedTag<int32_t, 4> > sums_of_lanes(const Sums<kVnni> (&sums)[kColumns]) {
  const __m256i all = _mm256_hadd_epi32(_mm256_hadd_epi32(sums[0].total(), sums[1].total()),
                                        _mm256_hadd_epi32(sums[2].total(), sums[3].total()));
  return hn::Vec<hn::FixedTag<int32_t, 4> >{
      _mm_add_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1))};
}
#else
using SignedWords = hn::Repartition<int16_t, Bytes>;
constexpr size_t kStep = hn::MaxLanes(SignedWords());
using WeightVec = hn::Vec<SignedWords>;
HWY_INLINE WeightVec load_weights(const uint8_t* weights) {
  return hn::PromoteTo(SignedWords(), hn::LoadU(hn::Rebind<uint8_t, SignedWords>(), weights));
}
using ColumnVec = hn::Vec<SignedWords>;
HWY_INLINE ColumnVec load_column(const Column* column) { return hn::Load(SignedWords(), column); }
constexpr size_t kHeadsTogether = 2;
constexpr bool kMayHaveVnni = false;
template <bool>
struct Sums {
  HWY_INLINE Sums() {}  // an implicit one lacks the target that GCC asks of NEON's vectors
  IntVec ints, other;   // where pairs add up in one register, as on x86, `other` stays zero

  HWY_INLINE void clear() { ints = other = hn::Zero(Ints()); }
  HWY_INLINE void add(WeightVec weights, ColumnVec column) {
    ints = hn::ReorderWidenMulAccumulate(Ints(), weights, column, ints, other);
  }
};
HWY_INLINE hn::Vec<hn::FixedTag<int32_t, 4> > sums_of_lanes(const Sums<false> (&sums)[kColumns]) {
  HWY_ALIGN int32_t whole[kColumns];
  for (size_t c = 0; c < kColumns; ++c) {
    whole[c] = hn::GetLane(hn::SumOfLanes(Ints(), hn::Add(sums[c].ints, sums[c].other)));
  }
  return hn::Load(hn::FixedTag<int32_t, 4>(), whole);
}
#endif

using Floats = hn::CappedTag<float, kHalf>;
HWY_INLINE void store_rounded(hn::Vec<Floats> x, uint8_t* to) {
  const hn::Rebind<uint8_t, Floats> d8;
  hn::StoreU(hn::DemoteTo(d8, hn::NearestInt(x)), d8, to);
}

// values = e^(scores - top); returns their sum.
HWY_INLINE float exponentials(const float* scores, size_t size, float top, float* values) {
  const Floats d;
  const auto shift = hn::Set(d, top);
  auto even = hn::Zero(d), odd = even;
  const size_t n = hn::Lanes(d);
  for (size_t t = 0; t < size; t += 2 * n) {
    const auto first = exp_of_negative(d, hn::Sub(hn::LoadU(d, scores + t), shift));
    const auto second = exp_of_negative(d, hn::Sub(hn::LoadU(d, scores + t + n), shift));
    even = hn::Add(even, first);
    odd = hn::Add(odd, second);
    hn::Store(first, d, values + t);
    hn::Store(second, d, values + t + n);
  }
  return hn::GetLane(hn::SumOfLanes(d, hn::Add(even, odd)));
}

Softened SoftenToBytes(const float* scores, size_t size, float top, bool vnni, uint8_t* weights) {
  const Floats d;
  const size_t n = hn::Lanes(d);
  HWY_ALIGN float values[kWeighBlocks * kTokens];
  const float sum = exponentials(scores, size, top, values);
  const bool in_ints = kMayHaveVnni && vnni;
  float unit = in_ints ? 1.0f / 255.0f : 1.0f / 127.0f;
  if (kStep == kHalf && !in_ints) {
    auto largest = hn::Zero(d);
    for (size_t part = 0; part < kHalf; part += n) {
      auto of_lanes = hn::Zero(d);
      for (size_t t = part; t < size; t += kHalf) {
        of_lanes = hn::Add(of_lanes, hn::Load(d, values + t));
      }
      largest = hn::Max(largest, hn::Add(of_lanes, hn::Shuffle2301(of_lanes)));
    }
    // Each may be rounded up by a half.
    const float most = kMostOfLane - 0.5f * 2.0f * static_cast<float>(size / kHalf);
    unit = HWY_MAX(unit, hn::GetLane(hn::MaxOfLanes(d, largest)) / most);
  }
  const auto factor = hn::Set(d, 1.0f / unit);
  for (size_t t = 0; t < size; t += n) {
    store_rounded(hn::Mul(hn::Load(d, values + t), factor), weights + t);
  }
  return {unit, sum};
}

// kHeads heads' sums over the tokens of `count` blocks times the plane's columns: each is loaded
// once for all of them.
template <size_t kHeads, bool kVnni>
HWY_INLINE size_t weigh_plane(const CodePlanes::Plane& plane,
                              const Column (*columns)[kColumns * kTokens], size_t count,
                              const uint8_t* weights, std::span<const float> factor, size_t head,
                              View<float> sums) {
  const hn::FixedTag<float, 4> four;
  static_assert(kColumns == 4);
  for (; head + kHeads <= sums.rows; head += kHeads) {
    Sums<kVnni> total[kHeads][kColumns];
    for (auto& of_head : total) {
      for (Sums<kVnni>& x : of_head) x.clear();
    }
    const uint8_t* of_heads = weights + head * kWeighBlocks * kTokens;
    for (size_t b = 0; b < count; ++b) {
      for (size_t t = 0; t < kTokens; t += kStep) {
        WeightVec weight[kHeads];
        for (size_t h = 0; h < kHeads; ++h) {
          weight[h] = load_weights(of_heads + (h * kWeighBlocks + b) * kTokens + t);
        }
        for (size_t c = 0; c < kColumns; ++c) {
          const ColumnVec column = load_column(columns[b] + c * kTokens + t);
          for (size_t h = 0; h < kHeads; ++h) total[h][c].add(weight[h], column);
        }
      }
    }
    for (size_t h = 0; h < kHeads; ++h) {
      float* to = sums.row(head + h).data() + plane.first_column;
      const auto times = hn::Mul(hn::LoadU(four, plane.scale), hn::Set(four, factor[head + h]));
      const auto whole = hn::ConvertTo(four, sums_of_lanes(total[h]));
      hn::StoreU(hn::MulAdd(whole, times, hn::LoadU(four, to)), four, to);
    }
  }
  return head;
}

template <bool kVnni>
void weigh_slabs_with(const CodePlanes& planes, const CodeBlocks& blocks, const uint8_t* weights,
                      std::span<const float> factor, View<float> sums) {
  HWY_ALIGN Column columns[kWeighBlocks][kColumns * kTokens];
  Prefetcher ahead(blocks.ahead, planes.planes.size());
  for (const CodePlanes::Plane& plane : planes.planes) {
    ahead.step();
    for (size_t b = 0; b < blocks.count; ++b) {
      expand_plane(planes, plane, blocks.data + b * blocks.stride, columns[b]);
    }
    const size_t rest =
        weigh_plane<kHeadsTogether, kVnni>(plane, columns, blocks.count, weights, factor, 0, sums);
    weigh_plane<1, kVnni>(plane, columns, blocks.count, weights, factor, rest, sums);
  }
}

void WeighSlabs(const CodePlanes& planes, const CodeBlocks& blocks, const uint8_t* weights,
                bool vnni, std::span<const float> factor, View<float> sums) {
  if (kMayHaveVnni && vnni) {
    return weigh_slabs_with<kMayHaveVnni>(planes, blocks, weights, factor, sums);
  }
  weigh_slabs_with<false>(planes, blocks, weights, factor, sums);
}

#endif  // HWY_TARGET == HWY_SCALAR

}  // namespace HWY_NAMESPACE
}  // namespace mkv
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mkv {
HWY_EXPORT(SoftenToBytes);
HWY_EXPORT(WeighSlabs);

Softened soften_to_bytes(std::span<const float> scores, float top, uint8_t* weights) {
  MKV_CHECK(scores.size() % kBlockTokens == 0 && scores.size() <= kWeighBlocks * kBlockTokens);
  if (avx512::usable()) return avx512::soften_to_bytes(scores, top, weights);
  return HWY_DYNAMIC_DISPATCH(SoftenToBytes)(scores.data(), scores.size(), top, has_avx2_vnni(),
                                             weights);
}
void weigh_slabs(const CodePlanes& planes, const CodeBlocks& blocks, const uint8_t* weights,
                 std::span<const float> factor, View<float> sums) {
  MKV_CHECK(blocks.count <= kWeighBlocks && factor.size() == sums.rows);
  if (avx512::usable()) return avx512::weigh_slabs(planes, blocks, weights, factor, sums);
  HWY_DYNAMIC_DISPATCH(WeighSlabs)(planes, blocks, weights, has_avx2_vnni(), factor, sums);
}
}  // namespace mkv
#endif  // HWY_ONCE
