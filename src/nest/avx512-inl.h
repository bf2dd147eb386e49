// What the kernels by hand for AVX-512 share; included where the instruction set is switched on
// (HWY_PUSH_ATTRIBUTES), after <immintrin.h>.
#pragma once

#include <hwy/base.h>

#include <cstddef>
#include <utility>

namespace mkv::avx512 {
namespace {

// fn(0), fn(1) ... fn(kCount - 1), each as code of its own. GCC 12 keeps an array in registers only
// if it knows all of its indices before it unrolls loops in loops.
#define MKV_UNROLLED(i) [&](size_t i) __attribute__((always_inline))
template <size_t kCount, class Fn>
HWY_INLINE void unrolled(const Fn& fn) {
  [&]<size_t... kIndices>(std::index_sequence<kIndices...>) __attribute__((always_inline)) {
    (fn(kIndices), ...);
  }
  (std::make_index_sequence<kCount>());
}

// GCC would rather load again what was loaded, for each use.
HWY_INLINE void keep_in_register(__m512i& x) { asm("" : "+v"(x)); }

// sum += the products of four neighbouring bytes. As assembly, for GCC copies its sums around
// intrinsics that overwrite an operand.
HWY_INLINE void add_byte_products(__m512i& sum, __m512i unsigned_bytes, __m512i signed_bytes) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(unsigned_bytes), "v"(signed_bytes));
}

// The same of two neighbouring words.
HWY_INLINE void add_word_products(__m512i& sum, __m512i x, __m512i y) {
  asm("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(x), "v"(y));
}

// factor * 2^x for x <= 0, with a relative error below 9e-5, 3e-6 or 2e-7 by a polynomial of degree
// 3, 4 or 5, and none at 0. Far below zero, and of no number, it is factor * 2^-126.
template <size_t kDegree>
HWY_INLINE __m512 exp2_negative(__m512 x, float factor) {
  static_assert(kDegree >= 3 && kDegree <= 5);
  constexpr float kTerms[][6] = {
      {0.0770672721f, 0.227644739f, 0.695116844f, 1.0f},
      {0.0134267155f, 0.0522424239f, 0.241280228f, 0.693044842f, 1.0f},
      {0.00186713355f, 0.00901702295f, 0.0557999184f, 0.240164449f, 0.693151312f, 1.0f}};
  const float* terms = kTerms[kDegree - 3];
  const __m512 y = _mm512_max_ps(x, _mm512_set1_ps(-126.0f));
  const __m512 rest = _mm512_reduce_ps(y, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
  __m512 p = _mm512_set1_ps(factor * terms[0]);
  unrolled<kDegree>(
      MKV_UNROLLED(i) { p = _mm512_fmadd_ps(p, rest, _mm512_set1_ps(factor * terms[i + 1])); });
  return _mm512_scalef_ps(p, y);
}

// Four vectors of 0 ... 255, rounded to bytes, in their order.
HWY_INLINE __m512i bytes_of(const __m512* x) {
  const auto words = [&](size_t v) __attribute__((always_inline)) {
    return _mm512_packus_epi32(_mm512_cvtps_epi32(x[v]), _mm512_cvtps_epi32(x[v + 1]));
  };
  // Narrowing takes 4 of each vector by turns.
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  return _mm512_permutexvar_epi32(order, _mm512_packus_epi16(words(0), words(2)));
}

}  // namespace
}  // namespace mkv::avx512
