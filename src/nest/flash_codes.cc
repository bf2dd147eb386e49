// Attention to blocks that were codes with AVX2 (flash_codes.h): queries and keys are bytes but for
// the top columns, which are words; values and weights are bytes. Scores are words of 16 bits,
// throughout or (with AVX-VNNI) once they are summed up, counted in 8 of a query's and a key's
// steps.
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

#include "nest/flash_pack-inl.h"
#include "nest/flash_rows-inl.h"
#include "nest/word_softmax-inl.h"

HWY_PUSH_ATTRIBUTES("avx,avx2,fma")
namespace mkv::flash {
namespace {

// Scores of the rows from kRow on, as RowSums: of 32 tokens, or of 16 in sums of 32 bits.
template <bool kVnni, size_t kRow, size_t kCount>
struct ScoreSums {
  __m256i first, second;
  ScoreSums<kVnni, kRow + 1, kCount> next;

  HWY_INLINE ScoreSums(__m256i x, __m256i y) : first(x), second(y), next(x, y) {}
  HWY_INLINE void add(const uint8_t* query, size_t stride, __m256i x, __m256i y) {
    add_products_of_bytes<kVnni>(query, x, y, first, second);
    next.add(query + stride, stride, x, y);
  }
  // From the bytes' unit to that of scores, or of products of words.
  HWY_INLINE void shift() {
    if constexpr (kVnni) {
      first = _mm256_slli_epi32(first, kWordShift - kScoreShift);
      second = _mm256_slli_epi32(second, kWordShift - kScoreShift);
    } else {
      first = _mm256_srai_epi16(first, kScoreShift);
      second = _mm256_srai_epi16(second, kScoreShift);
    }
    next.shift();
  }
  HWY_INLINE void add_words(const uint8_t* query, size_t stride, __m256i x, __m256i y) {
    if constexpr (kVnni) {
      add_word_pairs_at_once(query, x, y, first, second);
    } else {
      add_rounded_words(query, x, y, first, second);
    }
    next.add_words(query + stride, stride, x, y);
  }
  // Times the shares of the keys from a token on: x, and where words are added up y of the next 16.
  HWY_INLINE void store_to(int16_t (*scores)[kTokens], size_t token, __m256i x, __m256i y) const {
    if constexpr (kVnni) {
      const __m256i both = _mm256_packs_epi32(_mm256_srai_epi32(first, kWordShift),
                                              _mm256_srai_epi32(second, kWordShift));
      store(scores[kRow] + token, _mm256_mulhrs_epi16(both, x));
    } else {
      store(scores[kRow] + token, _mm256_mulhrs_epi16(first, x));
      store(scores[kRow] + token + kWordLanes, _mm256_mulhrs_epi16(second, y));
    }
    next.store_to(scores, token, x, y);
  }
};
template <bool kVnni, size_t kCount>
struct ScoreSums<kVnni, kCount, kCount> {
  HWY_INLINE ScoreSums(__m256i, __m256i) {}
  HWY_INLINE void add(const uint8_t*, size_t, __m256i, __m256i) {}
  HWY_INLINE void shift() {}
  HWY_INLINE void add_words(const uint8_t*, size_t, __m256i, __m256i) {}
  HWY_INLINE void store_to(int16_t (*)[kTokens], size_t, __m256i, __m256i) const {}
};

template <size_t kCount, bool kVnni>
HWY_INLINE void score_rows(const uint8_t* queries, const QueryPlan& plan, const Keys<kVnni>& keys,
                           int16_t (*scores)[kTokens]) {
  constexpr size_t kBytes = Columns<kVnni>::kBytes, kWords = Columns<kVnni>::kWords;
  constexpr size_t kVector = sizeof(__m256i), kSums = kVector / sizeof(*keys.offsets);
  for (size_t t = 0; t < kTokens; t += 2 * kSums) {
    ScoreSums<kVnni, 0, kCount> sums(load(keys.offsets + t), load(keys.offsets + t + kSums));
    const uint8_t* query = queries;
    const int8_t* bytes = keys.bytes + kBytes * t;
    for (size_t i = 0; i < plan.bytes; i += kBytes, query += 4, bytes += kBytes * kTokens) {
      sums.add(query, plan.size(), load(bytes), load(bytes + kVector));
    }
    sums.shift();
    const int16_t* words = keys.words + kWords * t;
    for (size_t i = 0; i < plan.words; i += kWords, query += 4, words += kWords * kTokens) {
      sums.add_words(query, plan.size(), load(words), load(words + kWordLanes));
    }
    const int16_t* shares = keys.shares + t;
    sums.store_to(scores, t, load(shares), load(kVnni ? shares : shares + kWordLanes));
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
    _mm256_store_ps(rows.steps, round_weights<kVnni>(words, weights));
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
  const Keys<kVnni> keys_;
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
constexpr CodeKernels kKernels{pack_keys<kVnni>,    pack_values, pack_query<kVnni>,
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
