// Attention to blocks that were codes with AVX2 (flash_codes.h): queries and keys are bytes but for
// the top columns, which are words; values and weights are bytes. Scores are words of 16 bits
// throughout, counted in 8 of a query's and a key's steps.
#include "nest/flash_codes.h"

#include <hwy/base.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "ops/instruction_set.h"

#if HWY_ARCH_X86_64
// GCC 12 takes what its own header leaves undefined on purpose for a mistake (its bug 105593).
#if HWY_COMPILER_GCC && !HWY_COMPILER_CLANG
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include "nest/flash_rows-inl.h"
#include "nest/word_softmax-inl.h"

HWY_PUSH_ATTRIBUTES("avx,avx2,fma")
namespace mkv::flash {
namespace {

// Rounding adds half of the root of their number to the norm of bytes: still below 2^15 together,
// of kMostColumns too. Scores stay near 2^14, so that words hold their differences. Two products of
// bytes, of queries up to 255 with their offset, add up in a word as well.
constexpr float kTopMost = 511.0f, kTopUnit = 64.0f;
constexpr CodeRange kQueryRange{246.0f, 127.0f, 512.0f, kTopMost, kTopUnit},
    kKeyRange{122.0f, 63.0f, 256.0f, kTopMost, kTopUnit};
constexpr int kScoreShift = 3;  // from the bytes' unit to a score's
constexpr float kScoreUnit = 1 << kScoreShift;

// A packed query is, as bytes, of every four columns c that are bytes [c, c+1, c+2, c+3, c+2, c+3,
// c, c+1], plus 128; then each word twice. So 4 bytes of it meet, in every other token's lane, one
// pair of columns of the keys and then the other, and each word has a sum of its own.
struct QueryPlan {
  size_t bytes, words;  // columns

  explicit QueryPlan(size_t dim) : bytes(dim - top_columns(dim)), words(top_columns(dim)) {}
  size_t size() const { return 2 * bytes + 4 * words; }
};
constexpr int kOffset = 128;  // of a query's bytes, which are unsigned

// A packed block of keys: [pair of columns][token][2 bytes], [column][token] words, of each token
// what the queries' offset adds to its scores, negative, and its step over the block's largest in
// 2^-15; and that step.
struct Keys {
  int8_t* bytes;
  int16_t *words, *offsets, *shares;
  float* step;

  Keys(uint16_t* packed, const QueryPlan& plan)
      : bytes(reinterpret_cast<int8_t*>(packed)),
        words(reinterpret_cast<int16_t*>(bytes + plan.bytes * kTokens)),
        offsets(words + plan.words * kTokens),
        shares(offsets + kTokens),
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

void pack_keys(View<const float> columns, const uint16_t* order, uint16_t* packed) {
  const QueryPlan plan(columns.rows);
  const Keys keys(packed, plan);
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
    for (size_t i = 0; i < plan.words; ++i) {
      store(keys.words + i * kTokens + t, rounded(i, kTopUnit));
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
      int8_t* to = keys.bytes + i * kTokens + 2 * t;
      store(to, _mm256_blend_epi16(first, last, 0xaa));
      store(to + 2 * kTokens, _mm256_blend_epi16(last, first, 0xaa));
    }
    store(keys.offsets + t, _mm256_mullo_epi16(sum, _mm256_set1_epi16(-kOffset)));
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
void pack_values(View<const float> columns, uint16_t* packed) {
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
    // Each four twice, the second time with its halves exchanged.
    const __m128i turn = _mm_setr_epi8(2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);
    const __m128i turned = _mm_shuffle_epi8(bytes, turn);
    store_both(to, _mm_unpacklo_epi32(bytes, turned), _mm_unpackhi_epi32(bytes, turned));
    to += 2 * kWordLanes;
  }
  for (size_t i = 0; i < plan.words; i += kWordLanes) {
    const __m256i x = words(i, kTopUnit);
    const __m256i low = _mm256_unpacklo_epi16(x, x), high = _mm256_unpackhi_epi16(x, x);
    store(to, _mm256_permute2x128_si256(low, high, 0x20));
    store(to + 32, _mm256_permute2x128_si256(low, high, 0x31));
    to += 4 * kWordLanes;
  }
}

// Scores of the rows from kRow on with 32 tokens, as RowSums.
template <size_t kRow, size_t kCount>
struct ScoreSums {
  __m256i first, second;
  ScoreSums<kRow + 1, kCount> next;

  HWY_INLINE ScoreSums(__m256i x, __m256i y) : first(x), second(y), next(x, y) {}
  HWY_INLINE void add(const uint8_t* query, size_t stride, __m256i x, __m256i y) {
    add_byte_pairs(query, x, y, first, second);
    next.add(query + stride, stride, x, y);
  }
  // From the bytes' unit to that of scores.
  HWY_INLINE void shift() {
    first = _mm256_srai_epi16(first, kScoreShift);
    second = _mm256_srai_epi16(second, kScoreShift);
    next.shift();
  }
  HWY_INLINE void add_words(const uint8_t* query, size_t stride, __m256i x, __m256i y) {
    add_rounded_words(query, x, y, first, second);
    next.add_words(query + stride, stride, x, y);
  }
  // Times the keys' shares.
  HWY_INLINE void store_to(int16_t (*scores)[kTokens], size_t token, __m256i x, __m256i y) const {
    store(scores[kRow] + token, _mm256_mulhrs_epi16(first, x));
    store(scores[kRow] + token + kWordLanes, _mm256_mulhrs_epi16(second, y));
    next.store_to(scores, token, x, y);
  }
};
template <size_t kCount>
struct ScoreSums<kCount, kCount> {
  HWY_INLINE ScoreSums(__m256i, __m256i) {}
  HWY_INLINE void add(const uint8_t*, size_t, __m256i, __m256i) {}
  HWY_INLINE void shift() {}
  HWY_INLINE void add_words(const uint8_t*, size_t, __m256i, __m256i) {}
  HWY_INLINE void store_to(int16_t (*)[kTokens], size_t, __m256i, __m256i) const {}
};

template <size_t kCount>
HWY_INLINE void score_rows(const uint8_t* queries, const QueryPlan& plan, const Keys& keys,
                           int16_t (*scores)[kTokens]) {
  for (size_t t = 0; t < kTokens; t += 2 * kWordLanes) {
    ScoreSums<0, kCount> sums(load(keys.offsets + t), load(keys.offsets + t + kWordLanes));
    const uint8_t* query = queries;
    const int8_t* bytes = keys.bytes + 2 * t;
    for (size_t i = 0; i < plan.bytes; i += 2, query += 4, bytes += 2 * kTokens) {
      sums.add(query, plan.size(), load(bytes), load(bytes + 2 * kWordLanes));
    }
    sums.shift();
    const int16_t* words = keys.words + t;
    for (size_t i = 0; i < plan.words; ++i, query += 4, words += kTokens) {
      sums.add_words(query, plan.size(), load(words), load(words + kWordLanes));
    }
    sums.store_to(scores, t, load(keys.shares + t), load(keys.shares + t + kWordLanes));
  }
}

// A block for attend_rows; kAll: every row sees all of it.
template <bool kAll, bool kVnni>
class CodeBlock {
 public:
  static constexpr size_t kMost = 96;

  CodeBlock(const Tile& tile, const uint16_t* keys, const uint16_t* values)
      : tile_(tile),
        plan_(tile.head_dim),
        keys_(const_cast<uint16_t*>(keys), plan_),  // reads only
        values_(reinterpret_cast<const uint8_t*>(values)),
        value_steps_(reinterpret_cast<const float*>(values_ + tile.head_dim * kTokens)) {}

  template <size_t kCount>
  HWY_INLINE void score(size_t first, size_t row) {
    const auto* queries = reinterpret_cast<const uint8_t*>(tile_.queries);
    score_rows<kCount>(queries + (first + row) * plan_.size(), plan_, keys_, scores_ + row);
    for (size_t r = row; r < row + kCount; ++r) {
      if constexpr (kAll) {
        largest_[r] = largest_score<true>(scores_[r], nullptr);
      } else {
        const Visible seen(tile_, first + r);
        largest_[r] = largest_score<false>(scores_[r], &seen);
      }
    }
  }

  HWY_INLINE const float* tops(size_t first, size_t count) {
    for (size_t r = 0; r < count; r += kLanes) {
      const __m256 unit = unit_of(_mm256_loadu_ps(tile_.steps + first + r));
      _mm256_store_ps(tops_ + r, _mm256_mul_ps(unit, _mm256_cvtepi32_ps(load(largest_ + r))));
    }
    return tops_;
  }

  template <size_t kCount>
  HWY_INLINE void weigh(size_t first, const uint32_t* at) const {
    alignas(32) float steps[kLanes] = {};
    WordWeights<kCount> words;
    for (size_t r = 0; r < kCount; ++r) {
      steps[r] = tile_.steps[at[r]];
      words.tops[r] = largest_[at[r] - first];
    }
    const __m256 unit = unit_of(_mm256_load_ps(steps));
    const Exponents exponents(unit);
    for (size_t r = 0; r < kCount; ++r) {
      if constexpr (kAll) {
        soften<true>(scores_[at[r] - first], exponents, r, nullptr, words);
      } else {
        const Visible seen(tile_, at[r]);
        soften<false>(scores_[at[r] - first], exponents, r, &seen, words);
      }
    }
    Softened rows;
    alignas(32) uint8_t weights[kCount][kTokens];
    _mm256_store_ps(rows.steps, round_weights(words, weights));
    const __m256i totals = load(words.totals);
    _mm256_store_ps(rows.sums,
                    _mm256_mul_ps(_mm256_cvtepi32_ps(totals), _mm256_set1_ps(1.0f / 16384.0f)));
    // A row that sees nothing has no weight.
    const __m256 nothing = _mm256_castsi256_ps(_mm256_cmpeq_epi32(totals, _mm256_setzero_si256()));
    const __m256 tops = _mm256_mul_ps(unit, _mm256_cvtepi32_ps(load(words.tops)));
    _mm256_store_ps(rows.tops, _mm256_blendv_ps(tops, _mm256_set1_ps(-HUGE_VALF), nothing));
    add_values<kCount, kVnni>(tile_, at, rows, weights[0], values_, value_steps_, kTokens);
  }

 private:
  // Of scores of queries with these steps, in powers of 2.
  HWY_INLINE __m256 unit_of(__m256 steps) const {
    return _mm256_mul_ps(steps, _mm256_set1_ps(*keys_.step));
  }

  const Tile& tile_;
  const QueryPlan plan_;
  const Keys keys_;
  const uint8_t* values_;
  const float* value_steps_;
  alignas(32) int16_t scores_[kMost][kTokens];
  alignas(32) int32_t largest_[kMost] = {};
  alignas(32) float tops_[kMost];
};

template <bool kAll, bool kVnni>
void attend_block_of(const Tile& tile, const uint16_t* keys, const uint16_t* values) {
  CodeBlock<kAll, kVnni> block(tile, keys, values);
  attend_rows(tile, block);
}

template <bool kVnni>
void attend_block(const Tile& tile, const uint16_t* keys, const uint16_t* values) {
  const Visible first(tile, 0), last(tile, tile.rows - 1);
  if (last.begin == 0 && first.end == kTokens) {
    attend_block_of<true, kVnni>(tile, keys, values);
  } else {
    attend_block_of<false, kVnni>(tile, keys, values);
  }
}

template <bool kVnni>
constexpr CodeKernels kKernels{pack_keys,           pack_values, pack_query,
                               attend_block<kVnni>, kQueryRange, kKeyRange};

}  // namespace

const CodeKernels* byte_kernels() {
  if (has_avx2_vnni()) return &kKernels<true>;
  return has_avx2() ? &kKernels<false> : nullptr;
}

}  // namespace mkv::flash
HWY_POP_ATTRIBUTES

#else

namespace mkv::flash {
const CodeKernels* byte_kernels() { return nullptr; }
}  // namespace mkv::flash

#endif
