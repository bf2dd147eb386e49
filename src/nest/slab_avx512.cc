#include <hwy/base.h>

#include <algorithm>
#include <iterator>

#include "base/check.h"
#include "base/prefetch.h"
#include "nest/avx512.h"
#include "nest/slab_kernels.h"
#include "ops/instruction_set.h"

#if HWY_ARCH_X86_64
// GCC 12 takes what its own header leaves undefined on purpose for a mistake (its bug 105593).
#if HWY_COMPILER_GCC && !HWY_COMPILER_CLANG
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

HWY_PUSH_ATTRIBUTES("avx,avx2,fma,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")
#include "nest/avx512-inl.h"
namespace mkv::avx512 {
namespace {

constexpr size_t kTokens = 64, kHalf = 32, kEntries = kCodebookEntries, kColumns = kSlabColumns;

HWY_INLINE void add_bytes(__m512i& sum, __m512i a) {
  asm("vpaddb %1, %0, %0" : "+v"(sum) : "v"(a));
}

HWY_INLINE __m256i load_codes(const uint8_t* codes) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes));
}

// The four columns of a plane for a block: register i holds in its 128-bit part l the tokens
// 16 l + 4 i ... + 3 of column 0, then of column 1, 2, 3.
struct alignas(64) Quads {
  __m512i part[4];
};

HWY_INLINE Quads transpose(const __m512i* columns) {
  const __m512i a = _mm512_unpacklo_epi32(columns[0], columns[1]);
  const __m512i b = _mm512_unpackhi_epi32(columns[0], columns[1]);
  const __m512i c = _mm512_unpacklo_epi32(columns[2], columns[3]);
  const __m512i d = _mm512_unpackhi_epi32(columns[2], columns[3]);
  return {{_mm512_unpacklo_epi64(a, c), _mm512_unpackhi_epi64(a, c), _mm512_unpacklo_epi64(b, d),
           _mm512_unpackhi_epi64(b, d)}};
}

template <size_t kBlocks>
HWY_INLINE void expand(const CodePlanes& planes, const CodePlanes::Plane& plane,
                       const uint8_t* codes, size_t stride, Quads* out) {
  const __m512i shift = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi16(4), 1);
  const __m512i low_half = _mm512_set1_epi8(15);
  __m512i sum[kBlocks][kColumns];
  for (auto& of_block : sum) {
    for (__m512i& x : of_block) x = _mm512_setzero_si512();
  }
  for (size_t s = plane.begin; s < plane.end; ++s) {
    __m512i table[kColumns];
    for (size_t c = 0; c < kColumns; ++c) {
      table[c] = _mm512_broadcast_i32x4(_mm_loadu_si128(
          reinterpret_cast<const __m128i*>(planes.entries.data() + (s * kColumns + c) * kEntries)));
    }
    for (size_t b = 0; b < kBlocks; ++b) {
      const __m512i both =
          _mm512_broadcast_i64x4(load_codes(codes + b * stride + planes.slabs[s] * kHalf));
      const __m512i index = _mm512_and_si512(_mm512_srlv_epi16(both, shift), low_half);
      for (size_t c = 0; c < kColumns; ++c) {
        add_bytes(sum[b][c], _mm512_shuffle_epi8(table[c], index));
      }
    }
  }
  for (size_t b = 0; b < kBlocks; ++b) out[b] = transpose(sum[b]);
}

HWY_INLINE __m512i add_halves(__m512i x, __m512i y) {
  return _mm512_add_epi32(_mm512_shuffle_i32x4(x, y, _MM_SHUFFLE(1, 0, 1, 0)),
                          _mm512_shuffle_i32x4(x, y, _MM_SHUFFLE(3, 2, 3, 2)));
}

// The sums of each register's four 128-bit parts: part h of the result is of sums[h].
HWY_INLINE __m512i add_parts(const __m512i (&sums)[4]) {
  const __m512i x = add_halves(sums[0], sums[1]), y = add_halves(sums[2], sums[3]);
  return _mm512_add_epi32(_mm512_shuffle_i32x4(x, y, _MM_SHUFFLE(2, 0, 2, 0)),
                          _mm512_shuffle_i32x4(x, y, _MM_SHUFFLE(3, 1, 3, 1)));
}

// to[h][4] += factor[h] * scale[4] * sum h, for heads [first, first + kCount).
template <size_t kCount>
HWY_INLINE void add_sums(const __m512i (&sums)[4], const float* factor, const float* scale,
                         View<float> sums_of, size_t first, size_t column) {
  const __m128 scales = _mm_loadu_ps(scale);
  const __m512 whole = _mm512_cvtepi32_ps(add_parts(sums));
  const __m128 parts[4] = {_mm512_castps512_ps128(whole), _mm512_extractf32x4_ps(whole, 1),
                           _mm512_extractf32x4_ps(whole, 2), _mm512_extractf32x4_ps(whole, 3)};
  for (size_t h = 0; h < kCount; ++h) {
    float* to = sums_of.row(first + h).data() + column;
    const __m128 times = _mm_mul_ps(_mm_set1_ps(factor[first + h]), scales);
    _mm_storeu_ps(to, _mm_fmadd_ps(parts[h], times, _mm_loadu_ps(to)));
  }
}

// Weights of a head and block in the order of Quads: each four tokens' bytes once a column.
struct alignas(64) SpreadWeights {
  __m512i part[4];
};

template <size_t kHeads, size_t kPlanes, size_t kBlocks>
HWY_INLINE void weigh_planes(const CodePlanes& planes, size_t first, const CodeBlocks& blocks,
                             const SpreadWeights* weights, const float* factor, View<float> sums) {
  constexpr size_t kPadded = (kHeads + 3) / 4 * 4;
  Quads columns[kPlanes][kBlocks];
  for (size_t p = 0; p < kPlanes; ++p) {
    expand<kBlocks>(planes, planes.planes[first + p], blocks.data, blocks.stride, columns[p]);
  }
  __m512i sum[kPadded * kPlanes];  // [head][plane]
  unrolled<kPadded * kPlanes>(MKV_UNROLLED(i) { sum[i] = _mm512_setzero_si512(); });
#pragma GCC unroll 1
  for (size_t b = 0; b < kBlocks; ++b) {
    __m512i of_block[kPlanes][4];
    unrolled<kPlanes>(MKV_UNROLLED(p) {
      unrolled<4>(MKV_UNROLLED(i) {
        of_block[p][i] = columns[p][b].part[i];
        keep_in_register(of_block[p][i]);
      });
    });
    unrolled<kHeads>(MKV_UNROLLED(h) {
      unrolled<4>(MKV_UNROLLED(i) {
        const __m512i weight = weights[h * kWeighBlocks + b].part[i];
        unrolled<kPlanes>(
            MKV_UNROLLED(p) { add_byte_products(sum[h * kPlanes + p], weight, of_block[p][i]); });
      });
    });
  }
  unrolled<kPlanes>(MKV_UNROLLED(p) {
    const CodePlanes::Plane& plane = planes.planes[first + p];
    unrolled<kPadded / 4>(MKV_UNROLLED(four) {
      const size_t h = four * 4;
      __m512i four_sums[4];
      unrolled<4>(MKV_UNROLLED(i) { four_sums[i] = sum[(h + i) * kPlanes + p]; });
      if (h + 4 <= kHeads) {
        add_sums<4>(four_sums, factor, plane.scale, sums, h, plane.first_column);
      } else {
        add_sums<kHeads % 4>(four_sums, factor, plane.scale, sums, h, plane.first_column);
      }
    });
  });
}

template <size_t kHeads, size_t kBlocks>
HWY_INLINE void weigh_all_planes(const CodePlanes& planes, const CodeBlocks& blocks,
                                 const SpreadWeights* weights, const float* factor,
                                 View<float> sums) {
  Prefetcher ahead(blocks.ahead, planes.planes.size() / 2 + 1);
  size_t p = 0;
  for (; p + 2 <= planes.planes.size(); p += 2) {
    ahead.step();
    weigh_planes<kHeads, 2, kBlocks>(planes, p, blocks, weights, factor, sums);
  }
  if (p < planes.planes.size()) {
    weigh_planes<kHeads, 1, kBlocks>(planes, p, blocks, weights, factor, sums);
  }
}

template <size_t kHeads>
void weigh_heads(const CodePlanes& planes, const CodeBlocks& blocks, const uint8_t* weights,
                 const float* factor, View<float> sums) {
  SpreadWeights spread[kHeads * kWeighBlocks];
  for (size_t h = 0; h < kHeads; ++h) {
    for (size_t b = 0; b < blocks.count; ++b) {
      const size_t i = h * kWeighBlocks + b;
      const __m512i w = _mm512_loadu_si512(weights + i * kTokens);
      spread[i] = {{_mm512_shuffle_epi32(w, _MM_PERM_AAAA), _mm512_shuffle_epi32(w, _MM_PERM_BBBB),
                    _mm512_shuffle_epi32(w, _MM_PERM_CCCC),
                    _mm512_shuffle_epi32(w, _MM_PERM_DDDD)}};
    }
  }
  if (blocks.count == kWeighBlocks) {
    return weigh_all_planes<kHeads, kWeighBlocks>(planes, blocks, spread, factor, sums);
  }
  for (size_t b = 0; b < blocks.count; ++b) {
    const CodeBlocks one{blocks.data + b * blocks.stride, blocks.stride, 1, {}};
    weigh_all_planes<kHeads, 1>(planes, one, spread + b, factor, sums);
  }
}

// What the registers hold sums of two planes for.
constexpr size_t kMostHeads = 9;

}  // namespace

bool usable() { return has_vnni(); }

Softened soften_to_bytes(std::span<const float> scores, float top, uint8_t* weights) {
  constexpr float kMost = 255.0f;
  const __m512 shift = _mm512_set1_ps(top), log2e = _mm512_set1_ps(1.44269504f);
  __m512 sums[4] = {};
  for (size_t t = 0; t < scores.size(); t += kTokens) {
    __m512 x[4];
    unrolled<4>(MKV_UNROLLED(i) {
      const __m512 below = _mm512_sub_ps(_mm512_loadu_ps(scores.data() + t + i * 16), shift);
      x[i] = exp2_negative<5>(_mm512_mul_ps(below, log2e), kMost);
      sums[i] = _mm512_add_ps(sums[i], x[i]);
    });
    _mm512_storeu_si512(weights + t, bytes_of(x));
  }
  const __m512 sum =
      _mm512_add_ps(_mm512_add_ps(sums[0], sums[1]), _mm512_add_ps(sums[2], sums[3]));
  return {1.0f / kMost, _mm512_reduce_add_ps(sum) / kMost};
}

void weigh_slabs(const CodePlanes& planes, const CodeBlocks& blocks, const uint8_t* weights,
                 std::span<const float> factor, View<float> sums) {
  // Codes are expanded once for as many heads as there are.
  using Weigh =
      void (*)(const CodePlanes&, const CodeBlocks&, const uint8_t*, const float*, View<float>);
  static constexpr Weigh kWeigh[] = {weigh_heads<1>, weigh_heads<2>, weigh_heads<3>,
                                     weigh_heads<4>, weigh_heads<5>, weigh_heads<6>,
                                     weigh_heads<7>, weigh_heads<8>, weigh_heads<9>};
  static_assert(std::size(kWeigh) == kMostHeads);
  for (size_t h = 0; h < sums.rows; h += kMostHeads) {
    const size_t heads = std::min(kMostHeads, sums.rows - h);
    kWeigh[heads - 1](planes, blocks, weights + h * kWeighBlocks * kTokens, factor.data() + h,
                      sums.rows_from(h, heads));
  }
}

}  // namespace mkv::avx512
HWY_POP_ATTRIBUTES

#else

namespace mkv::avx512 {
bool usable() { return false; }
Softened soften_to_bytes(std::span<const float>, float, uint8_t*) {
  MKV_CHECK(false);
  return {};
}
void weigh_slabs(const CodePlanes&, const CodeBlocks&, const uint8_t*, std::span<const float>,
                 View<float>) {
  MKV_CHECK(false);
}
}  // namespace mkv::avx512

#endif
