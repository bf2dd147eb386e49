// The words of nest/flash_words.cc with AVX-512 VNNI, packed as there.
#include <hwy/base.h>

#include "nest/flash_kernels.h"
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

// For WideBlock.
class WordProducts {
 public:
  using Weight = uint16_t;
  static constexpr float kOne = 5792.0f;  // as values' largest word
  static_assert(kOne * kOne * kTokens < 0x1p31f);

  WordProducts(const Tile& tile, const uint16_t* keys, const uint16_t* values)
      : tile_(tile), keys_(keys), values_(values) {}

  template <size_t kCount>
  HWY_INLINE void score(size_t row, __m512* scores) const {
    const size_t dim = tile_.head_dim;
    multiply<kCount>(tile_.queries + row * dim, dim, keys_, kTokens, dim, word_steps(keys_, dim),
                     scores);
  }

  static HWY_INLINE void round(const __m512* x, uint16_t* to) {
    // Narrowing takes 4 of each vector by turns.
    const __m512i order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
    for (size_t v = 0; v < kWideVectors; v += 2, to += 2 * kWideLanes) {
      const __m512i mixed =
          _mm512_packs_epi32(_mm512_cvtps_epi32(x[v]), _mm512_cvtps_epi32(x[v + 1]));
      _mm512_store_si512(to, _mm512_permutexvar_epi64(order, mixed));
    }
  }

  template <size_t kCount>
  HWY_INLINE void weigh(const uint16_t* weights, size_t column, __m512* sums) const {
    const size_t dim = tile_.head_dim;
    multiply<kCount>(weights, kTokens, values_ + 2 * column, dim, kTokens,
                     word_steps(values_, dim) + column, sums);
  }

 private:
  // Rows [kCount][count] of `left` times [pair][lane][2] of `right`, whose pairs are 2 * `lanes`
  // apart, times the lanes' steps.
  template <size_t kCount>
  static HWY_INLINE void multiply(const uint16_t* left, size_t stride, const uint16_t* right,
                                  size_t lanes, size_t count, const float* steps, __m512* out) {
    __m512i sums[kCount * kWideVectors];
    unrolled<kCount * kWideVectors>(MKV_UNROLLED(i) { sums[i] = _mm512_setzero_si512(); });
    for (size_t i = 0; i < count; i += 2, left += 2, right += 2 * lanes) {
      add_products<kCount>(left, stride * sizeof(*left), right, sums, WordTimesWord());
    }
    scale_lanes<kCount>(sums, steps, out);
  }

  const Tile& tile_;
  const uint16_t *keys_, *values_;
};

}  // namespace

const Kernels* wide_word_kernels() {
  if (!has_vnni() || word_kernels() == nullptr) return nullptr;
  static const Kernels kKernels{word_kernels()->pack_keys, word_kernels()->pack_values,
                                word_kernels()->pack_query, attend_wide<WordProducts>, finish_rows};
  return &kKernels;
}

}  // namespace mkv::flash
HWY_POP_ATTRIBUTES

#else

namespace mkv::flash {
const Kernels* wide_word_kernels() { return nullptr; }
}  // namespace mkv::flash

#endif
