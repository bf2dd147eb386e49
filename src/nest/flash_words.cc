// With AVX2, which has no products of bf16 but of 16-bit words, twice as many at once as of floats.
// Queries and keys have a step each (their largest element over most_word()), weights one for each
// row of a block, values one for each column of a block: sums over a block are exact integers.
// Blocks that were codes: nest/flash_codes.cc.
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

#include "nest/flash_rows-inl.h"

HWY_PUSH_ATTRIBUTES("avx,avx2,fma")
namespace mkv::flash {
namespace {

// Words of neighbours beside each other: of `even` in the low halves of lanes, of `odd` above.
HWY_INLINE __m256i beside(__m256 even, __m256 odd) {
  const __m256i low = _mm256_and_si256(_mm256_cvtps_epi32(even), _mm256_set1_epi32(0xffff));
  return _mm256_or_si256(low, _mm256_slli_epi32(_mm256_cvtps_epi32(odd), 16));
}
// A multiple of 16 floats times `factor`, rounded to words.
HWY_INLINE void round_row(std::span<const float> in, __m256 factor, uint16_t* words) {
  for (size_t i = 0; i < in.size(); i += 2 * kLanes) {
    store(words + i, ordered_words(_mm256_mul_ps(factor, _mm256_loadu_ps(in.data() + i)),
                                   _mm256_mul_ps(factor, _mm256_loadu_ps(in.data() + i + kLanes))));
  }
}
// [pair of columns][token][2].
void pack_keys(View<const float> columns, uint16_t* keys) {
  const float most = most_word(columns.rows);
  float* steps = word_steps(keys, columns.rows);
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

// [pair of tokens][column][2].
void pack_values(View<const float> columns, uint16_t* packed) {
  pack_value_columns(columns, most_word(kTokens), packed, word_steps(packed, columns.rows),
                     [](std::span<const float> row, __m256 factor, uint16_t* words) {
                       round_row(row, factor, words);
                     });
}

void pack_query(std::span<const float> in, float scale, const Tile& tile, size_t row) {
  float step;
  const __m256 factor = _mm256_set1_ps(step_of(largest_of(in), most_word(in.size()), step));
  tile.steps[row] = step * scale * 1.44269504f;  // of scores as powers of 2
  round_row(in, factor, tile.queries + row * tile.head_dim);
}

// A block for attend_rows.
template <bool kVnni>
class WordBlock {
 public:
  static constexpr size_t kMost = 48;

  WordBlock(const Tile& tile, const uint16_t* keys, const uint16_t* values)
      : tile_(tile), keys_(keys), values_(values) {
    const size_t seen = Visible(tile, tile.rows - 1).end;  // by the last row, which sees most
    tokens_ = (seen + kWordLanes - 1) / kWordLanes * kWordLanes;
  }

  // As powers of 2.
  template <size_t kCount>
  HWY_INLINE void score(size_t first, size_t row) {
    constexpr size_t kWidth = kVectors * kLanes;
    static_assert(kWidth == kWordLanes);
    const size_t dim = tile_.head_dim;
    const float* key_steps = word_steps(keys_, dim);
    __m256 sums[kCount][kVectors];
    for (size_t t = 0; t < tokens_; t += kWidth) {
      multiply<kCount, kVnni>(tile_.queries + (first + row) * dim, dim, keys_ + 2 * t, 2 * kTokens,
                              dim, sums);
      for (size_t v = 0; v < kVectors; ++v) {
        const __m256 step = _mm256_loadu_ps(key_steps + t + v * kLanes);
        for (size_t r = 0; r < kCount; ++r) {
          const __m256 times = _mm256_mul_ps(step, _mm256_set1_ps(tile_.steps[first + row + r]));
          _mm256_storeu_ps(scores_[row + r] + t + v * kLanes, _mm256_mul_ps(sums[r][v], times));
        }
      }
    }
    for (size_t r = row; r < row + kCount; ++r) {
      tops_[r] = largest_of_seen(scores_[r], Visible(tile_, first + r));
    }
  }

  const float* tops(size_t, size_t) const { return tops_; }

  template <size_t kCount>
  HWY_INLINE void weigh(size_t first, const uint32_t* at) const {
    uint16_t weights[kCount][kTokens];
    Softened rows;
    for (size_t r = 0; r < kCount; ++r) {
      rows.tops[r] = tops_[at[r] - first];
      soften(scores_[at[r] - first], r, rows, weights[r]);
    }
    add_values<kCount, kVnni>(tile_, at, rows, weights[0], values_,
                              word_steps(values_, tile_.head_dim), tokens_);
  }

 private:
  // What a row does not see becomes -infinity.
  HWY_INLINE float largest_of_seen(float* scores, const Visible& seen) const {
    std::fill_n(scores, seen.begin, -HUGE_VALF);
    std::fill(scores + seen.end, scores + tokens_, -HUGE_VALF);
    __m256 largest = _mm256_loadu_ps(scores);
    for (size_t t = kLanes; t < tokens_; t += kLanes) {
      largest = _mm256_max_ps(largest, _mm256_loadu_ps(scores + t));
    }
    return largest_lane(largest);
  }

  // Scores of row r become weights, integers; weights are rounded against the block's own
  // largest: they may all be small against the row's.
  HWY_INLINE void soften(const float* scores, size_t r, Softened& out, uint16_t* weights) const {
    if (out.tops[r] == -HUGE_VALF) {
      std::fill_n(weights, tokens_, uint16_t{0});
      return;
    }
    const float most = most_word(kTokens);
    const __m256 shift = _mm256_set1_ps(out.tops[r]), factor = _mm256_set1_ps(most);
    __m256 sum = _mm256_setzero_ps();
    for (size_t t = 0; t < tokens_; t += 2 * kLanes) {
      const __m256 x = exp2_negative(_mm256_sub_ps(_mm256_loadu_ps(scores + t), shift));
      const __m256 y = exp2_negative(_mm256_sub_ps(_mm256_loadu_ps(scores + t + kLanes), shift));
      sum = _mm256_add_ps(sum, _mm256_add_ps(x, y));
      store(weights + t, ordered_words(_mm256_mul_ps(x, factor), _mm256_mul_ps(y, factor)));
    }
    out.sums[r] = sum_of_lanes(sum);
    out.steps[r] = 1.0f / most;
  }

  const Tile& tile_;
  const uint16_t *keys_, *values_;
  size_t tokens_;  // the leading ones that some row sees, in whole vectors of words
  alignas(32) float scores_[kMost][kTokens];
  alignas(32) float tops_[kMost] = {};
};

template <bool kVnni>
void attend_block(const Tile& tile, const uint16_t* keys, const uint16_t* values) {
  WordBlock<kVnni> block(tile, keys, values);
  attend_rows(tile, block);
}

template <bool kVnni>
constexpr Kernels kKernels{pack_keys, pack_values, pack_query, attend_block<kVnni>, finish_rows};

}  // namespace

const Kernels* word_kernels() {
  if (has_avx2_vnni()) return &kKernels<true>;
  return has_avx2() ? &kKernels<false> : nullptr;
}

}  // namespace mkv::flash
HWY_POP_ATTRIBUTES

#else

namespace mkv::flash {
const Kernels* word_kernels() { return nullptr; }
}  // namespace mkv::flash

#endif
