// Attention to blocks that were codes with AVX-512 VNNI (flash_codes.h): queries and keys are bytes
// but for the top columns, which are words; values and weights are bytes; sums are exact.
#include <hwy/base.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "nest/flash_codes.h"
#include "ops/instruction_set.h"

#if HWY_ARCH_X86_64
// GCC 12 takes what its own header leaves undefined on purpose for a mistake (its bug 105593).
#if HWY_COMPILER_GCC && !HWY_COMPILER_CLANG
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include "nest/flash_rows-inl.h"

HWY_PUSH_ATTRIBUTES("avx,avx2,fma,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")
#include "nest/flash_wide-inl.h"
namespace mkv::flash {
namespace {

// No sum is more than the product of two norms, 2^30 in a top column's units: so it is in 32 bits,
// whatever it passes through.
constexpr float kTopUnit = 32.0f;
constexpr int kScoreShift = 10;  // of both units
constexpr CodeRange kRange{
    .bytes = 1000.0f, .most = 127.0f, .all = 1000.0f, .top = 1000.0f, .top_unit = kTopUnit};
static_assert(kTopUnit * kTopUnit == 1 << kScoreShift && kTopUnit * kRange.all < 32767.0f);
// So the norm of all columns and the largest byte are enough to tell a step.
static_assert(kRange.bytes >= kRange.all && kRange.top >= kRange.all);

constexpr size_t kFour = 4, kPair = 2;
constexpr size_t kStep = kWideVectors * sizeof(__m512i);  // bytes of four columns of keys
constexpr int kOffset = 128;                              // of a key's bytes, which are unsigned

// Where a packed query or block of keys has what: bytes [four columns][token][4], words [pair of
// columns][token][2]; of a query then what the keys' offset adds to its scores, negative; of keys
// each token's step.
struct Plan {
  size_t bytes, words;  // columns

  explicit Plan(size_t dim) : bytes(dim - top_columns(dim)), words(top_columns(dim)) {}
  size_t words_at(size_t tokens) const { return bytes * tokens; }
  size_t rest_at(size_t tokens) const { return (bytes + kPair * words) * tokens; }
};

// Rounded to words in the low halves of lanes.
HWY_INLINE __m512i rounded(const float* x, __m512 factor) {
  return _mm512_cvtps_epi32(_mm512_mul_ps(factor, _mm512_loadu_ps(x)));
}

HWY_INLINE __m512 inverses_of(__m512 steps) {
  const __mmask16 some = _mm512_cmp_ps_mask(steps, _mm512_set1_ps(1e-37f), _CMP_GT_OQ);
  return _mm512_maskz_div_ps(some, _mm512_set1_ps(1.0f), steps);
}

// Of 16 keys: what their steps (flash_codes.h) are.
HWY_INLINE __m512 steps_of_keys(View<const float> columns, const uint16_t* order, size_t token) {
  const size_t top = top_columns(columns.rows);
  __m512 largest = _mm512_setzero_ps(), squares = largest;
  for (size_t i = 0; i < columns.rows; ++i) {
    const __m512 x = _mm512_loadu_ps(columns.row(order[i]).data() + token);
    squares = _mm512_fmadd_ps(x, x, squares);
    if (i >= top) largest = _mm512_max_ps(largest, _mm512_abs_ps(x));
  }
  return _mm512_max_ps(_mm512_mul_ps(largest, _mm512_set1_ps(1.0f / kRange.most)),
                       _mm512_mul_ps(_mm512_sqrt_ps(squares), _mm512_set1_ps(1.0f / kRange.all)));
}

void pack_keys(View<const float> columns, const uint16_t* order, uint16_t* packed) {
  const Plan plan(columns.rows);
  auto* bytes = reinterpret_cast<uint8_t*>(packed);
  uint8_t* words = bytes + plan.words_at(kTokens);
  auto* steps = reinterpret_cast<float*>(bytes + plan.rest_at(kTokens));
  for (size_t t = 0; t < kTokens; t += kWideLanes) {
    const __m512 step = steps_of_keys(columns, order, t), factor = inverses_of(step);
    const auto column = [&](size_t i) { return columns.row(order[i]).data() + t; };
    _mm512_storeu_ps(steps + t, step);
    const __m512 of_top = _mm512_mul_ps(factor, _mm512_set1_ps(kTopUnit));
    const __m512i low_half = _mm512_set1_epi32(0xffff);
    for (size_t i = 0; i < plan.words; i += kPair) {
      const __m512i even = _mm512_and_si512(rounded(column(i), of_top), low_half);
      const __m512i odd = _mm512_slli_epi32(rounded(column(i + 1), of_top), 16);
      _mm512_storeu_si512(words + (i * kTokens + kPair * t) * sizeof(int16_t),
                          _mm512_or_si512(even, odd));
    }
    for (size_t i = 0; i < plan.bytes; i += kFour) {
      __m512i four = _mm512_setzero_si512();
      for (size_t c = kFour; c-- > 0;) {
        const __m512i x = rounded(column(plan.words + i + c), factor);
        four = _mm512_or_si512(_mm512_slli_epi32(four, 8),
                               _mm512_add_epi32(x, _mm512_set1_epi32(kOffset)));
      }
      _mm512_storeu_si512(bytes + i * kTokens + kFour * t, four);
    }
  }
}

void pack_query(std::span<const float> in, float scale, const uint16_t* order, const Tile& tile,
                size_t row) {
  const Plan plan(in.size());
  float ordered[kMostColumns];
  for (size_t i = 0; i < in.size(); ++i) ordered[i] = in[order[i]];
  __m512 largest = _mm512_setzero_ps(), squares = largest;
  for (size_t i = 0; i < in.size(); i += kWideLanes) {
    const __m512 x = _mm512_loadu_ps(ordered + i);
    squares = _mm512_fmadd_ps(x, x, squares);
    if (i >= plan.words) largest = _mm512_max_ps(largest, _mm512_abs_ps(x));
  }
  const float step = std::max(_mm512_reduce_max_ps(largest) / kRange.most,
                              std::sqrt(_mm512_reduce_add_ps(squares)) / kRange.all);
  constexpr float kUnit = 1.44269504f / (1 << kScoreShift);  // of scores as powers of 2
  tile.steps[row] = step * scale * kUnit;
  auto* to = reinterpret_cast<uint8_t*>(tile.queries + row * packed_query_size(in.size()));
  const __m512 factor = _mm512_set1_ps(inverse_of(step));
  __m512i sum = _mm512_setzero_si512();
  for (size_t i = 0; i < plan.bytes; i += kWideLanes) {
    const __m512i x = rounded(ordered + plan.words + i, factor);
    sum = _mm512_add_epi32(sum, x);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i), _mm512_cvtepi32_epi8(x));
  }
  const __m512 of_top = _mm512_mul_ps(factor, _mm512_set1_ps(kTopUnit));
  for (size_t i = 0; i < plan.words; i += kWideLanes) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + plan.words_at(1) + i * sizeof(int16_t)),
                        _mm512_cvtepi32_epi16(rounded(ordered + i, of_top)));
  }
  const int32_t offset = -kOffset * _mm512_reduce_add_epi32(sum);
  std::memcpy(to + plan.rest_at(1), &offset, sizeof(offset));
}

// For WideBlock.
class ByteProducts {
 public:
  using Weight = uint8_t;
  static constexpr float kOne = 255.0f;

  ByteProducts(const Tile& tile, const uint16_t* keys, const uint16_t* values)
      : tile_(tile),
        plan_(tile.head_dim),
        keys_(reinterpret_cast<const uint8_t*>(keys)),
        values_(reinterpret_cast<const uint8_t*>(values)),
        key_steps_(reinterpret_cast<const float*>(keys_ + plan_.rest_at(kTokens))),
        value_steps_(reinterpret_cast<const float*>(values_ + tile.head_dim * kTokens)) {}

  template <size_t kCount>
  HWY_INLINE void score(size_t row, __m512* scores) const {
    const size_t stride = packed_query_size(tile_.head_dim) * sizeof(*tile_.queries);
    const auto* query = reinterpret_cast<const uint8_t*>(tile_.queries) + row * stride;
    __m512i sums[kCount * kWideVectors];
    unrolled<kCount>(MKV_UNROLLED(r) {
      const __m512i offset = four_bytes(query + r * stride + plan_.rest_at(1));
      unrolled<kWideVectors>(MKV_UNROLLED(v) { sums[r * kWideVectors + v] = offset; });
    });
    const uint8_t* keys = keys_;
    for (size_t i = 0; i < plan_.bytes; i += kFour, query += kFour, keys += kStep) {
      add_products<kCount>(query, stride, keys, sums, ByteTimesUnsigned());
    }
    unrolled<kCount * kWideVectors>(
        MKV_UNROLLED(i) { sums[i] = _mm512_slli_epi32(sums[i], kScoreShift); });
    for (size_t i = 0; i < plan_.words; i += kPair, query += kFour, keys += kStep) {
      add_products<kCount>(query, stride, keys, sums, WordTimesWord());
    }
    scale_lanes<kCount>(sums, key_steps_, scores);
  }

  static HWY_INLINE void round(const __m512* x, uint8_t* to) {
    _mm512_store_si512(to, avx512::bytes_of(x));
  }

  template <size_t kCount>
  HWY_INLINE void weigh(const uint8_t* weights, size_t column, __m512* out) const {
    __m512i sums[kCount * kWideVectors];
    unrolled<kCount * kWideVectors>(MKV_UNROLLED(i) { sums[i] = _mm512_setzero_si512(); });
    const uint8_t* values = values_ + kFour * column;
    for (size_t t = 0; t < kTokens; t += kFour, values += kFour * tile_.head_dim) {
      add_products<kCount>(weights + t, kTokens, values, sums, UnsignedTimesByte());
    }
    scale_lanes<kCount>(sums, value_steps_ + column, out);
  }

 private:
  const Tile& tile_;
  const Plan plan_;
  const uint8_t *keys_, *values_;
  const float *key_steps_, *value_steps_;
};

}  // namespace

const CodeKernels* wide_byte_kernels() {
  if (!has_vnni() || byte_kernels() == nullptr) return nullptr;
  static const CodeKernels kKernels{pack_keys,  byte_kernels()->pack_values,
                                    pack_query, attend_wide<ByteProducts>,
                                    kRange,     kRange};
  return &kKernels;
}

}  // namespace mkv::flash
HWY_POP_ATTRIBUTES

#else

namespace mkv::flash {
const CodeKernels* wide_byte_kernels() { return nullptr; }
}  // namespace mkv::flash

#endif
