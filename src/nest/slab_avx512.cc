#include <hwy/base.h>

#include <cstring>

#include "base/check.h"
#include "nest/avx512.h"
#include "nest/slab_kernels.h"
#include "ops/instruction_set.h"

#if HWY_ARCH_X86_64
// GCC 12 takes what its own header leaves undefined on purpose for a mistake (its bug 105593).
#if HWY_COMPILER_GCC && !HWY_COMPILER_CLANG
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

HWY_PUSH_ATTRIBUTES("avx,avx2,fma,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")
namespace mkv::avx512 {
namespace {

constexpr size_t kTokens = 64, kHalf = 32, kEntries = kCodebookEntries, kColumns = kSlabColumns;

HWY_INLINE __m256i load_codes(const uint8_t* codes) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes));
}

// 32 16-bit sums times `unit`, added to scores[32].
HWY_INLINE void add_scores(__m512i sums, __m512 unit, float* scores) {
  const __m512i low = _mm512_cvtepi16_epi32(_mm512_castsi512_si256(sums));
  const __m512i high = _mm512_cvtepi16_epi32(_mm512_extracti64x4_epi64(sums, 1));
  _mm512_storeu_ps(scores, _mm512_fmadd_ps(_mm512_cvtepi32_ps(low), unit, _mm512_loadu_ps(scores)));
  _mm512_storeu_ps(scores + 16,
                   _mm512_fmadd_ps(_mm512_cvtepi32_ps(high), unit, _mm512_loadu_ps(scores + 16)));
}

// A table of 16 words twice is one register: a permutation of 16-bit lanes looks up 32 tokens by
// the lowest five bits of each, so that the code above it in the byte needs no mask.
template <size_t kHeads, size_t kBlocks>
HWY_INLINE void score_tile(const ScoreTables& tables, const CodeBlocks& blocks, size_t block,
                           size_t head, View<float> scores) {
  const size_t stride = scores.rows * kEntries;
  const int16_t* entries = tables.entries + head * kEntries;
  const uint8_t* codes = blocks.data + block * blocks.stride;
  __m512i sums[kHeads][kBlocks][2];
  for (auto& of_head : sums) {
    for (auto& of_block : of_head) of_block[0] = of_block[1] = _mm512_setzero_si512();
  }
  for (size_t s = 0; s < tables.slabs; ++s) {
    __m512i table[kHeads];
    for (size_t h = 0; h < kHeads; ++h) {
      table[h] = _mm512_broadcast_i64x4(_mm256_loadu_si256(
          reinterpret_cast<const __m256i*>(entries + s * stride + h * kEntries)));
    }
    for (size_t b = 0; b < kBlocks; ++b) {
      const __m512i low = _mm512_cvtepu8_epi16(load_codes(codes + b * blocks.stride + s * kHalf));
      const __m512i high = _mm512_srli_epi16(low, 4);
      for (size_t h = 0; h < kHeads; ++h) {
        sums[h][b][0] = _mm512_add_epi16(sums[h][b][0], _mm512_permutexvar_epi16(low, table[h]));
        sums[h][b][1] = _mm512_add_epi16(sums[h][b][1], _mm512_permutexvar_epi16(high, table[h]));
      }
    }
  }
  for (size_t h = 0; h < kHeads; ++h) {
    const __m512 unit = _mm512_set1_ps(tables.unit[head + h]);
    for (size_t b = 0; b < kBlocks; ++b) {
      float* to = scores.row(head + h).data() + (block + b) * kTokens;
      add_scores(sums[h][b][0], unit, to);
      add_scores(sums[h][b][1], unit, to + kHalf);
    }
  }
}

// A pair's term of kHeads heads times the angles of a block's 64 tokens.
template <size_t kHeads>
HWY_INLINE size_t angle_tiles(const int16_t* terms, std::span<const float> unit,
                              const int16_t* angles, size_t pairs, View<float> scores,
                              size_t head) {
  for (; head + kHeads <= scores.rows; head += kHeads) {
    for (size_t b = 0; b < scores.cols / kTokens; ++b) {
      __m512i sums[kHeads][4];
      for (auto& of_head : sums) {
        for (__m512i& x : of_head) x = _mm512_setzero_si512();
      }
      for (size_t i = 0; i < pairs; ++i) {
        const int16_t* at = angles + (b * pairs + i) * kTokens * 2;
        __m512i angle[4];
        for (size_t j = 0; j < 4; ++j) angle[j] = _mm512_loadu_si512(at + j * kTokens / 2);
        for (size_t h = 0; h < kHeads; ++h) {
          int32_t term;
          std::memcpy(&term, terms + ((head + h) * pairs + i) * 2, sizeof(term));
          const __m512i factor = _mm512_set1_epi32(term);
          for (size_t j = 0; j < 4; ++j) {
            sums[h][j] = _mm512_dpwssd_epi32(sums[h][j], angle[j], factor);
          }
        }
      }
      for (size_t h = 0; h < kHeads; ++h) {
        for (size_t j = 0; j < 4; ++j) {
          _mm512_storeu_ps(
              scores.row(head + h).data() + b * kTokens + j * 16,
              _mm512_mul_ps(_mm512_cvtepi32_ps(sums[h][j]), _mm512_set1_ps(unit[head + h])));
        }
      }
    }
  }
  return head;
}

template <size_t kHeads>
HWY_INLINE void score_heads(const ScoreTables& tables, const CodeBlocks& blocks, size_t head,
                            View<float> scores) {
  size_t b = 0;
  for (; b + 4 <= blocks.count; b += 4) score_tile<kHeads, 4>(tables, blocks, b, head, scores);
  for (; b < blocks.count; ++b) score_tile<kHeads, 1>(tables, blocks, b, head, scores);
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
        sum[b][c] = _mm512_add_epi8(sum[b][c], _mm512_shuffle_epi8(table[c], index));
      }
    }
  }
  for (size_t b = 0; b < kBlocks; ++b) out[b] = transpose(sum[b]);
}

// to[4] += factor * scale[4] * the sums of the four 128-bit parts.
HWY_INLINE void add_sums(__m512i sums, float factor, const float* scale, float* to) {
  const __m256i half =
      _mm256_add_epi32(_mm512_castsi512_si256(sums), _mm512_extracti64x4_epi64(sums, 1));
  const __m128i whole =
      _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
  const __m128 times = _mm_mul_ps(_mm_set1_ps(factor), _mm_loadu_ps(scale));
  _mm_storeu_ps(to, _mm_fmadd_ps(_mm_cvtepi32_ps(whole), times, _mm_loadu_ps(to)));
}

// Weights of a head and block in the order of Quads: each four tokens' bytes once a column.
struct alignas(64) SpreadWeights {
  __m512i part[4];
};

template <size_t kHeads, size_t kPlanes>
HWY_INLINE void weigh_planes(const CodePlanes& planes, size_t first, const CodeBlocks& blocks,
                             const SpreadWeights* weights, const float* factor, View<float> sums) {
  __m512i sum[kHeads][kPlanes];
  for (auto& of_head : sum) {
    for (__m512i& x : of_head) x = _mm512_setzero_si512();
  }
  Quads columns[kPlanes][kWeighBlocks];
  for (size_t p = 0; p < kPlanes; ++p) {
    const CodePlanes::Plane& plane = planes.planes[first + p];
    size_t b = 0;
    for (; b + 4 <= blocks.count; b += 4) {
      expand<4>(planes, plane, blocks.data + b * blocks.stride, blocks.stride, columns[p] + b);
    }
    for (; b < blocks.count; ++b) {
      expand<1>(planes, plane, blocks.data + b * blocks.stride, blocks.stride, columns[p] + b);
    }
  }
  for (size_t b = 0; b < blocks.count; ++b) {
    Quads of_block[kPlanes];
    for (size_t p = 0; p < kPlanes; ++p) of_block[p] = columns[p][b];
    for (size_t h = 0; h < kHeads; ++h) {
      for (size_t i = 0; i < 4; ++i) {
        const __m512i weight = weights[h * kWeighBlocks + b].part[i];
        for (size_t p = 0; p < kPlanes; ++p) {
          sum[h][p] = _mm512_dpbusd_epi32(sum[h][p], weight, of_block[p].part[i]);
        }
      }
    }
  }
  for (size_t p = 0; p < kPlanes; ++p) {
    const CodePlanes::Plane& plane = planes.planes[first + p];
    for (size_t h = 0; h < kHeads; ++h) {
      add_sums(sum[h][p], factor[h], plane.scale, sums.row(h).data() + plane.first_column);
    }
  }
}

template <size_t kHeads>
HWY_INLINE void weigh_heads(const CodePlanes& planes, const CodeBlocks& blocks,
                            const uint8_t* weights, const float* factor, View<float> sums) {
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
  size_t p = 0;
  for (; p + 2 <= planes.planes.size(); p += 2) {
    weigh_planes<kHeads, 2>(planes, p, blocks, spread, factor, sums);
  }
  if (p < planes.planes.size()) {
    weigh_planes<kHeads, 1>(planes, p, blocks, spread, factor, sums);
  }
}

// Heads from `head` on in tiles of kHeads; returns the first left over. Codes are expanded once for
// a tile: nine heads is what the registers hold sums of two planes for.
template <size_t kHeads>
HWY_INLINE size_t weigh_tiles(const CodePlanes& planes, const CodeBlocks& blocks,
                              const uint8_t* weights, std::span<const float> factor,
                              View<float> sums, size_t head) {
  for (; head + kHeads <= sums.rows; head += kHeads) {
    weigh_heads<kHeads>(planes, blocks, weights + head * kWeighBlocks * kTokens,
                        factor.data() + head, sums.rows_from(head, kHeads));
  }
  return head;
}

}  // namespace

bool usable() { return has_vnni(); }

void score_slabs(const ScoreTables& tables, const CodeBlocks& blocks, View<float> scores) {
  size_t h = 0;
  for (; h + 3 <= scores.rows; h += 3) score_heads<3>(tables, blocks, h, scores);
  for (; h < scores.rows; ++h) score_heads<1>(tables, blocks, h, scores);
}

void score_angles(const int16_t* terms, std::span<const float> unit, const int16_t* angles,
                  size_t pairs, View<float> scores) {
  const size_t h = angle_tiles<5>(terms, unit, angles, pairs, scores, 0);
  const size_t rest = angle_tiles<2>(terms, unit, angles, pairs, scores, h);
  angle_tiles<1>(terms, unit, angles, pairs, scores, rest);
}

void weigh_slabs(const CodePlanes& planes, const CodeBlocks& blocks, const uint8_t* weights,
                 std::span<const float> factor, View<float> sums) {
  size_t h = 0;
  h = weigh_tiles<9>(planes, blocks, weights, factor, sums, h);
  h = weigh_tiles<4>(planes, blocks, weights, factor, sums, h);
  h = weigh_tiles<2>(planes, blocks, weights, factor, sums, h);
  weigh_tiles<1>(planes, blocks, weights, factor, sums, h);
}

}  // namespace mkv::avx512
HWY_POP_ATTRIBUTES

#else

namespace mkv::avx512 {
bool usable() { return false; }
void score_slabs(const ScoreTables&, const CodeBlocks&, View<float>) { MKV_CHECK(false); }
void weigh_slabs(const CodePlanes&, const CodeBlocks&, const uint8_t*, std::span<const float>,
                 View<float>) {
  MKV_CHECK(false);
}
void score_angles(const int16_t*, std::span<const float>, const int16_t*, size_t, View<float>) {
  MKV_CHECK(false);
}
}  // namespace mkv::avx512

#endif
