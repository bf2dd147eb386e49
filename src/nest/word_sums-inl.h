// Sums of products of words or of bytes with AVX2, for nest/flash_rows-inl.h: a few rows at a time,
// in registers.
#pragma once

#include <hwy/base.h>
#include <immintrin.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "ops/word_pairs.h"

HWY_PUSH_ATTRIBUTES("avx,avx2,fma")
namespace mkv::flash {

inline constexpr size_t kLanes = 8, kWordLanes = 16, kVectors = 2;

template <class Element>
HWY_INLINE __m256i load(const Element* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}

HWY_INLINE void store(void* p, __m256i x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x); }

// Sums of the rows from kRow on, of words or of bytes (unsigned ones times signed ones), which add
// up as words, or with AVX-VNNI as words do. A row holds the next ones where an array and loops
// would do, because GCC keeps what loops index in memory.
template <class Element, bool kVnni, size_t kRow, size_t kCount>
struct RowSums {
  static constexpr bool kBytes = sizeof(Element) == 1, kOfWords = kBytes && !kVnni;
  __m256i first, second;
  RowSums<Element, kVnni, kRow + 1, kCount> next;

  HWY_INLINE RowSums() : first(_mm256_setzero_si256()), second(_mm256_setzero_si256()) {}
  // Four bytes of each row of `left`, times as many of each lane of x and y.
  HWY_INLINE void add(const Element* left, size_t stride, __m256i x, __m256i y) {
    if constexpr (kBytes) {
      add_products_of_bytes<kVnni>(left, x, y, first, second);
    } else {
      add_products_of_words<kVnni>(left, x, y, first, second);
    }
    next.add(left + stride, stride, x, y);
  }
  HWY_INLINE void store_to(__m256i (*out)[kVectors]) const {
    out[kRow][0] = first;
    out[kRow][1] = second;
    next.store_to(out);
  }
  // Of words, with the sums in `earlier`.
  HWY_INLINE void widen_to(__m256 (*out)[kVectors], const __m256i (*earlier)[kVectors]) const {
    static_assert(kVectors == 2);
    __m256i x = widened(first), y = widened(second);
    if constexpr (kOfWords) {
      x = _mm256_add_epi32(x, widened(earlier[kRow][0]));
      y = _mm256_add_epi32(y, widened(earlier[kRow][1]));
    }
    out[kRow][0] = _mm256_cvtepi32_ps(x);
    out[kRow][1] = _mm256_cvtepi32_ps(y);
    next.widen_to(out, earlier);
  }
  static HWY_INLINE __m256i widened(__m256i x) {
    return kOfWords ? _mm256_madd_epi16(x, _mm256_set1_epi16(1)) : x;
  }
};
template <class Element, bool kVnni, size_t kCount>
struct RowSums<Element, kVnni, kCount, kCount> {
  HWY_INLINE RowSums() {}
  HWY_INLINE void add(const Element*, size_t, __m256i, __m256i) {}
  HWY_INLINE void store_to(__m256i (*)[kVectors]) const {}
  HWY_INLINE void widen_to(__m256 (*)[kVectors], const __m256i (*)[kVectors]) const {}
};

// out[kCount rows][kVectors] = sums of `count` elements: row r's are at left + r * left_stride,
// `right` has [4 bytes of elements][lane] with a stride of `right_stride` elements. Of bytes there
// are 64: more than 32 do not go to one sum of words. kVnni: with AVX-VNNI.
template <size_t kCount, bool kVnni, class Element>
HWY_INLINE void multiply(const Element* left, size_t left_stride, const Element* right,
                         size_t right_stride, size_t count, __m256 (*out)[kVectors]) {
  constexpr size_t kStep = 4 / sizeof(Element);
  using Sums = RowSums<Element, kVnni, 0, kCount>;
  __m256i earlier[kCount][kVectors];
  const size_t pieces = Sums::kOfWords ? 2 : 1, piece = count / pieces;
  for (size_t p = 0; p < pieces; ++p) {
    Sums sums;
    for (size_t i = 0; i < piece; i += kStep, left += kStep, right += right_stride) {
      sums.add(left, left_stride, load(right), load(right + kStep * kLanes));
    }
    if (p + 1 < pieces) {
      sums.store_to(earlier);
    } else {
      sums.widen_to(out, earlier);
    }
  }
}

}  // namespace mkv::flash
HWY_POP_ATTRIBUTES
