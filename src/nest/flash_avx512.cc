// With AVX-512 BF16: products of bf16, which add up as floats.
#include <hwy/base.h>

#include "nest/flash_kernels.h"

#if HWY_ARCH_X86_64
// GCC 12 takes what its own header leaves undefined on purpose for a mistake (its bug 105593).
#if HWY_COMPILER_GCC && !HWY_COMPILER_CLANG
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include "nest/flash_rows-inl.h"

HWY_PUSH_ATTRIBUTES("avx,avx2,fma,avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")
#include "nest/flash_wide-inl.h"
namespace mkv::flash {
namespace {

HWY_INLINE __m512bh as_bf16(__m512i x) { return reinterpret_cast<__m512bh>(x); }
HWY_INLINE __m512i as_bits(__m512bh x) { return reinterpret_cast<__m512i>(x); }

void pack_keys(View<const float> columns, uint16_t* keys) {
  // Of two registers one after the other: an element of the first, then of the second.
  alignas(64) uint16_t order[32];
  for (size_t i = 0; i < 32; ++i) order[i] = static_cast<uint16_t>(i / 2 + i % 2 * kWideLanes);
  const __m512i interleave = _mm512_load_si512(order);
  for (size_t c = 0; c < columns.rows; c += 2) {
    for (size_t t = 0; t < kTokens; t += kWideLanes) {
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
  for (size_t i = 0; i < size; i += 2 * kWideLanes) {
    const __m512 low = _mm512_mul_ps(factor, _mm512_loadu_ps(in + i));
    const __m512 high = _mm512_mul_ps(factor, _mm512_loadu_ps(in + i + kWideLanes));
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

// For WideBlock.
class BrainProducts {
 public:
  using Weight = uint16_t;
  static constexpr float kOne = 1.0f;

  BrainProducts(const Tile& tile, const uint16_t* keys, const uint16_t* values)
      : tile_(tile), keys_(keys), values_(values) {}

  template <size_t kCount>
  HWY_INLINE void score(size_t row, __m512* scores) const {
    const size_t dim = tile_.head_dim;
    multiply<kCount>(tile_.queries + row * dim, dim, keys_, kTokens, dim, scores);
    const __m512 log2e = _mm512_set1_ps(1.44269504f);
    unrolled<kCount * kWideVectors>(
        MKV_UNROLLED(i) { scores[i] = _mm512_mul_ps(scores[i], log2e); });
  }
  static HWY_INLINE void round(const __m512* x, uint16_t* to) {
    _mm512_store_si512(to, as_bits(_mm512_cvtne2ps_pbh(x[1], x[0])));
    _mm512_store_si512(to + 2 * kWideLanes, as_bits(_mm512_cvtne2ps_pbh(x[3], x[2])));
  }
  template <size_t kCount>
  HWY_INLINE void weigh(const uint16_t* weights, size_t column, __m512* sums) const {
    multiply<kCount>(weights, kTokens, values_ + 2 * column, tile_.head_dim, kTokens, sums);
  }

 private:
  // Rows [kCount][count] of `left` times [pair][lane][2] of `right`, whose pairs are 2 * `lanes`
  // apart.
  template <size_t kCount>
  static HWY_INLINE void multiply(const uint16_t* left, size_t stride, const uint16_t* right,
                                  size_t lanes, size_t count, __m512* sums) {
    unrolled<kCount * kWideVectors>(MKV_UNROLLED(i) { sums[i] = _mm512_setzero_ps(); });
    for (size_t i = 0; i < count; i += 2, left += 2, right += 2 * lanes) {
      __m512i pairs[kWideVectors];
      unrolled<kWideVectors>(MKV_UNROLLED(v) {
        pairs[v] = _mm512_loadu_si512(right + v * 2 * kWideLanes);
        avx512::keep_in_register(pairs[v]);
      });
      unrolled<kCount>(MKV_UNROLLED(r) {
        __m512i of_row = four_bytes(left + r * stride);
        avx512::keep_in_register(of_row);
        unrolled<kWideVectors>(MKV_UNROLLED(v) {
          __m512& sum = sums[r * kWideVectors + v];
          sum = _mm512_dpbf16_ps(sum, as_bf16(pairs[v]), as_bf16(of_row));
        });
      });
    }
  }

  const Tile& tile_;
  const uint16_t *keys_, *values_;
};

}  // namespace

const Kernels* avx512_kernels() {
  static constexpr Kernels kKernels{pack_keys, pack_values, pack_query, attend_wide<BrainProducts>,
                                    finish_rows};
  return __builtin_cpu_supports("avx512bf16") != 0 ? &kKernels : nullptr;
}

}  // namespace mkv::flash
HWY_POP_ATTRIBUTES

#else

namespace mkv::flash {
const Kernels* avx512_kernels() { return nullptr; }
}  // namespace mkv::flash

#endif
