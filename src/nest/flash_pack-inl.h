// What attention to blocks that were codes takes with AVX2 (nest/flash_codes.cc): queries and keys
// are bytes but for the top columns, which are words; values are bytes.
#pragma once

#include <hwy/base.h>
#include <immintrin.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

#include "nest/flash_codes.h"
#include "nest/flash_rows-inl.h"

HWY_PUSH_ATTRIBUTES("avx,avx2,fma")
namespace mkv::flash {

// Rounding adds half of the root of their number to the norm of bytes: still below 2^15 together,
// of kMostColumns too. Scores stay near 2^14, so that words hold their differences. Two products of
// bytes, of queries up to 255 with their offset, add up in a word as well.
inline constexpr float kTopMost = 511.0f, kTopUnit = 64.0f;
inline constexpr CodeRange kQueryRange{246.0f, 127.0f, 512.0f, kTopMost, kTopUnit},
    kKeyRange{122.0f, 63.0f, 256.0f, kTopMost, kTopUnit};
inline constexpr int kScoreShift = 3;  // from the bytes' unit to a score's
inline constexpr int kWordShift = 15;  // from that of the top columns' products
static_assert(kTopUnit * kTopUnit == 1 << (kWordShift - kScoreShift));
// The largest score is in 32 bits, in that unit.
static_assert(kQueryRange.all * kKeyRange.all * kTopUnit * kTopUnit < 0x1p31f);
inline constexpr float kScoreUnit = 1 << kScoreShift;

// A packed query is, as bytes, of every four columns c that are bytes [c, c+1, c+2, c+3, c+2, c+3,
// c, c+1], plus 128; then each word twice. So 4 bytes of it meet, in every other token's lane, one
// pair of columns of the keys and then the other, and each word has a sum of its own.
// With AVX-VNNI 4 bytes meet four columns that are bytes, or two that are words.
struct QueryPlan {
  size_t bytes, words;  // columns

  explicit QueryPlan(size_t dim) : bytes(dim - top_columns(dim)), words(top_columns(dim)) {}
  size_t size() const { return 2 * bytes + 4 * words; }  // with room to spare for AVX-VNNI
};
inline constexpr int kOffset = 128;  // of a query's bytes, which are unsigned

// What a sum of scores is in, and how many columns go to it at once.
template <bool kVnni>
struct Columns {
  using Sum = std::conditional_t<kVnni, int32_t, int16_t>;
  static constexpr size_t kBytes = kVnni ? 4 : 2, kWords = kVnni ? 2 : 1;
};

// A packed block of keys: [kBytes columns][token][kBytes], [kWords columns][token][kWords] words,
// of each token what the queries' offset adds to its scores, negative, and its step over the
// block's largest in 2^-15; and that step. Where sums are of 32 bits all but the last two are, of
// every 16 tokens, of 0-3, 8-11, 4-7, 12-15: narrowing sums to words restores the order.
template <bool kVnni>
struct Keys {
  int8_t* bytes;
  int16_t* words;
  typename Columns<kVnni>::Sum* offsets;
  int16_t* shares;
  float* step;

  Keys(uint16_t* packed, const QueryPlan& plan)
      : bytes(reinterpret_cast<int8_t*>(packed)),
        words(reinterpret_cast<int16_t*>(bytes + plan.bytes * kTokens)),
        offsets(reinterpret_cast<decltype(offsets)>(words + plan.words * kTokens)),
        shares(reinterpret_cast<int16_t*>(offsets + kTokens)),
        step(reinterpret_cast<float*>(shares + kTokens)) {}
};

// What the steps (flash_codes.h) of queries or keys follow from: of 8 at once, the largest elements
// and the norms of the top columns and of the others.
struct Extent {
  __m256 largest[2] = {}, squares[2] = {};

  HWY_INLINE void add(bool top, __m256 x) {
    largest[top] = _mm256_max_ps(largest[top], magnitude(x));
    squares[top] = _mm256_fmadd_ps(x, x, squares[top]);
  }
  HWY_INLINE __m256 steps(const CodeRange& range) const {
    const auto over = [&](__m256 x, float most) {
      return _mm256_mul_ps(x, _mm256_set1_ps(1.0f / most));
    };
    const __m256 all = _mm256_sqrt_ps(_mm256_add_ps(squares[1], squares[0]));
    return _mm256_max_ps(
        _mm256_max_ps(over(largest[1], range.top), over(all, range.all)),
        _mm256_max_ps(over(largest[0], range.most), over(_mm256_sqrt_ps(squares[0]), range.bytes)));
  }
};

// Of 8 keys.
HWY_INLINE __m256 steps_of_keys(View<const float> columns, const uint16_t* order, size_t token) {
  Extent extent;
  for (size_t i = 0; i < columns.rows; ++i) {
    extent.add(i < top_columns(columns.rows),
               _mm256_loadu_ps(columns.row(order[i]).data() + token));
  }
  return extent.steps(kKeyRange);
}

// Lanes of neighbours a and b, of 16 bits each, one after the other.
HWY_INLINE void store_pairs(void* to, __m256i a, __m256i b) {
  auto* bytes = static_cast<uint8_t*>(to);
  store(bytes, _mm256_unpacklo_epi16(a, b));
  store(bytes + sizeof(__m256i), _mm256_unpackhi_epi16(a, b));
}

template <bool kVnni>
void pack_keys(View<const float> columns, const uint16_t* order, uint16_t* packed) {
  const QueryPlan plan(columns.rows);
  const Keys<kVnni> keys(packed, plan);
  alignas(32) float steps[kTokens], factors[kTokens];
  float largest = 0.0f;
  for (size_t t = 0; t < kTokens; t += kLanes) {
    _mm256_store_ps(steps + t, steps_of_keys(columns, order, t));
  }
  for (size_t t = 0; t < kTokens; ++t) {
    largest = std::max(largest, steps[t]);
    factors[t] = inverse_of(steps[t]);
  }
  *keys.step = largest;
  const __m256 share = _mm256_set1_ps(largest > 1e-37f ? 32767.0f / largest : 0.0f);
  for (size_t t = 0; t < kTokens; t += kWordLanes) {
    const __m256 low = _mm256_load_ps(factors + t), high = _mm256_load_ps(factors + t + kLanes);
    const auto rounded = [&](size_t i, float scale) {
      const float* x = columns.row(order[i]).data() + t;
      const __m256 times = _mm256_set1_ps(scale);
      return ordered_words(_mm256_mul_ps(_mm256_mul_ps(low, times), _mm256_loadu_ps(x)),
                           _mm256_mul_ps(_mm256_mul_ps(high, times), _mm256_loadu_ps(x + kLanes)));
    };
    for (size_t i = 0; i < plan.words; i += Columns<kVnni>::kWords) {
      int16_t* to = keys.words + i * kTokens + Columns<kVnni>::kWords * t;
      const __m256i x = rounded(i, kTopUnit);
      if constexpr (kVnni) {
        store_pairs(to, x, rounded(i + 1, kTopUnit));
      } else {
        store(to, x);
      }
    }
    __m256i sum = _mm256_setzero_si256();
    for (size_t i = 0; i < plan.bytes; i += 4) {
      const auto pair = [&](size_t of) {
        const __m256i even = rounded(plan.words + i + of, 1.0f);
        const __m256i odd = rounded(plan.words + i + of + 1, 1.0f);
        sum = _mm256_add_epi16(sum, _mm256_add_epi16(even, odd));
        return _mm256_or_si256(_mm256_and_si256(even, _mm256_set1_epi16(0xff)),
                               _mm256_slli_epi16(odd, 8));
      };
      const __m256i first = pair(0), last = pair(2);
      int8_t* to = keys.bytes + i * kTokens + Columns<kVnni>::kBytes * t;
      if constexpr (kVnni) {
        store_pairs(to, first, last);
      } else {
        store(to, _mm256_blend_epi16(first, last, 0xaa));
        store(to + 2 * kTokens, _mm256_blend_epi16(last, first, 0xaa));
      }
    }
    const __m256i offset = _mm256_set1_epi16(-kOffset), zero = _mm256_setzero_si256();
    if constexpr (kVnni) {
      store(keys.offsets + t, _mm256_madd_epi16(_mm256_unpacklo_epi16(sum, zero), offset));
      store(keys.offsets + t + kLanes, _mm256_madd_epi16(_mm256_unpackhi_epi16(sum, zero), offset));
    } else {
      store(keys.offsets + t, _mm256_mullo_epi16(sum, offset));
    }
    store(keys.shares + t, ordered_words(_mm256_mul_ps(share, _mm256_load_ps(steps + t)),
                                         _mm256_mul_ps(share, _mm256_load_ps(steps + t + kLanes))));
  }
}

// Rounded to bytes of -127 ... 127: 64 values of a column.
HWY_INLINE void round_column(std::span<const float> in, __m256 factor, uint8_t* bytes) {
  for (size_t i = 0; i < kTokens; i += 4 * kLanes) {
    const auto words = [&](size_t at) {
      return words_of(_mm256_mul_ps(factor, _mm256_loadu_ps(in.data() + i + at)),
                      _mm256_mul_ps(factor, _mm256_loadu_ps(in.data() + i + at + kLanes)));
    };
    // Narrowing takes 4 of each vector by turns.
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    store(bytes + i,
          _mm256_permutevar8x32_epi32(_mm256_packs_epi16(words(0), words(2 * kLanes)), order));
  }
}
inline void pack_values(View<const float> columns, uint16_t* packed) {
  auto* values = reinterpret_cast<uint8_t*>(packed);
  float* steps = reinterpret_cast<float*>(values + columns.rows * kTokens);
  pack_value_columns(columns, 127.0f, values, steps, round_column);
}

HWY_INLINE void store_both(void* p, __m128i first, __m128i last) {
  store(p, _mm256_inserti128_si256(_mm256_castsi128_si256(first), last, 1));
}

// Of a query whose top columns are the first.
HWY_INLINE float step_of_query(std::span<const float> in) {
  Extent extent;
  for (size_t i = 0; i < in.size(); i += kLanes) {
    extent.add(i < top_columns(in.size()), _mm256_loadu_ps(in.data() + i));
  }
  for (const bool top : {false, true}) {
    extent.largest[top] = _mm256_set1_ps(largest_lane(extent.largest[top]));
    extent.squares[top] = _mm256_set1_ps(sum_of_lanes(extent.squares[top]));
  }
  return _mm256_cvtss_f32(extent.steps(kQueryRange));
}

template <bool kVnni>
void pack_query(std::span<const float> in, float scale, const uint16_t* order, const Tile& tile,
                size_t row) {
  const QueryPlan plan(in.size());
  float ordered[kMostColumns];
  for (size_t i = 0; i < in.size(); ++i) ordered[i] = in[order[i]];
  const float step = step_of_query({ordered, in.size()});
  tile.steps[row] = step * scale * kScoreUnit * 1.44269504f;  // of scores as powers of 2
  auto* to = reinterpret_cast<uint8_t*>(tile.queries + row * packed_query_size(in.size()));
  const auto words = [&](size_t i, float unit) {
    const __m256 factor = _mm256_set1_ps(inverse_of(step) * unit);
    return ordered_words(_mm256_mul_ps(factor, _mm256_loadu_ps(ordered + i)),
                         _mm256_mul_ps(factor, _mm256_loadu_ps(ordered + i + kLanes)));
  };
  for (size_t i = plan.words; i < in.size(); i += kWordLanes) {
    const __m256i x = _mm256_add_epi16(words(i, 1.0f), _mm256_set1_epi16(kOffset));
    const __m128i bytes =
        _mm_packus_epi16(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    if constexpr (kVnni) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to), bytes);
      to += kWordLanes;
      continue;
    }
    // Each four twice, the second time with its halves exchanged.
    const __m128i turn = _mm_setr_epi8(2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);
    const __m128i turned = _mm_shuffle_epi8(bytes, turn);
    store_both(to, _mm_unpacklo_epi32(bytes, turned), _mm_unpackhi_epi32(bytes, turned));
    to += 2 * kWordLanes;
  }
  for (size_t i = 0; i < plan.words; i += kWordLanes) {
    const __m256i x = words(i, kTopUnit);
    if constexpr (kVnni) {
      store(to, x);
      to += 2 * kWordLanes;
      continue;
    }
    const __m256i low = _mm256_unpacklo_epi16(x, x), high = _mm256_unpackhi_epi16(x, x);
    store(to, _mm256_permute2x128_si256(low, high, 0x20));
    store(to + 32, _mm256_permute2x128_si256(low, high, 0x31));
    to += 4 * kWordLanes;
  }
}

}  // namespace mkv::flash
HWY_POP_ATTRIBUTES
