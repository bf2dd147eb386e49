// What a row of queries keeps of a block with AVX-512 VNNI, for nest/flash_words_avx512.cc and
// nest/flash_bytes_avx512.cc: scores and weights are floats, 16 at a time, between products of the
// two's own kinds. Which rows a block matters to: nest/flash_rows-inl.h. Included where the
// instruction set is switched on (HWY_PUSH_ATTRIBUTES), after <immintrin.h>.
#pragma once

#include <hwy/base.h>

#include <algorithm>
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

// Sums [row][vector] as floats, times the steps of the 64 lanes.
template <size_t kCount>
HWY_INLINE void scale_lanes(const __m512i* sums, const float* steps, __m512* out) {
  unrolled<kCount * kWideVectors>(MKV_UNROLLED(i) {
    const __m512 step = _mm512_loadu_ps(steps + i % kWideVectors * kWideLanes);
    out[i] = _mm512_mul_ps(_mm512_cvtepi32_ps(sums[i]), step);
  });
}

// Lane r: what `combine` makes of the lanes of rows[r].
template <size_t kCount, class Combine>
HWY_INLINE __m256 combine_lanes(const __m512* rows, const Combine& combine) {
  static_assert(kCount <= kLanes);
  __m256 x[kLanes];  // of halves, the last one's again
  unrolled<kLanes>(MKV_UNROLLED(r) {
    const __m512 row = rows[std::min(r, kCount - 1)];
    x[r] = combine(_mm512_castps512_ps256(row), _mm512_extractf32x8_ps(row, 1));
  });
  const auto pair = [&](size_t r) __attribute__((always_inline)) {
    return combine(_mm256_unpacklo_ps(x[r], x[r + 1]), _mm256_unpackhi_ps(x[r], x[r + 1]));
  };
  const auto four = [&](size_t r) __attribute__((always_inline)) {
    const __m256d a = _mm256_castps_pd(pair(r)), b = _mm256_castps_pd(pair(r + 2));
    return combine(_mm256_castpd_ps(_mm256_unpacklo_pd(a, b)),
                   _mm256_castpd_ps(_mm256_unpackhi_pd(a, b)));
  };
  const __m256 low = four(0), high = four(4);
  return combine(_mm256_permute2f128_ps(low, high, 0x20), _mm256_permute2f128_ps(low, high, 0x31));
}
struct Largest {
  HWY_INLINE __m256 operator()(__m256 x, __m256 y) const { return _mm256_max_ps(x, y); }
};
struct Sum {
  HWY_INLINE __m256 operator()(__m256 x, __m256 y) const { return _mm256_add_ps(x, y); }
};

// The leading n of the 64 tokens, as bits.
HWY_INLINE uint64_t leading(size_t n) {
  return n >= kTokens ? ~uint64_t{0} : (uint64_t{1} << n) - 1;
}

// A block for attend_rows; kAll: every row sees all of it. Products, of a tile and a packed block,
// have score<kCount>(row, scores), of rows of the tile, in powers of 2 over the row's step: [row]
// [vector of tokens]; round(weights, out), of a row's 64 in 1/kOne; and weigh<kCount>(weights,
// column, sums): of weights [kCount][64] and 64 columns, [row][vector of columns].
template <class Products, bool kAll>
class WideBlock {
 public:
  static constexpr size_t kMost = 48;

  WideBlock(const Tile& tile, const uint16_t* keys, const uint16_t* values)
      : tile_(tile), products_(tile, keys, values) {}

  // Neither is inlined, for attend_rows is compiled without AVX-512.
  template <size_t kCount>
  HWY_NOINLINE void score(size_t first, size_t row) {
    __m512 scores[kCount * kWideVectors], largest[kCount];
    products_.template score<kCount>(first + row, scores);
    unrolled<kCount>(MKV_UNROLLED(r) {
      __m512* x = scores + r * kWideVectors;
      if constexpr (!kAll) hide(x, Visible(tile_, first + row + r));
      unrolled<kWideVectors>(
          MKV_UNROLLED(v) { _mm512_store_ps(scores_[row + r] + v * kWideLanes, x[v]); });
      largest[r] = _mm512_max_ps(_mm512_max_ps(x[0], x[1]), _mm512_max_ps(x[2], x[3]));
    });
    const __m256i rows = lanes_of<kCount>();
    const __m256 steps = _mm256_maskload_ps(tile_.steps + first + row, rows);
    const __m256 of_rows = combine_lanes<kCount>(largest, Largest());
    _mm256_maskstore_ps(largest_ + row, rows, of_rows);
    _mm256_maskstore_ps(tops_ + row, rows, _mm256_mul_ps(of_rows, steps));
  }

  const float* tops(size_t, size_t) const { return tops_; }

  template <size_t kCount>
  HWY_NOINLINE void weigh(size_t first, const uint32_t* at) const {
    alignas(64) typename Products::Weight weights[kCount][kTokens];
    __m512 totals[kCount];
    Softened rows;
    unrolled<kCount>(MKV_UNROLLED(r) {
      const size_t row = at[r] - first;
      rows.tops[r] = tops_[row];
      rows.steps[r] = 1.0f / Products::kOne;
      totals[r] = soften(scores_[row], largest_[row], tile_.steps[at[r]], weights[r]);
    });
    _mm256_store_ps(rows.sums, _mm256_mul_ps(combine_lanes<kCount>(totals, Sum()),
                                             _mm256_set1_ps(1.0f / Products::kOne)));
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

  // A row's weights in 1/kOne, rounded against the block's own largest: they may all be small
  // against the row's. Returns sums of four each.
  static HWY_INLINE __m512 soften(const float* scores, float largest, float step,
                                  typename Products::Weight* weights) {
    if (!kAll && largest == -HUGE_VALF) {
      std::memset(weights, 0, kTokens * sizeof(*weights));
      return _mm512_setzero_ps();
    }
    constexpr size_t kDegree = sizeof(*weights) == 1 ? 3 : 4;
    const __m512 top = _mm512_set1_ps(largest), factor = _mm512_set1_ps(step);
    __m512 x[kWideVectors];
    unrolled<kWideVectors>(MKV_UNROLLED(v) {
      const __m512 below = _mm512_sub_ps(_mm512_load_ps(scores + v * kWideLanes), top);
      x[v] = avx512::exp2_negative<kDegree>(_mm512_mul_ps(below, factor), Products::kOne);
    });
    Products::round(x, weights);
    return _mm512_add_ps(_mm512_add_ps(x[0], x[1]), _mm512_add_ps(x[2], x[3]));
  }

  const Tile& tile_;
  const Products products_;
  alignas(64) float scores_[kMost][kTokens];
  alignas(64) float largest_[kMost], tops_[kMost + kLanes] = {};  // and as powers of 2
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
