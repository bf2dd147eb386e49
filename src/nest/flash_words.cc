// With AVX2, which has no products of bf16 but of 16-bit words, twice as many at once as of floats.
// Queries and keys have a step each (their largest element over most_of()), weights one for each
// row of a block, values one for each column of a block: sums over a block are exact integers.
// Values that were codes, and their weights, are bytes: twice as many again, and rounding them to
// 8 bits adds little to what coding took (decision 0025).
#include <hwy/base.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "nest/flash_kernels.h"
#include "ops/instruction_set.h"

#if HWY_ARCH_X86_64
// GCC 12 takes what its own header leaves undefined on purpose for a mistake (its bug 105593).
#if HWY_COMPILER_GCC && !HWY_COMPILER_CLANG
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include "nest/word_sums-inl.h"

HWY_PUSH_ATTRIBUTES("avx,avx2,fma")
namespace mkv::flash {
namespace {

constexpr size_t kTokens = 64;
constexpr size_t kRows = 6;  // of sums at once: with two vectors 12 registers of 16

// The largest word, so that the sum of as many products stays below 2^31.
float most_of(size_t products) {
  return std::floor(std::sqrt(2147483000.0f / static_cast<float>(products)));
}

HWY_INLINE void store(uint16_t* p, __m256i x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x);
}
HWY_INLINE __m256 magnitude(__m256 x) {
  return _mm256_and_ps(x, _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff)));
}
// Words of neighbours beside each other: of `even` in the low halves of lanes, of `odd` above.
HWY_INLINE __m256i beside(__m256 even, __m256 odd) {
  const __m256i low = _mm256_and_si256(_mm256_cvtps_epi32(even), _mm256_set1_epi32(0xffff));
  return _mm256_or_si256(low, _mm256_slli_epi32(_mm256_cvtps_epi32(odd), 16));
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
// 16 floats, rounded to words.
HWY_INLINE void store_words(__m256 first, __m256 last, uint16_t* words) {
  // Narrowing puts words in the order 0-3, 8-11, 4-7, 12-15, which a permutation undoes.
  store(words, _mm256_permute4x64_epi64(words_of(first, last), _MM_SHUFFLE(3, 1, 2, 0)));
}
// The same of a row that is a multiple of as many, times `factor`.
HWY_INLINE void round_row(std::span<const float> in, __m256 factor, uint16_t* words) {
  for (size_t i = 0; i < in.size(); i += 2 * kLanes) {
    store_words(_mm256_mul_ps(factor, _mm256_loadu_ps(in.data() + i)),
                _mm256_mul_ps(factor, _mm256_loadu_ps(in.data() + i + kLanes)), words + i);
  }
}
// The largest magnitude of a multiple of kLanes floats.
HWY_INLINE float largest_of(std::span<const float> x) {
  __m256 largest = _mm256_setzero_ps();
  for (size_t i = 0; i < x.size(); i += kLanes) {
    largest = _mm256_max_ps(largest, magnitude(_mm256_loadu_ps(x.data() + i)));
  }
  return largest_lane(largest);
}

// The steps of what is packed stand behind its words: of 64 keys, of head_dim columns of values.
const float* steps_of(const uint16_t* packed, size_t dim) {
  return reinterpret_cast<const float*>(packed + dim * kTokens);
}
float* steps_of(uint16_t* packed, size_t dim) {
  return reinterpret_cast<float*>(packed + dim * kTokens);
}

// Of a largest element: what a step of a word is; returns steps in 1, or 0 for nothing but zeros.
HWY_INLINE float step_of(float largest, float most, float& step) {
  step = largest / most;
  return step > 1e-37f ? 1.0f / step : 0.0f;
}

// [pair of columns][token][2].
void pack_keys(View<const float> columns, uint16_t* keys) {
  const float most = most_of(columns.rows);
  float* steps = steps_of(keys, columns.rows);
  for (size_t t = 0; t < kTokens; t += kLanes) {
    __m256 largest = _mm256_setzero_ps();
    for (size_t c = 0; c < columns.rows; ++c) {
      largest = _mm256_max_ps(largest, magnitude(_mm256_loadu_ps(columns.row(c).data() + t)));
    }
    float of_tokens[kLanes], factors[kLanes];
    _mm256_storeu_ps(of_tokens, largest);
    for (size_t i = 0; i < kLanes; ++i) factors[i] = step_of(of_tokens[i], most, steps[t + i]);
    const __m256 factor = _mm256_loadu_ps(factors);
    for (size_t c = 0; c < columns.rows; c += 2) {
      const __m256 even = _mm256_mul_ps(factor, _mm256_loadu_ps(columns.row(c).data() + t));
      const __m256 odd = _mm256_mul_ps(factor, _mm256_loadu_ps(columns.row(c + 1).data() + t));
      store(keys + c * kTokens + 2 * t, beside(even, odd));
    }
  }
}

// Weights of a block that are much alike would all be rounded one way: each is moved by another
// part of a unit first, neighbours by amounts that sum to zero.
alignas(32) constexpr float kDither[2][kLanes] = {
    {-15 / 32.0f, 15 / 32.0f, -11 / 32.0f, 11 / 32.0f, 7 / 32.0f, -7 / 32.0f, 3 / 32.0f,
     -3 / 32.0f},
    {-13 / 32.0f, 13 / 32.0f, -9 / 32.0f, 9 / 32.0f, 5 / 32.0f, -5 / 32.0f, 1 / 32.0f, -1 / 32.0f}};

// 64 floats times `factor`, rounded to bytes: of 0 ... 255 with dither or of -127 ... 127.
enum class Bytes { unsigned_weights, signed_values };
template <Bytes kBytes>
HWY_INLINE void round_to_bytes(const __m256 (&x)[8], __m256 factor, uint8_t* bytes) {
  constexpr bool kSigned = kBytes == Bytes::signed_values;
  const __m256 even = kSigned ? _mm256_setzero_ps() : _mm256_load_ps(kDither[0]);
  const __m256 odd = kSigned ? _mm256_setzero_ps() : _mm256_load_ps(kDither[1]);
  // Narrowing takes 4 of each vector by turns.
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  for (size_t i = 0; i < 8; i += 4) {
    const __m256i a =
        words_of(_mm256_fmadd_ps(x[i], factor, even), _mm256_fmadd_ps(x[i + 1], factor, odd));
    const __m256i b =
        words_of(_mm256_fmadd_ps(x[i + 2], factor, even), _mm256_fmadd_ps(x[i + 3], factor, odd));
    const __m256i mixed = kSigned ? _mm256_packs_epi16(a, b) : _mm256_packus_epi16(a, b);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(bytes + i * kLanes),
                        _mm256_permutevar8x32_epi32(mixed, order));
  }
}

HWY_INLINE void round_row(std::span<const float> in, __m256 factor, uint8_t* bytes) {
  __m256 x[8];
  for (size_t i = 0; i < 8; ++i) x[i] = _mm256_loadu_ps(in.data() + i * kLanes);
  round_to_bytes<Bytes::signed_values>(x, factor, bytes);
}

// [pair of tokens][column][2] of words, [four tokens][column][4] of bytes.
template <class Value>
void pack_values(View<const float> columns, uint16_t* packed) {
  constexpr size_t kStep = 4 / sizeof(Value);
  const float most = sizeof(Value) == 1 ? 127.0f : most_of(kTokens);
  float* steps = steps_of(packed, columns.rows);
  auto* values = reinterpret_cast<Value*>(packed);
  for (size_t c = 0; c < columns.rows; ++c) {
    const std::span<const float> row = columns.row(c);
    const __m256 factor = _mm256_set1_ps(step_of(largest_of(row), most, steps[c]));
    Value rounded[kTokens];
    round_row(row, factor, rounded);
    for (size_t t = 0; t < kTokens; t += kStep) {
      std::memcpy(values + t * columns.rows + kStep * c, rounded + t, 4);
    }
  }
}

void pack_query(std::span<const float> in, float scale, const Tile& tile, size_t row) {
  float step;
  const __m256 factor = _mm256_set1_ps(step_of(largest_of(in), most_of(in.size()), step));
  tile.steps[row] = step * scale * 1.44269504f;  // of scores as powers of 2
  round_row(in, factor, tile.queries + row * tile.head_dim);
}

// Not block_kernels' exp_and_sum: weights that go from there to words through the memory make a
// prompt's attention a sixth slower. 2^x for x <= 0: 2^n times a polynomial in the rest, whose
// relative error is below 2e-6, and none at 0, or (coarse) 8e-5. Far below zero it is 2^-126.
template <bool kCoarse>
HWY_INLINE __m256 exp2_negative(__m256 x) {
  const __m256 y = _mm256_max_ps(x, _mm256_set1_ps(-126.0f));
  const __m256 n = _mm256_round_ps(y, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m256 r = _mm256_sub_ps(y, n);
  const auto then = [&](__m256 p, float next) {
    return _mm256_fmadd_ps(p, r, _mm256_set1_ps(next));
  };
  __m256 p;
  if constexpr (kCoarse) {
    p = then(_mm256_set1_ps(5.51716691e-2f), 2.42611122e-1f);
    p = then(then(p, 6.93260985e-1f), 9.99928074e-1f);
  } else {
    p = then(_mm256_set1_ps(1.33335581e-3f), 9.61812911e-3f);
    p = then(then(p, 5.55041087e-2f), 2.40226507e-1f);
    p = then(then(p, 6.93147181e-1f), 1.0f);
  }
  const __m256i power = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23);
  return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), power));
}

// What a block gives a row of weights: how far its own top score and the row's are below the new
// one, as powers of 2; the sum of the weights, and their step.
struct Softened {
  float old = 0.0f, block = 0.0f, sum = 0.0f, step = 0.0f;
};

// A row's weights [64] become words; returns their step.
HWY_INLINE float round_weights(const __m256 (&x)[8], uint16_t* weights) {
  const float most = most_of(kTokens);
  const __m256 factor = _mm256_set1_ps(most);
  for (size_t i = 0; i < 8; i += 2) {
    store_words(_mm256_mul_ps(x[i], factor), _mm256_mul_ps(x[i + 1], factor), weights + i * kLanes);
  }
  return 1.0f / most;
}
// They become bytes: those of the 16 tokens that add up in a word are 258 together at most, so that
// 127 times as much is one. Rounding adds a half each, dither nothing.
HWY_INLINE float round_weights(const __m256 (&x)[8], uint8_t* weights) {
  constexpr float kMost = 258.0f - 16 / 2;
  const __m256 a = _mm256_add_ps(_mm256_add_ps(x[0], x[1]), _mm256_add_ps(x[2], x[3]));
  const __m256 b = _mm256_add_ps(_mm256_add_ps(x[4], x[5]), _mm256_add_ps(x[6], x[7]));
  // Of every four tokens the first two go to one word, the last two to another.
  const __m256 pairs = _mm256_hadd_ps(a, b);
  __m128 words = _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps(pairs, 1));
  words = _mm_max_ps(words, _mm_movehl_ps(words, words));
  const float most = kMost / _mm_cvtss_f32(_mm_max_ss(words, _mm_movehdup_ps(words)));
  round_to_bytes<Bytes::unsigned_weights>(x, _mm256_set1_ps(most), weights);
  return 1.0f / most;
}

// Scores [64] of a row, as powers of 2, become weights [64], integers; a row sees the tokens
// begin ... end - 1.
template <class Weight>
HWY_INLINE Softened soften(float* scores, size_t begin, size_t end, float& top_score,
                           Weight* weights) {
  if (begin >= end) {
    std::fill_n(weights, kTokens, Weight{0});
    return {};
  }
  std::fill_n(scores, begin, -HUGE_VALF);
  std::fill(scores + end, scores + kTokens, -HUGE_VALF);
  __m256 largest = _mm256_loadu_ps(scores);
  for (size_t t = kLanes; t < kTokens; t += kLanes) {
    largest = _mm256_max_ps(largest, _mm256_loadu_ps(scores + t));
  }
  // Weights are rounded against the block's own: they may all be small against the row's.
  const float block_top = largest_lane(largest), top = std::max(top_score, block_top);
  const __m256 shift = _mm256_set1_ps(block_top);
  __m256 x[8], sum = _mm256_setzero_ps();
  for (size_t i = 0; i < 8; ++i) {
    // What rounding to bytes takes is far more than the coarse polynomial's error.
    x[i] = exp2_negative<sizeof(Weight) == 1>(
        _mm256_sub_ps(_mm256_loadu_ps(scores + i * kLanes), shift));
    sum = _mm256_add_ps(sum, x[i]);
  }
  const Softened out{top_score - top, block_top - top, sum_of_lanes(sum),
                     round_weights(x, weights)};
  top_score = top;
  return out;
}

// Of some rows: factors of their earlier sums and of the block's integers. Totals are updated.
template <size_t kCount>
struct Factors {
  static_assert(kCount <= kLanes);
  float old[kLanes], block[kLanes];

  HWY_INLINE Factors(const Softened (&rows)[kCount], float* totals) {
    for (size_t r = 0; r < kLanes; ++r) {
      old[r] = r < kCount ? rows[r].old : 0.0f;
      block[r] = r < kCount ? rows[r].block : 0.0f;
    }
    _mm256_storeu_ps(old, exp2_negative<false>(_mm256_loadu_ps(old)));
    _mm256_storeu_ps(block, exp2_negative<false>(_mm256_loadu_ps(block)));
    for (size_t r = 0; r < kCount; ++r) {
      totals[r] = totals[r] * old[r] + rows[r].sum * block[r];
      block[r] *= rows[r].step;
    }
  }
};

// `Value`: of values and weights, words or bytes.
template <size_t kCount, class Value>
HWY_INLINE void attend_rows(const Tile& tile, size_t row, const uint16_t* keys,
                            const uint16_t* packed_values) {
  constexpr size_t kWidth = kVectors * kLanes;
  const size_t dim = tile.head_dim;
  const float* key_steps = steps_of(keys, dim);
  const float* value_steps = steps_of(packed_values, dim);
  const auto* values = reinterpret_cast<const Value*>(packed_values);
  __m256 sums[kCount][kVectors];
  float scores[kCount][kTokens];
  for (size_t t = 0; t < kTokens; t += kWidth) {
    multiply<kCount>(tile.queries + row * dim, dim, keys + 2 * t, 2 * kTokens, dim, sums);
    for (size_t v = 0; v < kVectors; ++v) {
      const __m256 step = _mm256_loadu_ps(key_steps + t + v * kLanes);
      for (size_t r = 0; r < kCount; ++r) {
        const __m256 times = _mm256_mul_ps(step, _mm256_set1_ps(tile.steps[row + r]));
        _mm256_storeu_ps(scores[r] + t + v * kLanes, _mm256_mul_ps(sums[r][v], times));
      }
    }
  }
  Value weights[kCount][kTokens];
  Softened rows[kCount];
  for (size_t r = 0; r < kCount; ++r) {
    const size_t token = (row + r) / tile.repeats;
    const auto hidden = std::max<ptrdiff_t>(0, tile.hidden + static_cast<ptrdiff_t>(token));
    const size_t end = std::min(kTokens, tile.first + tile.step * token);
    rows[r] = soften(scores[r], std::min(kTokens, static_cast<size_t>(hidden)), end,
                     tile.tops[row + r], weights[r]);
  }
  const Factors<kCount> factors(rows, tile.totals + row);
  for (size_t c = 0; c < dim; c += kWidth) {
    constexpr size_t kStep = 4 / sizeof(Value);
    multiply<kCount>(weights[0], kTokens, values + kStep * c, kStep * dim, kTokens, sums);
    for (size_t v = 0; v < kVectors; ++v) {
      const __m256 step = _mm256_loadu_ps(value_steps + c + v * kLanes);
      for (size_t r = 0; r < kCount; ++r) {
        float* to = tile.sums + (row + r) * dim + c + v * kLanes;
        const __m256 old = _mm256_mul_ps(_mm256_loadu_ps(to), _mm256_set1_ps(factors.old[r]));
        const __m256 times = _mm256_mul_ps(step, _mm256_set1_ps(factors.block[r]));
        _mm256_storeu_ps(to, _mm256_fmadd_ps(sums[r][v], times, old));
      }
    }
  }
}

template <class Value>
void attend_block(const Tile& tile, const uint16_t* keys, const uint16_t* values) {
  size_t row = 0;
  for (; row + kRows <= tile.rows; row += kRows) attend_rows<kRows, Value>(tile, row, keys, values);
  for (; row < tile.rows; ++row) attend_rows<1, Value>(tile, row, keys, values);
}

template <class Value>
constexpr Kernels kKernels{pack_keys, pack_values<Value>, pack_query, attend_block<Value>,
                           finish_rows};

}  // namespace

const Kernels* word_kernels() { return has_avx2() ? &kKernels<uint16_t> : nullptr; }
const Kernels* byte_kernels() { return has_avx2() ? &kKernels<uint8_t> : nullptr; }

}  // namespace mkv::flash
HWY_POP_ATTRIBUTES

#else

namespace mkv::flash {
const Kernels* word_kernels() { return nullptr; }
const Kernels* byte_kernels() { return nullptr; }
}  // namespace mkv::flash

#endif
