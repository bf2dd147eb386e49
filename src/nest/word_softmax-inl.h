// The softmax of scores that are words of 16 bits, with AVX2, for nest/flash_codes.cc: 16 at a
// time.
#pragma once

#include <hwy/base.h>
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "nest/flash_rows-inl.h"

HWY_PUSH_ATTRIBUTES("avx,avx2,fma")
namespace mkv::flash {

// How the distances of rows' scores from their largest become exponents of 2, in 2^-10: those
// above `most` are cut (to 15), the others shifted left and multiplied by factor / 2^15.
struct Exponents {
  static constexpr int kBits = 10;
  alignas(32) int32_t most[kLanes], shift[kLanes], factor[kLanes];

  // `unit`: of scores, in powers of 2.
  HWY_INLINE explicit Exponents(__m256 unit) {
    const __m256 one = _mm256_set1_ps(1.0f);
    const __m256 reach = _mm256_div_ps(_mm256_set1_ps(15.0f), unit);
    const __m256i cut =
        _mm256_cvttps_epi32(_mm256_max_ps(one, _mm256_min_ps(reach, _mm256_set1_ps(32767.0f))));
    // So that most << shift has 15 bits.
    const __m256i bits = _mm256_srli_epi32(_mm256_castps_si256(_mm256_cvtepi32_ps(cut)), 23);
    const __m256i left = _mm256_sub_epi32(_mm256_set1_epi32(127 + 14), bits);
    const __m256i power = _mm256_sub_epi32(_mm256_set1_epi32(127 + kBits + 15), left);
    const __m256 times = _mm256_castsi256_ps(_mm256_slli_epi32(power, 23));
    store(most, cut);
    store(shift, left);
    store(factor,
          _mm256_cvtps_epi32(_mm256_min_ps(_mm256_mul_ps(unit, times), _mm256_set1_ps(30720.0f))));
  }
};

// 2^-x of x in 2^-10, below 16, in 2^-14: a polynomial of the rest (relative error 2e-4) times a
// power that is looked up in two halves.
HWY_INLINE __m256i exp2_of_words(__m256i x) {
  const auto minus = [&](int a, __m256i b) {
    return _mm256_sub_epi16(_mm256_set1_epi16(static_cast<int16_t>(a)), b);
  };
  const __m256i rest = _mm256_slli_epi16(x, 16 - Exponents::kBits);            // of 2^-16, unsigned
  __m256i p = minus(7575, _mm256_mulhi_epu16(rest, _mm256_set1_epi16(1298)));  // of 2^-15
  p = minus(22662, _mm256_mulhi_epu16(rest, p));
  p = minus(-32768, _mm256_mulhi_epu16(rest, p));
  const __m256i whole = _mm256_srli_epi16(x, Exponents::kBits);
  // The upper byte of 2^(15 - whole) and, 8 later, the lower one; nothing where the index is < 0.
  const __m256i powers = _mm256_setr_epi8(-128, 64, 32, 16, 8, 4, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0,
                                          -128, 64, 32, 16, 8, 4, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0);
  const __m256i index =
      _mm256_sub_epi8(_mm256_mullo_epi16(whole, _mm256_set1_epi16(257)), _mm256_set1_epi16(8));
  return _mm256_mulhi_epu16(p, _mm256_shuffle_epi8(powers, index));
}

HWY_INLINE int16_t largest_word(__m256i x) {
  const __m128i y = _mm_max_epi16(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
  const __m128i turned = _mm_xor_si128(y, _mm_set1_epi16(0x7fff));
  return static_cast<int16_t>(_mm_cvtsi128_si32(_mm_minpos_epu16(turned)) ^ 0x7fff);
}

// Rows' largest scores, weights [64] in 2^-14 of the largest, totals of these, and the largest
// total of the 16 tokens that add up in one word of values' sums.
template <size_t kCount>
struct WordWeights {
  alignas(32) int16_t weights[kCount][kTokens];
  alignas(32) int32_t tops[kLanes] = {}, totals[kLanes] = {}, largest[kLanes] = {};
};

// Which of 16 tokens from `token` on a row sees: words of ones.
HWY_INLINE __m256i mask_of(const Visible& seen, size_t token) {
  const __m256i at =
      _mm256_add_epi16(_mm256_setr_epi16(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
                       _mm256_set1_epi16(static_cast<int16_t>(token)));
  const auto bound = [&](size_t x) { return _mm256_set1_epi16(static_cast<int16_t>(x)); };
  return _mm256_andnot_si256(_mm256_cmpgt_epi16(bound(seen.begin), at),
                             _mm256_cmpgt_epi16(bound(seen.end), at));
}

// Of a row's scores [64]. `seen`, unless kAll.
template <bool kAll>
HWY_INLINE int16_t largest_score(const int16_t* scores, const Visible* seen) {
  const __m256i least = _mm256_set1_epi16(-32768);
  __m256i top = least;
  for (size_t t = 0; t < kTokens; t += kWordLanes) {
    __m256i x = load(scores + t);
    if constexpr (!kAll) x = _mm256_blendv_epi8(least, x, mask_of(*seen, t));
    top = _mm256_max_epi16(top, x);
  }
  return largest_word(top);
}

// Scores [64] of row r become weights, once out.tops has its largest. `seen`, unless kAll.
template <bool kAll, size_t kCount>
HWY_INLINE void soften(const int16_t* scores, const Exponents& exponents, size_t r,
                       const Visible* seen, WordWeights<kCount>& out) {
  constexpr size_t kVectorsOfRow = kTokens / kWordLanes;
  __m256i x[kVectorsOfRow];
  const __m256i top = _mm256_set1_epi16(static_cast<int16_t>(out.tops[r]));
  const __m256i most = _mm256_set1_epi16(static_cast<int16_t>(exponents.most[r]));
  const __m256i factor = _mm256_set1_epi16(static_cast<int16_t>(exponents.factor[r]));
  const __m128i shift = _mm_cvtsi32_si128(exponents.shift[r]);
  const __m256i ones = _mm256_set1_epi16(1);
  for (size_t v = 0; v < kVectorsOfRow; ++v) {
    const __m256i score = load(scores + v * kWordLanes);
    const __m256i below = _mm256_min_epi16(_mm256_subs_epi16(top, score), most);
    x[v] = exp2_of_words(_mm256_mulhrs_epi16(_mm256_sll_epi16(below, shift), factor));
    if constexpr (!kAll) x[v] = _mm256_and_si256(x[v], mask_of(*seen, v * kWordLanes));
    store(out.weights[r] + v * kWordLanes, x[v]);
    x[v] = _mm256_madd_epi16(x[v], ones);
  }
  // Of every four tokens the first two go to one word, the last two to another, for 32 tokens.
  const __m256i a = _mm256_add_epi32(x[0], x[1]), b = _mm256_add_epi32(x[2], x[3]);
  const __m256i pairs = _mm256_add_epi32(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
  __m128i sums = _mm_add_epi32(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
  __m128i tops = _mm_max_epi32(sums, _mm_shuffle_epi32(sums, _MM_SHUFFLE(1, 0, 3, 2)));
  tops = _mm_max_epi32(tops, _mm_shuffle_epi32(tops, _MM_SHUFFLE(2, 3, 0, 1)));
  sums = _mm_add_epi32(sums, _mm_shuffle_epi32(sums, _MM_SHUFFLE(1, 0, 3, 2)));
  sums = _mm_add_epi32(sums, _mm_shuffle_epi32(sums, _MM_SHUFFLE(2, 3, 0, 1)));
  out.largest[r] = _mm_cvtsi128_si32(tops);
  out.totals[r] = _mm_cvtsi128_si32(sums);
}

// Weights become bytes: those of the 16 tokens that add up in a word are 258 together at most, so
// that 127 times as much is a word. Rounding adds a half each, dither nothing. With AVX-VNNI, which
// adds up in 32 bits, each may be 255. Returns their steps.
template <bool kVnni, size_t kCount>
HWY_INLINE __m256 round_weights(const WordWeights<kCount>& in, uint8_t (*bytes)[kTokens]) {
  constexpr float kMost = kVnni ? 254.0f : 258.0f - 16 / 2;
  constexpr int kFraction = 5;  // bits of a unit, before rounding
  // Weights that are much alike would all be rounded one way: each is moved by another part of a
  // unit first, neighbours by amounts that sum to zero; and all by a half.
  const __m256i dither = _mm256_add_epi16(
      _mm256_setr_epi16(-15, 15, -11, 11, 7, -7, 3, -3, -13, 13, -9, 9, 5, -5, 1, -1),
      _mm256_set1_epi16(1 << (kFraction - 1)));
  // A row's largest weight is 2^14, unless it sees nothing.
  __m256i largest = _mm256_set1_epi32(1 << 14);
  if constexpr (!kVnni) largest = _mm256_max_epi32(largest, load(in.largest));
  const __m256i units = _mm256_cvttps_epi32(_mm256_div_ps(
      _mm256_set1_ps(kMost * (2 << kFraction) * 16384.0f), _mm256_cvtepi32_ps(largest)));
  alignas(32) int32_t factors[kLanes];
  store(factors, units);
  for (size_t r = 0; r < kCount; ++r) {
    const __m256i factor = _mm256_set1_epi16(static_cast<int16_t>(factors[r]));
    const auto words = [&](size_t at) {
      const __m256i x = _mm256_mulhrs_epi16(load(in.weights[r] + at), factor);
      return _mm256_srai_epi16(_mm256_add_epi16(x, dither), kFraction);
    };
    for (size_t i = 0; i < kTokens; i += 2 * kWordLanes) {
      const __m256i mixed = _mm256_packus_epi16(words(i), words(i + kWordLanes));
      store(bytes[r] + i, _mm256_permute4x64_epi64(mixed, _MM_SHUFFLE(3, 1, 2, 0)));
    }
  }
  return _mm256_div_ps(_mm256_set1_ps(2 << kFraction), _mm256_cvtepi32_ps(units));
}

}  // namespace mkv::flash
HWY_POP_ATTRIBUTES
