#include "nest/angle_kernels.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "ops/instruction_set.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "nest/angle_kernels.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.h.
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace mkv {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

#if HWY_TARGET == HWY_SCALAR

void ScoreAngles(const int16_t* terms, const float* unit, const int16_t* angles, size_t pairs, bool,
                 View<float> scores) {
  reference::score_angles(terms, {unit, scores.rows}, angles, pairs, scores);
}

#else

using Words = hn::ScalableTag<int16_t>;
using Ints = hn::Repartition<int32_t, Words>;
using IntVec = hn::Vec<Ints>;

constexpr bool kMayHaveVnni = HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX2;

// Products of a token's angles of two pairs, which are neighbours. Which of them are in which of
// Highway's two sums is left to the target: neighbours, but on ARM a half of the vector each. With
// VNNI products and sum are one instruction.
template <bool kVnni>
struct PairSums {
  HWY_INLINE PairSums() {}  // an implicit one lacks the target that GCC asks of NEON's vectors
  IntVec first, other;

  HWY_INLINE void clear() { first = other = hn::Zero(Ints()); }
  HWY_INLINE void add(hn::Vec<Words> angles, hn::Vec<Words> term) {
#if HWY_TARGET == HWY_AVX3
    if constexpr (kVnni) {
      asm("vpdpwssd %2, %1, %0" : "+v"(first.raw) : "v"(angles.raw), "v"(term.raw));
      return;
    }
#elif HWY_TARGET == HWY_AVX2
    if constexpr (kVnni) {
      asm("%{vex%} vpdpwssd %2, %1, %0" : "+x"(first.raw) : "x"(angles.raw), "x"(term.raw));
      return;
    }
#endif
    first = hn::ReorderWidenMulAccumulate(Ints(), angles, term, first, other);
  }
  HWY_INLINE IntVec total() const {
#if HWY_ARCH_ARM
    const Ints d;
    return hn::Add(hn::ConcatEven(d, other, first), hn::ConcatOdd(d, other, first));
#else
    return hn::Add(first, other);
#endif
  }
};

// Two pairs' terms of one side, for every token.
HWY_INLINE hn::Vec<Words> two_terms(const int16_t* terms) {
  int32_t both;
  std::memcpy(&both, terms, sizeof(both));
  return hn::BitCast(Words(), hn::Set(Ints(), both));
}

// kHeads heads from `head` on and two vectors of tokens of each half at once.
template <size_t kHeads, bool kVnni>
HWY_INLINE size_t score_heads(const int16_t* terms, const float* unit, const int16_t* angles,
                              size_t pairs, View<float> scores, size_t head) {
  constexpr size_t kVectors = 2, kSides = 2;
  const Words d;
  const hn::RebindToFloat<Ints> df;
  const size_t n = hn::Lanes(Ints()), all = even_pairs(pairs);
  for (; head + kHeads <= scores.rows; head += kHeads) {
    for (size_t t = 0; t < kHalfTokens; t += kVectors * n) {
      PairSums<kVnni> sums[kHeads][kSides][kVectors];
      for (auto& of_head : sums) {
        for (auto& of_side : of_head) {
          for (auto& x : of_side) x.clear();
        }
      }
      for (size_t i = 0; i < all; i += 2) {
        for (size_t side = 0; side < kSides; ++side) {
          const int16_t* angle = angles + ((i + side) * kHalfTokens + t) * 2;
          auto first = hn::LoadU(d, angle), second = hn::LoadU(d, angle + n * 2);
#if HWY_TARGET == HWY_AVX3
          asm("" : "+v"(first.raw), "+v"(second.raw));  // GCC would load them again for each head
#endif
          for (size_t h = 0; h < kHeads; ++h) {
            const auto term = two_terms(terms + (2 * (head + h) + side) * all + i);
            sums[h][side][0].add(first, term);
            sums[h][side][1].add(second, term);
          }
        }
      }
      for (size_t h = 0; h < kHeads; ++h) {
        const auto times = hn::Set(df, unit[head + h]);
        for (size_t v = 0; v < kVectors; ++v) {
          const IntVec even = sums[h][0][v].total(), odd = sums[h][1][v].total();
          float* middle = scores.row(head + h).data() + kHalfTokens;
          const size_t from = t + v * n;
          hn::StoreU(hn::Mul(hn::ConvertTo(df, hn::Add(even, odd)), times), df, middle + from);
          const auto before = hn::Mul(hn::ConvertTo(df, hn::Sub(even, odd)), times);
          hn::StoreU(hn::Reverse(df, before), df, middle - from - n);
        }
      }
    }
  }
  return head;
}

template <bool kVnni>
HWY_INLINE void score_all(const int16_t* terms, const float* unit, const int16_t* angles,
                          size_t pairs, View<float> scores) {
  const size_t rest = score_heads<3, kVnni>(terms, unit, angles, pairs, scores, 0);
  score_heads<1, kVnni>(terms, unit, angles, pairs, scores, rest);
}

void ScoreAngles(const int16_t* terms, const float* unit, const int16_t* angles, size_t pairs,
                 bool vnni, View<float> scores) {
  if (kMayHaveVnni && vnni) return score_all<kMayHaveVnni>(terms, unit, angles, pairs, scores);
  score_all<false>(terms, unit, angles, pairs, scores);
}

#endif  // HWY_TARGET == HWY_SCALAR

// Pairs from `first` on, a vector at a time; returns the first left over.
template <class D>
HWY_INLINE size_t turn_vectors(D d, const float* a, const float* b, const float* cos,
                               const float* sin, size_t first, size_t pairs, int16_t* out) {
  const hn::Rebind<int16_t, D> d16;
  const size_t n = hn::Lanes(d), all = even_pairs(pairs);
  size_t i = first;
  for (; i + n <= pairs; i += n) {
    const auto va = hn::LoadU(d, a + i), vb = hn::LoadU(d, b + i);
    const auto vc = hn::LoadU(d, cos + i), vs = hn::LoadU(d, sin + i);
    const auto even = hn::NearestInt(hn::MulAdd(va, vc, hn::Mul(vb, vs)));
    const auto odd = hn::NearestInt(hn::NegMulAdd(va, vs, hn::Mul(vb, vc)));
    hn::StoreU(hn::DemoteTo(d16, even), d16, out + i);
    hn::StoreU(hn::DemoteTo(d16, odd), d16, out + all + i);
  }
  return i;
}

void TurnAndRound(View<const float> terms, const float* cos, const float* sin, int16_t* out) {
  const size_t pairs = terms.cols / 2, all = even_pairs(pairs);
  for (size_t h = 0; h < terms.rows; ++h, out += 2 * all) {
    const float* a = terms.row(h).data();
    const float* b = a + pairs;
    const size_t rest = turn_vectors(hn::ScalableTag<float>(), a, b, cos, sin, 0, pairs, out);
    turn_vectors(hn::CappedTag<float, 1>(), a, b, cos, sin, rest, pairs, out);
    if (pairs < all) out[pairs] = out[all + pairs] = 0;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace mkv
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mkv {
HWY_EXPORT(ScoreAngles);
HWY_EXPORT(TurnAndRound);

void mean_terms(std::span<const float> query, std::span<const float> mean, float* a, float* b) {
  MKV_CHECK(query.size() == mean.size());
  const size_t pairs = query.size() / 2;
  for (size_t i = 0; i < pairs; ++i) {
    a[i] = query[i] * mean[i] + query[i + pairs] * mean[i + pairs];
    b[i] = query[i + pairs] * mean[i] - query[i] * mean[i + pairs];
  }
}

float mean_terms_factor(std::span<const float> a, std::span<const float> b) {
  float total = 0.0f, largest = 0.0f;
  for (size_t i = 0; i < a.size(); ++i) {
    const float length = std::hypot(a[i], b[i]);
    total += length;
    largest = std::max(largest, length);
  }
  // The sum of all, rounded up and times kAngleOne, stays below 2^31; each below 2^15.
  const float most_in_all = 65000.0f - static_cast<float>(a.size());
  return total > 0.0f ? std::min(most_in_all / total, 32000.0f / largest) : 0.0f;
}

void turn_mean_terms(std::span<float> a, std::span<float> b, std::span<const float> cos,
                     std::span<const float> sin) {
  MKV_CHECK(b.size() == a.size() && cos.size() == a.size() && sin.size() == a.size());
  for (size_t i = 0; i < a.size(); ++i) {
    const float x = a[i], y = b[i];
    a[i] = x * cos[i] + y * sin[i];
    b[i] = y * cos[i] - x * sin[i];
  }
}

void turn_and_round_mean_terms(View<const float> terms, std::span<const float> cos,
                               std::span<const float> sin, int16_t* out) {
  MKV_CHECK(terms.cols == 2 * cos.size() && sin.size() == cos.size());
  HWY_DYNAMIC_DISPATCH(TurnAndRound)(terms, cos.data(), sin.data(), out);
}

Buffer<int16_t> half_block_angles(View<const float> cos, View<const float> sin) {
  MKV_CHECK(cos.rows == kHalfTokens && sin.rows == kHalfTokens && sin.cols == cos.cols);
  Buffer<int16_t> angles(2 * even_pairs(cos.cols) * kHalfTokens);
  std::ranges::fill(angles.span(), int16_t{0});
  const auto round = [](float x) { return static_cast<int16_t>(std::lrint(kAngleOne * x)); };
  for (size_t t = 0; t < kHalfTokens; ++t) {
    for (size_t i = 0; i < cos.cols; ++i) {
      int16_t* at = angles.data() + (i / 2 * 2 * kHalfTokens + t) * 2 + i % 2;
      at[0] = round(cos.at(t, i));
      at[kHalfTokens * 2] = round(sin.at(t, i));
    }
  }
  return angles;
}

void score_angles(const int16_t* terms, std::span<const float> unit, const int16_t* angles,
                  size_t pairs, View<float> scores) {
  MKV_CHECK(unit.size() == scores.rows && scores.cols == 64);
  const bool vnni = has_vnni() || has_avx2_vnni();
  HWY_DYNAMIC_DISPATCH(ScoreAngles)(terms, unit.data(), angles, pairs, vnni, scores);
}

}  // namespace mkv
#endif  // HWY_ONCE
