#include "nest/angle_kernels.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "nest/avx512.h"

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

void ScoreAngles(const int16_t* terms, const float* unit, const int16_t* angles, size_t pairs,
                 View<float> scores) {
  reference::score_angles(terms, {unit, scores.rows}, angles, pairs, scores);
}

#else

using Words = hn::ScalableTag<int16_t>;
using Ints = hn::Repartition<int32_t, Words>;
using IntVec = hn::Vec<Ints>;

// Products of a token's cosine and sine, which are neighbours. Which of them are in which of
// Highway's two sums is left to the target: neighbours, but on ARM a half of the vector each.
struct PairSums {
  HWY_INLINE PairSums() {}  // an implicit one lacks the target that GCC asks of NEON's vectors
  IntVec first, other;

  HWY_INLINE void clear() { first = other = hn::Zero(Ints()); }
  HWY_INLINE void add(hn::Vec<Words> angles, hn::Vec<Words> term) {
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

// kHeads heads from `head` on and four vectors of tokens at once.
template <size_t kHeads>
HWY_INLINE size_t score_heads(const int16_t* terms, const float* unit, const int16_t* angles,
                              size_t pairs, View<float> scores, size_t head) {
  constexpr size_t kTokens = 64, kVectors = HWY_MIN(4, kTokens / hn::MaxLanes(Ints()));
  const Words d;
  const hn::RebindToFloat<Ints> df;
  const size_t n = hn::Lanes(Ints());
  for (; head + kHeads <= scores.rows; head += kHeads) {
    for (size_t t = 0; t < kTokens; t += kVectors * n) {
      PairSums sums[kHeads][kVectors];
      for (auto& of_head : sums) {
        for (PairSums& x : of_head) x.clear();
      }
      for (size_t i = 0; i < pairs; ++i) {
        const int16_t* angle = angles + (i * kTokens + t) * 2;
        hn::Vec<Words> term[kHeads];
        for (size_t h = 0; h < kHeads; ++h) {
          int32_t both;
          std::memcpy(&both, terms + ((head + h) * pairs + i) * 2, sizeof(both));
          term[h] = hn::BitCast(d, hn::Set(Ints(), both));
        }
        for (size_t v = 0; v < kVectors; ++v) {
          const auto x = hn::LoadU(d, angle + v * n * 2);
          for (size_t h = 0; h < kHeads; ++h) sums[h][v].add(x, term[h]);
        }
      }
      for (size_t h = 0; h < kHeads; ++h) {
        const auto times = hn::Set(df, unit[head + h]);
        for (size_t v = 0; v < kVectors; ++v) {
          hn::StoreU(hn::Mul(hn::ConvertTo(df, sums[h][v].total()), times), df,
                     scores.row(head + h).data() + t + v * n);
        }
      }
    }
  }
  return head;
}

void ScoreAngles(const int16_t* terms, const float* unit, const int16_t* angles, size_t pairs,
                 View<float> scores) {
  const size_t rest = score_heads<3>(terms, unit, angles, pairs, scores, 0);
  score_heads<1>(terms, unit, angles, pairs, scores, rest);
}

#endif  // HWY_TARGET == HWY_SCALAR

void TurnMeanTerms(const float* a, const float* b, const float* cos, const float* sin, size_t pairs,
                   int16_t* out) {
  const hn::ScalableTag<float> d;
  const hn::RebindToSigned<decltype(d)> d32;
  const size_t n = hn::Lanes(d);
  size_t i = 0;
  for (; i + n <= pairs; i += n) {
    const auto va = hn::LoadU(d, a + i), vb = hn::LoadU(d, b + i);
    const auto vc = hn::LoadU(d, cos + i), vs = hn::LoadU(d, sin + i);
    const auto first = hn::NearestInt(hn::MulAdd(va, vc, hn::Mul(vb, vs)));
    const auto second = hn::NearestInt(hn::NegMulAdd(va, vs, hn::Mul(vb, vc)));
    const auto low = hn::And(first, hn::Set(d32, 0xffff));
    hn::StoreU(hn::Or(low, hn::ShiftLeft<16>(second)), d32,
               reinterpret_cast<int32_t*>(out + 2 * i));
  }
  const auto rest = [&](const float* x) { return std::span(x + i, pairs - i); };
  reference::turn_mean_terms(rest(a), rest(b), rest(cos), rest(sin), out + 2 * i);
}

}  // namespace HWY_NAMESPACE
}  // namespace mkv
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mkv {
HWY_EXPORT(ScoreAngles);
HWY_EXPORT(TurnMeanTerms);

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

void turn_mean_terms(std::span<const float> a, std::span<const float> b, std::span<const float> cos,
                     std::span<const float> sin, int16_t* out) {
  MKV_CHECK(b.size() == a.size() && cos.size() == a.size() && sin.size() == a.size());
  HWY_DYNAMIC_DISPATCH(TurnMeanTerms)(a.data(), b.data(), cos.data(), sin.data(), a.size(), out);
}

void score_angles(const int16_t* terms, std::span<const float> unit, const int16_t* angles,
                  size_t pairs, View<float> scores) {
  MKV_CHECK(unit.size() == scores.rows && scores.cols == 64);
  if (avx512::usable()) return avx512::score_angles(terms, unit, angles, pairs, scores);
  HWY_DYNAMIC_DISPATCH(ScoreAngles)(terms, unit.data(), angles, pairs, scores);
}

}  // namespace mkv
#endif  // HWY_ONCE
