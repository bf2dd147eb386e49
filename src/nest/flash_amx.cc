// Attention of prefill by AMX. Everything is transposed: a lane is a query, so nothing is summed
// across a vector. Scores^T [64 tokens x 16 queries] are keys [tokens x dims] times queries^T,
// sums^T [dims x 16 queries] are values^T [dims x tokens] times weights^T.
//
// Left sides are tiles of 16 x 32: keys [token / 16][dim / 32][16 tokens][32 dims], values
// [dim / 16][token / 32][16 dims][32 tokens]. Right ones have pairs beside each other: queries of a
// group of 16 rows [dim / 2][row][2], weights [token / 2][row][2]. Sums of a group: [dim][row].
#include <hwy/base.h>

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "nest/flash_kernels.h"
#include "ops/amx.h"

#if HWY_ARCH_X86_64
// GCC 12 takes what its own header leaves undefined on purpose for a mistake (its bug 105593).
#if HWY_COMPILER_GCC && !HWY_COMPILER_CLANG
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

HWY_PUSH_ATTRIBUTES(
    "avx,avx2,fma,avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,amx-tile,amx-int8,amx-bf16")
namespace mkv::flash {
namespace {

constexpr size_t kTokens = 64, kTile = 16 * 32, kDepth = 32, kPairs = kDepth / 2;
constexpr size_t kStride = kAmxRowBytes;
constexpr float kLog2E = 1.44269504f;
// Below any score: what a query that saw nothing yet has for its largest.
constexpr float kLowest = -1e30f;

HWY_INLINE __m512i as_bits(__m512bh x) { return reinterpret_cast<__m512i>(x); }

// Neighbours of two rows beside each other, as bf16.
HWY_INLINE __m512i pairs_of(__m512 first, __m512 second) {
  const __m256i low = reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(first));
  const __m256i high = reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(second));
  return _mm512_or_si512(_mm512_cvtepu16_epi32(low),
                         _mm512_slli_epi32(_mm512_cvtepu16_epi32(high), 16));
}
HWY_INLINE __m512i brain_of(__m512 low, __m512 high) {
  return as_bits(_mm512_cvtne2ps_pbh(high, low));
}

// The same of weights, which are positive: rounded by their bits.
HWY_INLINE __m512i pairs_of_weights(__m512 first, __m512 second) {
  const __m512i half = _mm512_set1_epi32(0x8000);
  const __m512i low = _mm512_srli_epi32(_mm512_add_epi32(_mm512_castps_si512(first), half), 16);
  const __m512i high = _mm512_add_epi32(_mm512_castps_si512(second), half);
  return _mm512_mask_mov_epi16(low, __mmask32{0xaaaaaaaa}, high);
}

// 16 pairs to a column of 16 rows of 16 pairs.
HWY_INLINE void store_column(__m512i pairs, uint16_t* to) {
  const __m512i rows =
      _mm512_mullo_epi32(_mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0),
                         _mm512_set1_epi32(16));
  _mm512_i32scatter_epi32(to, rows, pairs, 4);
}

void pack_keys(View<const float> columns, uint16_t* keys) {
  const size_t depths = columns.rows / kDepth;
  for (size_t c = 0; c < columns.rows; c += 2) {
    const float* even = columns.row(c).data();
    const float* odd = columns.row(c + 1).data();
    uint16_t* to = keys + c / kDepth * kTile + c % kDepth;
    for (size_t t = 0; t < kTokens; t += 16, to += depths * kTile) {
      store_column(pairs_of(_mm512_loadu_ps(even + t), _mm512_loadu_ps(odd + t)), to);
    }
  }
}

void pack_values(View<const float> columns, uint16_t* values) {
  for (size_t c = 0; c < columns.rows; ++c) {
    uint16_t* to = values + c / 16 * 2 * kTile + c % 16 * kDepth;
    for (size_t t = 0; t < kTokens; t += kDepth, to += kTile) {
      const float* from = columns.row(c).data() + t;
      _mm512_storeu_si512(to, brain_of(_mm512_loadu_ps(from), _mm512_loadu_ps(from + 16)));
    }
  }
}

void pack_query(std::span<const float> in, float scale, const Tile& tile, size_t row) {
  const __m512 factor = _mm512_set1_ps(scale);
  uint16_t* to =
      tile.queries + row / kGroupRows * kGroupRows * tile.head_dim + row % kGroupRows * 2;
  for (size_t c = 0; c < in.size(); c += kDepth, to += kTile) {
    const __m512 low = _mm512_mul_ps(factor, _mm512_loadu_ps(in.data() + c));
    const __m512 high = _mm512_mul_ps(factor, _mm512_loadu_ps(in.data() + c + 16));
    store_column(brain_of(low, high), to);
  }
}

// 2^x for x <= 0, relative error below 4e-6: 2^floor(x) times a polynomial in the rest.
HWY_INLINE __m512 exp2_negative(__m512 x) {
  const __m512 r = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
  __m512 p = _mm512_set1_ps(1.36021351e-2f);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.19437234e-2f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(2.41430047e-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(6.93024094e-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(p, x);
}

// Scores^T of a group's 16 rows: four tiles of 16 tokens.
HWY_INLINE void score_group(const Tile& tile, size_t group, const uint16_t* keys, float* scores) {
  const size_t depths = tile.head_dim / kDepth;
  const uint16_t* queries = tile.queries + group * kGroupRows * tile.head_dim;
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (size_t d = 0; d < depths; ++d) {
    const uint16_t* from = keys + d * kTile;
    _tile_loadd(4, queries + d * kTile, kStride);
    _tile_loadd(5, from, kStride);
    _tile_dpbf16ps(0, 5, 4);
    _tile_loadd(5, from + depths * kTile, kStride);
    _tile_dpbf16ps(1, 5, 4);
    _tile_loadd(5, from + 2 * depths * kTile, kStride);
    _tile_dpbf16ps(2, 5, 4);
    _tile_loadd(5, from + 3 * depths * kTile, kStride);
    _tile_dpbf16ps(3, 5, 4);
  }
  _tile_stored(0, scores, kStride);
  _tile_stored(1, scores + 256, kStride);
  _tile_stored(2, scores + 512, kStride);
  _tile_stored(3, scores + 768, kStride);
}

// sums^T of 64 dims from `dim` += values^T times weights^T.
HWY_INLINE void weigh_group(const uint16_t* values, const uint16_t* weights, float* sums) {
  _tile_loadd(0, sums, kStride);
  _tile_loadd(1, sums + 256, kStride);
  _tile_loadd(2, sums + 512, kStride);
  _tile_loadd(3, sums + 768, kStride);
  for (size_t half = 0; half < 2; ++half, values += kTile) {
    _tile_loadd(4, weights + half * kTile, kStride);
    _tile_loadd(5, values, kStride);
    _tile_dpbf16ps(0, 5, 4);
    _tile_loadd(5, values + 2 * kTile, kStride);
    _tile_dpbf16ps(1, 5, 4);
    _tile_loadd(5, values + 4 * kTile, kStride);
    _tile_dpbf16ps(2, 5, 4);
    _tile_loadd(5, values + 6 * kTile, kStride);
    _tile_dpbf16ps(3, 5, 4);
  }
  _tile_stored(0, sums, kStride);
  _tile_stored(1, sums + 256, kStride);
  _tile_stored(2, sums + 512, kStride);
  _tile_stored(3, sums + 768, kStride);
}

// Which tokens [begin, end) of the block each row of a group sees.
struct Seen {
  __m512i begin, end;
  bool all = true;

  HWY_INLINE Seen(const Tile& tile, size_t group) {
    alignas(64) int32_t begins[kGroupRows], ends[kGroupRows];
    for (size_t i = 0; i < kGroupRows; ++i) {
      const size_t row = std::min(group * kGroupRows + i, tile.rows - 1);
      const size_t token = row / tile.repeats;
      const auto hidden =
          std::clamp<ptrdiff_t>(tile.hidden + static_cast<ptrdiff_t>(token), 0, kTokens);
      begins[i] = static_cast<int32_t>(hidden);
      ends[i] = static_cast<int32_t>(std::min(kTokens, tile.first + tile.step * token));
      all = all && begins[i] == 0 && ends[i] == kTokens;
    }
    begin = _mm512_load_si512(begins);
    end = _mm512_load_si512(ends);
  }
  HWY_INLINE __mmask16 of(size_t token) const {
    const __m512i t = _mm512_set1_epi32(static_cast<int>(token));
    return _mm512_mask_cmpgt_epi32_mask(_mm512_cmple_epi32_mask(begin, t), end, t);
  }
};

template <bool kAll>
HWY_INLINE __m512 largest_of(const float* scores, const Seen& seen) {
  __m512 top[4];
  for (__m512& x : top) x = _mm512_set1_ps(kLowest);
  for (size_t t = 0; t < kTokens; t += 4) {
    for (size_t i = 0; i < 4; ++i) {
      const __m512 x = _mm512_load_ps(scores + (t + i) * 16);
      if constexpr (kAll) {
        top[i] = _mm512_max_ps(top[i], x);
      } else {
        top[i] = _mm512_mask_max_ps(top[i], seen.of(t + i), top[i], x);
      }
    }
  }
  return _mm512_max_ps(_mm512_max_ps(top[0], top[1]), _mm512_max_ps(top[2], top[3]));
}

// Scores^T become weights^T; returns what the earlier sums are to be scaled by.
template <bool kAll>
HWY_INLINE __m512 soften(const float* scores, const Seen& seen, float* tops, float* totals,
                         uint16_t* weights) {
  const __m512 old_top = _mm512_max_ps(_mm512_loadu_ps(tops), _mm512_set1_ps(kLowest));
  const __m512 top = _mm512_max_ps(old_top, largest_of<kAll>(scores, seen));
  const __m512 log2e = _mm512_set1_ps(kLog2E), shift = _mm512_mul_ps(top, log2e);
  const __m512 factor = exp2_negative(_mm512_mul_ps(_mm512_sub_ps(old_top, top), log2e));
  __m512 even = _mm512_setzero_ps(), odd = even;
  for (size_t t = 0; t < kTokens; t += 2) {
    __m512 x[2];
    for (size_t i = 0; i < 2; ++i) {
      const __m512 y = _mm512_fmsub_ps(_mm512_load_ps(scores + (t + i) * 16), log2e, shift);
      x[i] = exp2_negative(y);
      if constexpr (!kAll) x[i] = _mm512_maskz_mov_ps(seen.of(t + i), x[i]);
    }
    even = _mm512_add_ps(even, x[0]);
    odd = _mm512_add_ps(odd, x[1]);
    _mm512_store_si512(weights + t * 16, pairs_of_weights(x[0], x[1]));
  }
  const __m512 total = _mm512_fmadd_ps(_mm512_loadu_ps(totals), factor, _mm512_add_ps(even, odd));
  _mm512_storeu_ps(tops, top);
  _mm512_storeu_ps(totals, total);
  return factor;
}

// What a group's weights are, with its sums scaled to their largest score.
HWY_INLINE void soften_group(const Tile& tile, size_t group, const float* scores,
                             uint16_t* weights) {
  const Seen seen(tile, group);
  float* tops = tile.tops + group * kGroupRows;
  float* totals = tile.totals + group * kGroupRows;
  const __m512 factor = seen.all ? soften<true>(scores, seen, tops, totals, weights)
                                 : soften<false>(scores, seen, tops, totals, weights);
  if (_mm512_cmpneq_ps_mask(factor, _mm512_set1_ps(1.0f)) == 0) return;
  float* sums = tile.sums + group * kGroupRows * tile.head_dim;
  for (size_t c = 0; c < tile.head_dim; ++c, sums += kGroupRows) {
    _mm512_storeu_ps(sums, _mm512_mul_ps(factor, _mm512_loadu_ps(sums)));
  }
}

// Three groups are on their way at once, as a tile that was just stored cannot be loaded soon, and
// products of tiles run beside those of vectors.
void attend_block(const Tile& tile, const uint16_t* keys, const uint16_t* values) {
  const TileScope scope(TileConfig::whole());
  const size_t groups = (tile.rows + kGroupRows - 1) / kGroupRows;
  alignas(64) float scores[2][kTokens * kGroupRows];
  alignas(64) uint16_t weights[2][kTokens * kGroupRows];
  score_group(tile, 0, keys, scores[0]);
  for (size_t g = 0; g <= groups; ++g) {
    if (g + 1 < groups) score_group(tile, g + 1, keys, scores[(g + 1) % 2]);
    if (g < groups) soften_group(tile, g, scores[g % 2], weights[g % 2]);
    if (g == 0) continue;
    float* sums = tile.sums + (g - 1) * kGroupRows * tile.head_dim;
    for (size_t c = 0; c < tile.head_dim; c += kTokens) {
      weigh_group(values + c * kTokens, weights[(g - 1) % 2], sums + c * kGroupRows);
    }
  }
}

void finish(const Tile& tile, size_t row, std::span<float> out) {
  const float factor = 1.0f / tile.totals[row];
  const float* from = tile.sums + row / kGroupRows * kGroupRows * tile.head_dim + row % kGroupRows;
  for (size_t c = 0; c < out.size(); ++c) out[c] = from[c * kGroupRows] * factor;
}

}  // namespace

const Kernels* amx_kernels() {
  static constexpr Kernels kKernels{pack_keys, pack_values, pack_query, attend_block, finish};
  return &kKernels;
}

}  // namespace mkv::flash
HWY_POP_ATTRIBUTES

#else

namespace mkv::flash {
const Kernels* amx_kernels() { return nullptr; }
}  // namespace mkv::flash

#endif
