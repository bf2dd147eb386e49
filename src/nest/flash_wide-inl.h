// What a row of queries keeps of a block with AVX-512 VNNI, for nest/flash_words_avx512.cc and
// nest/flash_bytes_avx512.cc: scores and weights are floats, 16 at a time, between products of the
// two's own kinds. Which rows a block matters to: nest/flash_rows-inl.h. Included where the
// instruction set is switched on (HWY_PUSH_ATTRIBUTES), after <immintrin.h>.
#pragma once

#include <hwy/base.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "nest/avx512-inl.h"
#include "nest/flash_rows-inl.h"

namespace mkv::flash {
namespace {

constexpr size_t kWideLanes = 16, kWideVectors = kTokens / kWideLanes;

using avx512::unrolled;

// Four bytes in every lane.
HWY_INLINE __m512i four_bytes(const void* p) {
  int32_t bits;
  std::memcpy(&bits, p, sizeof(bits));
  return _mm512_set1_epi32(bits);
}

// sum += what four bytes of a row give with four of each lane.
struct WordTimesWord {
  HWY_INLINE void operator()(__m512i& sum, __m512i row, __m512i lanes) const {
    avx512::add_word_products(sum, row, lanes);
  }
};
struct UnsignedTimesByte {
  HWY_INLINE void operator()(__m512i& sum, __m512i row, __m512i lanes) const {
    avx512::add_byte_products(sum, row, lanes);
  }
};
struct ByteTimesUnsigned {
  HWY_INLINE void operator()(__m512i& sum, __m512i row, __m512i lanes) const {
    avx512::add_byte_products(sum, lanes, row);
  }
};

// Four bytes of each of kCount rows from `left` on, `stride` bytes apart, times as many of each
// lane of the vectors at `right`, are added to sums [row][vector].
template <size_t kCount, class Multiply>
HWY_INLINE void add_products(const void* left, size_t stride, const void* right, __m512i* sums,
                             const Multiply& multiply) {
  __m512i lanes[kWideVectors];
  unrolled<kWideVectors>(MKV_UNROLLED(v) {
    lanes[v] = _mm512_loadu_si512(static_cast<const __m512i*>(right) + v);
    avx512::keep_in_register(lanes[v]);
  });
  unrolled<kCount>(MKV_UNROLLED(r) {
    __m512i row = four_bytes(static_cast<const std::byte*>(left) + r * stride);
    avx512::keep_in_register(row);
    unrolled<kWideVectors>(
        MKV_UNROLLED(v) { multiply(sums[r * kWideVectors + v], row, lanes[v]); });
  });
}

// Scores [row][vector of tokens] times the steps of their query and their key.
template <size_t kCount>
HWY_INLINE void scale_scores(const float* of_queries, const float* of_keys, __m512* scores) {
  unrolled<kCount>(MKV_UNROLLED(r) {
    const __m512 query = _mm512_set1_ps(of_queries[r]);
    unrolled<kWideVectors>(MKV_UNROLLED(v) {
      const __m512 both = _mm512_mul_ps(query, _mm512_loadu_ps(of_keys + v * kWideLanes));
      scores[r * kWideVectors + v] = _mm512_mul_ps(scores[r * kWideVectors + v], both);
    });
  });
}
// Sums [row][vector of columns] times the columns' steps.
template <size_t kCount>
HWY_INLINE void scale_columns(const float* steps, __m512* sums) {
  unrolled<kCount * kWideVectors>(MKV_UNROLLED(i) {
    sums[i] = _mm512_mul_ps(sums[i], _mm512_loadu_ps(steps + i % kWideVectors * kWideLanes));
  });
}

// 2^x for x <= 0, relative error below 3e-6, none at 0. Far below zero, and of no number, 2^-126.
HWY_INLINE __m512 exp2_wide(__m512 x) {
  const __m512 y = _mm512_max_ps(x, _mm512_set1_ps(-126.0f));
  const __m512 rest = _mm512_reduce_ps(y, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
  __m512 p = _mm512_set1_ps(0.0134267155f);
  p = _mm512_fmadd_ps(p, rest, _mm512_set1_ps(0.0522424239f));
  p = _mm512_fmadd_ps(p, rest, _mm512_set1_ps(0.241280228f));
  p = _mm512_fmadd_ps(p, rest, _mm512_set1_ps(0.693044842f));
  p = _mm512_fmadd_ps(p, rest, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(p, y);
}

// The leading n of the 64 tokens, as bits.
HWY_INLINE uint64_t leading(size_t n) {
  return n >= kTokens ? ~uint64_t{0} : (uint64_t{1} << n) - 1;
}

// A block for attend_rows; kAll: every row sees all of it. Products, of a tile and a packed block,
// have score<kCount>(row, scores), of rows of the tile, as powers of 2: [row][vector of tokens];
// round(weights, out), of a row's 64 in 1/kOne; and weigh<kCount>(weights, column, sums): of
// weights [kCount][64] and 64 columns, [row][vector of columns].
template <class Products, bool kAll>
class WideBlock {
 public:
  static constexpr size_t kMost = 48;

  WideBlock(const Tile& tile, const uint16_t* keys, const uint16_t* values)
      : tile_(tile), products_(tile, keys, values) {}

  // Neither is inlined, for attend_rows is compiled without AVX-512.
  template <size_t kCount>
  HWY_NOINLINE void score(size_t first, size_t row) {
    __m512 scores[kCount * kWideVectors];
    products_.template score<kCount>(first + row, scores);
    unrolled<kCount>(MKV_UNROLLED(r) {
      __m512* of_row = scores + r * kWideVectors;
      if constexpr (!kAll) hide(of_row, Visible(tile_, first + row + r));
      unrolled<kWideVectors>(
          MKV_UNROLLED(v) { _mm512_store_ps(scores_[row + r] + v * kWideLanes, of_row[v]); });
      tops_[row + r] = _mm512_reduce_max_ps(
          _mm512_max_ps(_mm512_max_ps(of_row[0], of_row[1]), _mm512_max_ps(of_row[2], of_row[3])));
    });
  }

  const float* tops(size_t, size_t) const { return tops_; }

  template <size_t kCount>
  HWY_NOINLINE void weigh(size_t first, const uint32_t* at) const {
    alignas(64) typename Products::Weight weights[kCount][kTokens];
    Softened rows;
    for (size_t r = 0; r < kCount; ++r) soften(at[r] - first, r, rows, weights[r]);
    const Factors<kCount> factors(rows, tile_, at);
    const size_t dim = tile_.head_dim;
    for (size_t c = 0; c < dim; c += kWideVectors * kWideLanes) {
      __m512 sums[kCount * kWideVectors];
      products_.template weigh<kCount>(weights[0], c, sums);
      unrolled<kCount>(MKV_UNROLLED(r) {
        const __m512 old = _mm512_set1_ps(factors.old[r]);
        const __m512 block = _mm512_set1_ps(factors.block[r]);
        unrolled<kWideVectors>(MKV_UNROLLED(v) {
          float* to = tile_.sums + at[r] * dim + c + v * kWideLanes;
          const __m512 before = _mm512_mul_ps(old, _mm512_loadu_ps(to));
          _mm512_storeu_ps(to, _mm512_fmadd_ps(sums[r * kWideVectors + v], block, before));
        });
      });
    }
  }

 private:
  // What a row does not see becomes -infinity.
  static HWY_INLINE void hide(__m512* scores, const Visible& seen) {
    const uint64_t kept = leading(seen.end) & ~leading(seen.begin);
    unrolled<kWideVectors>(MKV_UNROLLED(v) {
      scores[v] = _mm512_mask_mov_ps(_mm512_set1_ps(-HUGE_VALF),
                                     static_cast<__mmask16>(kept >> (v * kWideLanes)), scores[v]);
    });
  }

  // Weights are rounded against the block's own largest: they may all be small against the row's.
  HWY_INLINE void soften(size_t row, size_t r, Softened& out,
                         typename Products::Weight* weights) const {
    out.tops[r] = tops_[row];
    out.steps[r] = 1.0f / Products::kOne;
    if (!kAll && tops_[row] == -HUGE_VALF) {
      std::memset(weights, 0, kTokens * sizeof(*weights));
      return;
    }
    const __m512 top = _mm512_set1_ps(tops_[row]);
    __m512 x[kWideVectors];
    unrolled<kWideVectors>(MKV_UNROLLED(v) {
      x[v] = exp2_wide(_mm512_sub_ps(_mm512_load_ps(scores_[row] + v * kWideLanes), top));
    });
    out.sums[r] =
        _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(x[0], x[1]), _mm512_add_ps(x[2], x[3])));
    Products::round(x, weights);
  }

  const Tile& tile_;
  const Products products_;
  alignas(64) float scores_[kMost][kTokens];
  alignas(64) float tops_[kMost] = {};
};

template <class Products>
void attend_wide(const Tile& tile, const uint16_t* keys, const uint16_t* values) {
  const Visible first(tile, 0), last(tile, tile.rows - 1);
  if (last.begin == 0 && first.end == kTokens) {
    WideBlock<Products, true> block(tile, keys, values);
    attend_rows(tile, block);
  } else {
    WideBlock<Products, false> block(tile, keys, values);
    attend_rows(tile, block);
  }
}

}  // namespace
}  // namespace mkv::flash
