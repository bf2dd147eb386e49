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

}  // namespace
}  // namespace mkv::avx512
