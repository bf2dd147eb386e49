#include "nest/angle_kernels.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "nest/angle_reference.h"
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

void ScoreAngles(const MeanAngles& angles, const int16_t* terms, const float* unit, bool,
                 View<float> scores) {
  reference::score_angles(angles, terms, {unit, scores.rows}, scores);
}
void TurnToBlocks(const MeanAngles& angles, const int16_t* terms, size_t heads, size_t blocks, bool,
                  int16_t* out) {
  reference::turn_to_blocks(angles, terms, heads, blocks, out);
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
HWY_INLINE size_t score_heads(const MeanAngles& angles, const int16_t* terms, const float* unit,
                              View<float> scores, size_t head) {
  constexpr size_t kVectors = 2, kSides = 2;
  const Words d;
  const hn::RebindToFloat<Ints> df;
  const size_t n = hn::Lanes(Ints()), all = angles.scored();
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
          const int16_t* angle = angles.half_block.data() + ((i + side) * kHalfTokens + t) * 2;
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
HWY_INLINE void score_all(const MeanAngles& angles, const int16_t* terms, const float* unit,
                          View<float> scores) {
  const size_t rest = score_heads<3, kVnni>(angles, terms, unit, scores, 0);
  score_heads<1, kVnni>(angles, terms, unit, scores, rest);
}

void ScoreAngles(const MeanAngles& angles, const int16_t* terms, const float* unit, bool vnni,
                 View<float> scores) {
  if (kMayHaveVnni && vnni) return score_all<kMayHaveVnni>(angles, terms, unit, scores);
  score_all<false>(angles, terms, unit, scores);
}

// The fast pairs of a head in a block.
HWY_INLINE void turn_fast(const int16_t* a, const int16_t* b, const int16_t* cos,
                          const int16_t* sin, size_t fast, int16_t* even, int16_t* odd) {
  const hn::CappedTag<int16_t, kPairsAtOnce> d;
  for (size_t i = 0; i < fast; i += hn::Lanes(d)) {
    const auto x = hn::LoadU(d, a + i), y = hn::LoadU(d, b + i);
    const auto c = hn::LoadU(d, cos + i), s = hn::LoadU(d, sin + i);
    hn::StoreU(hn::Add(hn::MulFixedPoint15(x, c), hn::MulFixedPoint15(y, s)), d, even + i);
    hn::StoreU(hn::Sub(hn::MulFixedPoint15(y, c), hn::MulFixedPoint15(x, s)), d, odd + i);
  }
}

// What the other pairs add to the polynomials of all blocks, kHeads heads from `head` on, and two
// vectors of [block][even | odd][kSmooth] at once.
template <size_t kHeads, bool kVnni>
HWY_INLINE size_t turn_smooth(const MeanAngles& angles, const int16_t* terms, size_t heads,
                              size_t blocks, size_t head, int16_t* out) {
  constexpr size_t kVectors = 2, kOfBlock = 2 * kSmooth, kAll = kTurnedBlocks * kOfBlock;
  const Words d;
  const Ints di;
  const hn::Rebind<int16_t, Ints> narrow;
  const size_t n = hn::Lanes(di), pairs = padded_pairs(angles.pairs), fast = angles.fast;
  const size_t scored = angles.scored(), used = blocks * kOfBlock;
  const auto half = hn::Set(di, 1 << (kSmoothBits - 1));
  static_assert(kAll % (kVectors * hn::MaxLanes(Ints())) == 0);
  HWY_ALIGN int16_t words[kHeads * kAll];
  for (; head + kHeads <= heads; head += kHeads) {
    for (size_t t = 0; t < used; t += kVectors * n) {
      PairSums<kVnni> sums[kHeads][kVectors];
      for (auto& of_head : sums) {
        for (auto& x : of_head) x.clear();
      }
      for (size_t i = fast; i < pairs; i += 2) {
        for (size_t side = 0; side < 2; ++side) {
          const int16_t* from = angles.to_smooth.data() + ((i - fast + side) * kAll + t) * 2;
          auto first = hn::LoadU(d, from), second = hn::LoadU(d, from + n * 2);
#if HWY_TARGET == HWY_AVX3
          asm("" : "+v"(first.raw), "+v"(second.raw));
#endif
          for (size_t h = 0; h < kHeads; ++h) {
            const auto term = two_terms(terms + (2 * (head + h) + side) * pairs + i);
            sums[h][0].add(first, term);
            sums[h][1].add(second, term);
          }
        }
      }
      for (size_t h = 0; h < kHeads; ++h) {
        for (size_t v = 0; v < kVectors; ++v) {
          const auto sum = hn::ShiftRight<kSmoothBits>(hn::Add(sums[h][v].total(), half));
          hn::StoreU(hn::DemoteTo(narrow, sum), narrow, words + h * kAll + t + v * n);
        }
      }
    }
    const int16_t* from = words;
    for (size_t h = 0; h < kHeads; ++h, from = words + h * kAll) {
      int16_t* to = out + (head + h) * 2 * scored + fast;
      for (size_t block = 0; block < blocks; ++block, from += kOfBlock) {
        std::memcpy(to, from, kSmooth * sizeof(int16_t));
        std::memcpy(to + scored, from + kSmooth, kSmooth * sizeof(int16_t));
        to += heads * 2 * scored;
      }
    }
  }
  return head;
}

template <bool kVnni>
HWY_INLINE void turn_all_smooth(const MeanAngles& angles, const int16_t* terms, size_t heads,
                                size_t blocks, int16_t* out) {
  const size_t rest = turn_smooth<3, kVnni>(angles, terms, heads, blocks, 0, out);
  turn_smooth<1, kVnni>(angles, terms, heads, blocks, rest, out);
}

void TurnToBlocks(const MeanAngles& angles, const int16_t* terms, size_t heads, size_t blocks,
                  bool vnni, int16_t* out) {
  const size_t pairs = padded_pairs(angles.pairs), fast = angles.fast, scored = angles.scored();
  for (size_t block = 0; block < blocks; ++block) {
    const int16_t* cos = angles.turns.data() + block * 2 * fast;
    for (size_t h = 0; h < heads; ++h) {
      const int16_t* a = terms + h * 2 * pairs;
      int16_t* to = out + (block * heads + h) * 2 * scored;
      turn_fast(a, a + pairs, cos, cos + fast, fast, to, to + scored);
    }
  }
  if (!angles.smooth()) return;
  if (kMayHaveVnni && vnni) {
    return turn_all_smooth<kMayHaveVnni>(angles, terms, heads, blocks, out);
  }
  turn_all_smooth<false>(angles, terms, heads, blocks, out);
}

#endif  // HWY_TARGET == HWY_SCALAR

// Pairs from `first` on, a vector at a time; returns the first left over.
template <class D>
HWY_INLINE size_t turn_vectors(D d, const float* a, const float* b, const float* cos,
                               const float* sin, size_t first, size_t pairs, int16_t* out) {
  const hn::Rebind<int16_t, D> d16;
  const size_t n = hn::Lanes(d), all = padded_pairs(pairs);
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
  const size_t pairs = terms.cols / 2, all = padded_pairs(pairs);
  for (size_t h = 0; h < terms.rows; ++h, out += 2 * all) {
    const float* a = terms.row(h).data();
    const float* b = a + pairs;
    const size_t rest = turn_vectors(hn::ScalableTag<float>(), a, b, cos, sin, 0, pairs, out);
    turn_vectors(hn::CappedTag<float, 1>(), a, b, cos, sin, rest, pairs, out);
    for (size_t i = pairs; i < all; ++i) out[i] = out[all + i] = 0;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace mkv
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mkv {
HWY_EXPORT(ScoreAngles);
HWY_EXPORT(TurnAndRound);
HWY_EXPORT(TurnToBlocks);

void mean_terms(std::span<const float> query, std::span<const float> mean, float* a, float* b) {
  MKV_CHECK(query.size() == mean.size());
  const size_t pairs = query.size() / 2;
  for (size_t i = 0; i < pairs; ++i) {
    a[i] = query[i] * mean[i] + query[i + pairs] * mean[i + pairs];
    b[i] = query[i + pairs] * mean[i] - query[i] * mean[i + pairs];
  }
}

float mean_terms_factor(const MeanAngles& angles, std::span<const float> a,
                        std::span<const float> b) {
  float total = 0.0f, largest = 0.0f;
  for (size_t i = 0; i < a.size(); ++i) {
    const float length = std::sqrt(a[i] * a[i] + b[i] * b[i]);
    // What a slow pair adds to the polynomials is at most 1.2 times its length to one and 1.8 times
    // to all. Counted as 2.4 times, neither of them is too much.
    total += i < angles.fast ? length : 2.4f * length;
    largest = std::max(largest, length);
  }
  // The sum of all, rounded up and times kAngleOne, stays below 2^31; each below 2^15.
  const float most_in_all = 65000.0f - static_cast<float>(2 * a.size());
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

void turn_to_blocks(const MeanAngles& angles, const int16_t* terms, size_t heads, size_t blocks,
                    int16_t* out) {
  MKV_CHECK(blocks <= kTurnedBlocks);
  const bool vnni = has_vnni() || has_avx2_vnni();
  HWY_DYNAMIC_DISPATCH(TurnToBlocks)(angles, terms, heads, blocks, vnni, out);
}

void score_angles(const MeanAngles& angles, const int16_t* terms, std::span<const float> unit,
                  View<float> scores) {
  MKV_CHECK(unit.size() == scores.rows && scores.cols == 64);
  const bool vnni = has_vnni() || has_avx2_vnni();
  HWY_DYNAMIC_DISPATCH(ScoreAngles)(angles, terms, unit.data(), vnni, scores);
}

}  // namespace mkv
#endif  // HWY_ONCE
