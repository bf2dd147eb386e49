// What a row of queries keeps of a block with AVX2, for nest/flash_words.cc and
// nest/flash_codes.cc, and in part with AVX-512 (nest/flash_wide-inl.h): the block's weights are
// integers with a step, its values integers with a step for each column, and the row's sums are
// floats.
#pragma once

#include <hwy/base.h>
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "nest/block_kernels.h"
#include "nest/flash_kernels.h"
#include "nest/word_sums-inl.h"

HWY_PUSH_ATTRIBUTES("avx,avx2,fma")
namespace mkv::flash {

inline constexpr size_t kTokens = 64;
inline constexpr size_t kRows = 6;  // of sums at once: with two vectors 12 registers of 16

HWY_INLINE __m256 magnitude(__m256 x) {
  return _mm256_and_ps(x, _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff)));
}
HWY_INLINE float largest_lane(__m256 x) {
  __m128 y = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  y = _mm_max_ps(y, _mm_movehl_ps(y, y));
  return _mm_cvtss_f32(_mm_max_ss(y, _mm_movehdup_ps(y)));
}
HWY_INLINE float sum_of_lanes(__m256 x) {
  __m128 y = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  y = _mm_add_ps(y, _mm_movehl_ps(y, y));
  return _mm_cvtss_f32(_mm_add_ss(y, _mm_movehdup_ps(y)));
}
HWY_INLINE __m256i words_of(__m256 first, __m256 last) {
  return _mm256_packs_epi32(_mm256_cvtps_epi32(first), _mm256_cvtps_epi32(last));
}
// In the order of the floats: narrowing gives 0-3, 8-11, 4-7, 12-15, which a permutation undoes.
HWY_INLINE __m256i ordered_words(__m256 first, __m256 last) {
  return _mm256_permute4x64_epi64(words_of(first, last), _MM_SHUFFLE(3, 1, 2, 0));
}

// The largest magnitude of a multiple of kLanes floats.
HWY_INLINE float largest_of(std::span<const float> x) {
  __m256 largest = _mm256_setzero_ps();
  for (size_t i = 0; i < x.size(); i += kLanes) {
    largest = _mm256_max_ps(largest, magnitude(_mm256_loadu_ps(x.data() + i)));
  }
  return largest_lane(largest);
}

// Steps in 1, or 0 for steps of nothing but zeros.
HWY_INLINE float inverse_of(float step) { return step > 1e-37f ? 1.0f / step : 0.0f; }
// Of a largest element: what a step of a word is; returns its inverse.
HWY_INLINE float step_of(float largest, float most, float& step) {
  step = largest / most;
  return inverse_of(step);
}

// The largest word, so that the sum of as many products stays below 2^31.
inline float most_word(size_t products) {
  return std::floor(std::sqrt(2147483000.0f / static_cast<float>(products)));
}
// The steps of what is packed as words stand behind it: of 64 keys, of head_dim columns of values.
inline const float* word_steps(const uint16_t* packed, size_t dim) {
  return reinterpret_cast<const float*>(packed + dim * kTokens);
}
inline float* word_steps(uint16_t* packed, size_t dim) {
  return reinterpret_cast<float*>(packed + dim * kTokens);
}

// Columns of values, each rounded with a step of its own, as [4 bytes of tokens][column][4 bytes].
template <class Value, class Round>
HWY_INLINE void pack_value_columns(View<const float> columns, float most, Value* values,
                                   float* steps, const Round& round) {
  constexpr size_t kStep = 4 / sizeof(Value);
  for (size_t c = 0; c < columns.rows; ++c) {
    const std::span<const float> row = columns.row(c);
    const __m256 factor = _mm256_set1_ps(step_of(largest_of(row), most, steps[c]));
    Value rounded[kTokens];
    round(row, factor, rounded);
    for (size_t t = 0; t < kTokens; t += kStep) {
      std::memcpy(values + t * columns.rows + kStep * c, rounded + t, 4);
    }
  }
}

// Of the block's tokens a row sees [begin, end).
struct Visible {
  size_t begin, end;

  HWY_INLINE Visible(const Tile& tile, size_t row) {
    const size_t token = row / tile.repeats;
    const auto hidden = std::max<ptrdiff_t>(0, tile.hidden + static_cast<ptrdiff_t>(token));
    begin = std::min(kTokens, static_cast<size_t>(hidden));
    end = std::min(kTokens, tile.first + tile.step * token);
  }
};

// Not block_kernels' exp_and_sum: weights that go from there to words through the memory make a
// prompt's attention a sixth slower. 2^x for x <= 0: 2^n times a polynomial in the rest, whose
// relative error is below 2e-6, and none at 0. Far below zero, and of no number, it is 2^-126.
HWY_INLINE __m256 exp2_negative(__m256 x) {
  const __m256 y = _mm256_max_ps(x, _mm256_set1_ps(-126.0f));
  const __m256 n = _mm256_round_ps(y, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m256 r = _mm256_sub_ps(y, n);
  __m256 p = _mm256_set1_ps(1.33335581e-3f);
  for (const float next : {9.61812911e-3f, 5.55041087e-2f, 2.40226507e-1f, 6.93147181e-1f, 1.0f}) {
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(next));
  }
  const __m256i power = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23);
  return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), power));
}

// The first kCount lanes in memory.
template <size_t kCount>
HWY_INLINE __m256i lanes_of() {
  static_assert(kCount <= kLanes);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(kCount)),
                            _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

// Which of a tile's rows [first, first + count) a block's values are added to: not those of which
// its largest weight is less than 2^-tile.negligible of what they have added up (or half of that),
// but for those that fill up a group of kRows. `tops`: the block's largest scores, as powers of 2,
// and room for kLanes - 1 more.
template <size_t kMost>
struct HeavyRows {
  size_t count = 0;
  uint32_t at[kMost];  // of the tile

  HWY_INLINE HeavyRows(const Tile& tile, size_t first, size_t rows, const float* tops) {
    uint32_t light[kMost];
    size_t light_count = 0;
    for (size_t r = 0; r < rows; r += kLanes) {
      const __m256i totals = load(tile.totals + first + r);
      const __m256i power =  // of totals, or half of them
          _mm256_sub_epi32(_mm256_srli_epi32(totals, 23), _mm256_set1_epi32(127 + tile.negligible));
      const __m256 least =
          _mm256_add_ps(_mm256_loadu_ps(tile.tops + first + r), _mm256_cvtepi32_ps(power));
      const int below =
          _mm256_movemask_ps(_mm256_cmp_ps(_mm256_loadu_ps(tops + r), least, _CMP_LT_OQ));
      for (size_t i = 0; i < kLanes && r + i < rows; ++i) {
        const size_t is_light = static_cast<size_t>(below >> i & 1);
        at[count] = light[light_count] = static_cast<uint32_t>(first + r + i);
        count += 1 - is_light;
        light_count += is_light;
      }
    }
    while (count % kRows != 0 && light_count > 0) at[count++] = light[--light_count];
  }
};

// What a block gives rows of weights: their largest score, as a power of 2 (-infinity where a row
// sees nothing), the sum of the weights, and their step.
struct Softened {
  alignas(32) float tops[kLanes] = {}, sums[kLanes] = {}, steps[kLanes] = {};
};

// Of kCount rows: factors of their earlier sums and of the block's integers. Tops and totals are
// updated.
template <size_t kCount>
struct Factors {
  alignas(32) float old[kLanes], block[kLanes];

  HWY_INLINE Factors(const Softened& rows, const Tile& tile, const uint32_t* at) {
    alignas(32) float tops[kLanes] = {}, totals[kLanes] = {};
    for (size_t r = 0; r < kCount; ++r) {
      tops[r] = tile.tops[at[r]];
      totals[r] = tile.totals[at[r]];
    }
    const __m256 earlier = _mm256_load_ps(tops), here = _mm256_load_ps(rows.tops);
    const __m256 top = _mm256_max_ps(earlier, here);
    const __m256 of_old = exp2_negative(_mm256_sub_ps(earlier, top));
    const __m256 of_block = exp2_negative(_mm256_sub_ps(here, top));
    _mm256_store_ps(tops, top);
    _mm256_store_ps(totals, _mm256_fmadd_ps(_mm256_load_ps(rows.sums), of_block,
                                            _mm256_mul_ps(_mm256_load_ps(totals), of_old)));
    for (size_t r = 0; r < kCount; ++r) {
      tile.tops[at[r]] = tops[r];
      tile.totals[at[r]] = totals[r];
    }
    _mm256_store_ps(old, of_old);
    _mm256_store_ps(block, _mm256_mul_ps(of_block, _mm256_load_ps(rows.steps)));
  }
};

// Adds a block's weights [kCount][64], of its leading `tokens`, times its values to the sums of the
// rows `at`.
template <size_t kCount, bool kVnni, class Value>
HWY_INLINE void add_values(const Tile& tile, const uint32_t* at, const Softened& rows,
                           const Value* weights, const Value* values, const float* steps,
                           size_t tokens) {
  constexpr size_t kWidth = kVectors * kLanes, kStep = 4 / sizeof(Value);
  const size_t dim = tile.head_dim;
  const Factors<kCount> factors(rows, tile, at);
  __m256 sums[kCount][kVectors];
  for (size_t c = 0; c < dim; c += kWidth) {
    multiply<kCount, kVnni>(weights, kTokens, values + kStep * c, kStep * dim, tokens, sums);
    for (size_t v = 0; v < kVectors; ++v) {
      const __m256 step = _mm256_loadu_ps(steps + c + v * kLanes);
      for (size_t r = 0; r < kCount; ++r) {
        float* to = tile.sums + at[r] * dim + c + v * kLanes;
        const __m256 old = _mm256_mul_ps(_mm256_loadu_ps(to), _mm256_set1_ps(factors.old[r]));
        const __m256 times = _mm256_mul_ps(step, _mm256_set1_ps(factors.block[r]));
        _mm256_storeu_ps(to, _mm256_fmadd_ps(sums[r][v], times, old));
      }
    }
  }
}

// A tile's rows attend to a block: scores of kMost rows at a time, then values of the heavy ones.
// A kernel has score<kCount>(first, row), of the rows first + row ...; tops(first, count), see
// HeavyRows; and weigh<kCount>(first, at), of the rows `at`.
template <class Kernel>
HWY_INLINE void attend_rows(const Tile& tile, Kernel& kernel) {
  constexpr size_t kMost = Kernel::kMost;
  for (size_t first = 0; first < tile.rows; first += kMost) {
    const size_t count = std::min(kMost, tile.rows - first);
    size_t row = 0;
    for (; row + kRows <= count; row += kRows) kernel.template score<kRows>(first, row);
    for (; row < count; ++row) kernel.template score<1>(first, row);
    const HeavyRows<kMost> heavy(tile, first, count, kernel.tops(first, count));
    size_t i = 0;
    for (; i + kRows <= heavy.count; i += kRows) kernel.template weigh<kRows>(first, heavy.at + i);
    for (; i < heavy.count; ++i) kernel.template weigh<1>(first, heavy.at + i);
  }
}

}  // namespace mkv::flash
HWY_POP_ATTRIBUTES
