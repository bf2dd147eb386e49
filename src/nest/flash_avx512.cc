#include <hwy/base.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "nest/flash_kernels.h"

#if HWY_ARCH_X86_64
// GCC 12 takes what its own header leaves undefined on purpose for a mistake (its bug 105593).
#if HWY_COMPILER_GCC && !HWY_COMPILER_CLANG
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

HWY_PUSH_ATTRIBUTES("avx,avx2,fma,avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")
namespace mkv::flash {
namespace {

constexpr size_t kTokens = 64, kLanes = 16;

HWY_INLINE __m512bh as_bf16(__m512i x) { return reinterpret_cast<__m512bh>(x); }
HWY_INLINE __m512i as_bits(__m512bh x) { return reinterpret_cast<__m512i>(x); }
HWY_INLINE __m512i load(const uint16_t* p) { return _mm512_loadu_si512(p); }
HWY_INLINE __m512i pair_of(const uint16_t* p) {  // two bf16 in every lane
  int32_t bits;
  std::memcpy(&bits, p, sizeof(bits));
  return _mm512_set1_epi32(bits);
}

// e^x for x <= 0, relative error below 2e-6: 2^n times a polynomial in the rest. Far below zero it
// is 2^-126.
HWY_INLINE __m512 exp_negative(__m512 x) {
  const __m512 y =
      _mm512_max_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), _mm512_set1_ps(-126.0f));
  const __m512 n = _mm512_roundscale_ps(y, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 r = _mm512_sub_ps(y, n);
  __m512 p = _mm512_set1_ps(1.33335581e-3f);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(9.61812911e-3f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.55041087e-2f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(2.40226507e-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(6.93147181e-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(p, n);
}

// The leading n of the 64 tokens, as bits.
HWY_INLINE uint64_t leading(size_t n) {
  return n >= kTokens ? ~uint64_t{0} : (uint64_t{1} << n) - 1;
}

// Scores of a row become weights [64] in bf16; returns what its earlier sums are to be scaled by.
HWY_INLINE __m512 soften(__m512* scores, uint64_t seen, float& top_score, float& total,
                         uint16_t* weights) {
  if (seen == 0) {
    _mm512_storeu_si512(weights, _mm512_setzero_si512());
    _mm512_storeu_si512(weights + 32, _mm512_setzero_si512());
    return _mm512_set1_ps(1.0f);
  }
  if (seen != ~uint64_t{0}) {
    for (size_t i = 0; i < 4; ++i) {
      const auto kept = static_cast<__mmask16>(seen >> (i * kLanes));
      scores[i] = _mm512_mask_mov_ps(_mm512_set1_ps(-HUGE_VALF), kept, scores[i]);
    }
  }
  const float largest = _mm512_reduce_max_ps(
      _mm512_max_ps(_mm512_max_ps(scores[0], scores[1]), _mm512_max_ps(scores[2], scores[3])));
  const float top = std::max(top_score, largest);
  const __m512 shift = _mm512_set1_ps(top);
  const __m512 factor = exp_negative(_mm512_sub_ps(_mm512_set1_ps(top_score), shift));
  for (size_t i = 0; i < 4; ++i) scores[i] = exp_negative(_mm512_sub_ps(scores[i], shift));
  const float sum = _mm512_reduce_add_ps(
      _mm512_add_ps(_mm512_add_ps(scores[0], scores[1]), _mm512_add_ps(scores[2], scores[3])));
  top_score = top;
  total = total * _mm512_cvtss_f32(factor) + sum;
  _mm512_storeu_si512(weights, as_bits(_mm512_cvtne2ps_pbh(scores[1], scores[0])));
  _mm512_storeu_si512(weights + 32, as_bits(_mm512_cvtne2ps_pbh(scores[3], scores[2])));
  return factor;
}

// kRows rows times 64 tokens, then times 64 columns, stay in registers.
template <size_t kRows>
HWY_INLINE void attend_rows(const Tile& tile, size_t row, const uint16_t* keys,
                            const uint16_t* values) {
  const size_t dim = tile.head_dim;
  const uint16_t* queries = tile.queries + row * dim;
  __m512 sum[kRows][4];
  for (auto& of_row : sum) {
    for (__m512& x : of_row) x = _mm512_setzero_ps();
  }
  for (size_t c = 0; c < dim; c += 2) {
    __m512i key[4];
    for (size_t i = 0; i < 4; ++i) key[i] = load(keys + c * kTokens + i * 2 * kLanes);
    for (size_t r = 0; r < kRows; ++r) {
      const __m512i query = pair_of(queries + r * dim + c);
      for (size_t i = 0; i < 4; ++i) {
        sum[r][i] = _mm512_dpbf16_ps(sum[r][i], as_bf16(key[i]), as_bf16(query));
      }
    }
  }
  alignas(64) uint16_t weights[kRows][kTokens];
  __m512 factor[kRows];
  for (size_t r = 0; r < kRows; ++r) {
    const size_t token = (row + r) / tile.repeats;
    const auto hidden = std::max<ptrdiff_t>(0, tile.hidden + static_cast<ptrdiff_t>(token));
    const uint64_t seen =
        leading(tile.first + tile.step * token) & ~leading(static_cast<size_t>(hidden));
    factor[r] = soften(sum[r], seen, tile.tops[row + r], tile.totals[row + r], weights[r]);
  }
  for (size_t c = 0; c < dim; c += 4 * kLanes) {
    float* to = tile.sums + row * dim + c;
    for (size_t r = 0; r < kRows; ++r) {
      for (size_t i = 0; i < 4; ++i) {
        sum[r][i] = _mm512_mul_ps(factor[r], _mm512_loadu_ps(to + r * dim + i * kLanes));
      }
    }
    for (size_t t = 0; t < kTokens; t += 2) {
      __m512i value[4];
      for (size_t i = 0; i < 4; ++i) value[i] = load(values + t * dim + 2 * (c + i * kLanes));
      for (size_t r = 0; r < kRows; ++r) {
        const __m512i weight = pair_of(weights[r] + t);
        for (size_t i = 0; i < 4; ++i) {
          sum[r][i] = _mm512_dpbf16_ps(sum[r][i], as_bf16(value[i]), as_bf16(weight));
        }
      }
    }
    for (size_t r = 0; r < kRows; ++r) {
      for (size_t i = 0; i < 4; ++i) _mm512_storeu_ps(to + r * dim + i * kLanes, sum[r][i]);
    }
  }
}

void pack_keys(View<const float> columns, uint16_t* keys) {
  // Of two registers one after the other: an element of the first, then of the second.
  alignas(64) uint16_t order[32];
  for (size_t i = 0; i < 32; ++i) order[i] = static_cast<uint16_t>(i / 2 + i % 2 * kLanes);
  const __m512i interleave = load(order);
  for (size_t c = 0; c < columns.rows; c += 2) {
    for (size_t t = 0; t < kTokens; t += kLanes) {
      const __m512i both =
          as_bits(_mm512_cvtne2ps_pbh(_mm512_loadu_ps(columns.row(c + 1).data() + t),
                                      _mm512_loadu_ps(columns.row(c).data() + t)));
      _mm512_storeu_si512(keys + c * kTokens + 2 * t, _mm512_permutexvar_epi16(interleave, both));
    }
  }
}

// out = round(in * scale), a multiple of 32 elements.
HWY_INLINE void round_row(const float* in, size_t size, float scale, uint16_t* out) {
  const __m512 factor = _mm512_set1_ps(scale);
  for (size_t i = 0; i < size; i += 2 * kLanes) {
    const __m512 low = _mm512_mul_ps(factor, _mm512_loadu_ps(in + i));
    const __m512 high = _mm512_mul_ps(factor, _mm512_loadu_ps(in + i + kLanes));
    _mm512_storeu_si512(out + i, as_bits(_mm512_cvtne2ps_pbh(high, low)));
  }
}

void pack_values(View<const float> columns, uint16_t* values) {
  for (size_t c = 0; c < columns.rows; ++c) {
    alignas(64) uint16_t row[kTokens];
    round_row(columns.row(c).data(), kTokens, 1.0f, row);
    for (size_t t = 0; t < kTokens; t += 2) {
      std::memcpy(values + t * columns.rows + 2 * c, row + t, 2 * sizeof(uint16_t));
    }
  }
}

void pack_query(std::span<const float> in, float scale, const Tile& tile, size_t row) {
  round_row(in.data(), in.size(), scale, tile.queries + row * tile.head_dim);
}

void attend_block(const Tile& tile, const uint16_t* keys, const uint16_t* values) {
  size_t row = 0;
  for (; row + 6 <= tile.rows; row += 6) attend_rows<6>(tile, row, keys, values);
  for (; row < tile.rows; ++row) attend_rows<1>(tile, row, keys, values);
}

}  // namespace

const Kernels* avx512_kernels() {
  static constexpr Kernels kKernels{pack_keys, pack_values, pack_query, attend_block, finish_rows};
  return __builtin_cpu_supports("avx512bf16") != 0 ? &kKernels : nullptr;
}

}  // namespace mkv::flash
HWY_POP_ATTRIBUTES

#else

namespace mkv::flash {
const Kernels* avx512_kernels() { return nullptr; }
}  // namespace mkv::flash

#endif
