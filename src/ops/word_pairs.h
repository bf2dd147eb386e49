// Products of pairs of words with AVX2, for kernels that keep twelve sums in registers.
#pragma once

#include <hwy/base.h>

#if HWY_ARCH_X86_64
#include <immintrin.h>

#include <cstdint>

HWY_PUSH_ATTRIBUTES("avx,avx2")
namespace mkv {

// Adds the pair of words at `pair`, times the pairs in each lane of x and of y, to first and
// second. As assembly, for GCC would load all the pairs of a loop first and run out of registers.
HWY_INLINE void add_word_pairs(const void* pair, __m256i x, __m256i y, __m256i& first,
                               __m256i& second) {
  using Pair [[gnu::may_alias]] = int32_t;
  __m256i factor, products;
  asm("vpbroadcastd %4, %2\n\t"
      "vpmaddwd %5, %2, %3\n\t"
      "vpmaddwd %6, %2, %2\n\t"
      "vpaddd %3, %0, %0\n\t"
      "vpaddd %2, %1, %1"
      : "+x"(first), "+x"(second), "=&x"(factor), "=&x"(products)
      : "m"(*static_cast<const Pair*>(pair)), "x"(x), "x"(y));
}

}  // namespace mkv
HWY_POP_ATTRIBUTES
#endif  // HWY_ARCH_X86_64
