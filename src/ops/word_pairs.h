// Products of words and of bytes with AVX2, for kernels that keep twelve sums in registers.
#pragma once

#include <hwy/base.h>

#if HWY_ARCH_X86_64
#include <immintrin.h>

#include <cstdint>

HWY_PUSH_ATTRIBUTES("avx,avx2")
namespace mkv {

// What four bytes at `left`, in every lane, give with x and with y is added to first and second. As
// assembly, for GCC would load all the bytes of a loop first and run out of registers.
#define MKV_ADD_PRODUCTS(name, multiply, add)                                                     \
  HWY_INLINE void name(const void* left, __m256i x, __m256i y, __m256i& first, __m256i& second) { \
    using Four [[gnu::may_alias]] = int32_t;                                                      \
    __m256i factor, products;                                                                     \
    asm("vpbroadcastd %4, %2\n\t" multiply " %5, %2, %3\n\t" multiply " %6, %2, %2\n\t" add       \
        " %3, %0, %0\n\t" add " %2, %1, %1"                                                       \
        : "+x"(first), "+x"(second), "=&x"(factor), "=&x"(products)                               \
        : "m"(*static_cast<const Four*>(left)), "x"(x), "x"(y));                                  \
  }

// A pair of words times the pairs of each lane, to sums of 32 bits.
MKV_ADD_PRODUCTS(add_word_pairs, "vpmaddwd", "vpaddd")
// Words times words, over 2^15 and rounded, to words.
MKV_ADD_PRODUCTS(add_rounded_words, "vpmulhrsw", "vpaddw")
// Pairs of unsigned bytes times pairs of signed ones, to words.
MKV_ADD_PRODUCTS(add_byte_pairs, "vpmaddubsw", "vpaddw")

#undef MKV_ADD_PRODUCTS

// With AVX-VNNI, which adds up while it multiplies, to sums of 32 bits.
#define MKV_ADD_AT_ONCE(name, multiply)                                                           \
  HWY_INLINE void name(const void* left, __m256i x, __m256i y, __m256i& first, __m256i& second) { \
    using Four [[gnu::may_alias]] = int32_t;                                                      \
    __m256i factor;                                                                               \
    asm("vpbroadcastd %3, %2\n\t%{vex%} " multiply " %4, %2, %0\n\t%{vex%} " multiply             \
        " %5, %2, %1"                                                                             \
        : "+x"(first), "+x"(second), "=&x"(factor)                                                \
        : "m"(*static_cast<const Four*>(left)), "x"(x), "x"(y));                                  \
  }

// A pair of words times the pairs of each lane.
MKV_ADD_AT_ONCE(add_word_pairs_at_once, "vpdpwssd")
// Four unsigned bytes times the four signed ones of each lane.
MKV_ADD_AT_ONCE(add_byte_fours_at_once, "vpdpbusd")

#undef MKV_ADD_AT_ONCE

// With AVX-VNNI or without it, where bytes add up in words.
template <bool kVnni>
HWY_INLINE void add_products_of_words(const void* left, __m256i x, __m256i y, __m256i& first,
                                      __m256i& second) {
  if constexpr (kVnni) return add_word_pairs_at_once(left, x, y, first, second);
  add_word_pairs(left, x, y, first, second);
}
template <bool kVnni>
HWY_INLINE void add_products_of_bytes(const void* left, __m256i x, __m256i y, __m256i& first,
                                      __m256i& second) {
  if constexpr (kVnni) return add_byte_fours_at_once(left, x, y, first, second);
  add_byte_pairs(left, x, y, first, second);
}

// As add_word_pairs, to sums that start.
HWY_INLINE void multiply_word_pairs(const void* left, __m256i x, __m256i y, __m256i& first,
                                    __m256i& second) {
  using Four [[gnu::may_alias]] = int32_t;
  asm("vpbroadcastd %2, %1\n\tvpmaddwd %3, %1, %0\n\tvpmaddwd %4, %1, %1"
      : "=&x"(first), "=&x"(second)
      : "m"(*static_cast<const Four*>(left)), "x"(x), "x"(y));
}

}  // namespace mkv
HWY_POP_ATTRIBUTES
#endif  // HWY_ARCH_X86_64
