#include "nest/code_sums.h"

#include <hwy/base.h>

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "base/prefetch.h"
#include "ops/instruction_set.h"

#if HWY_ARCH_X86_64
#include <immintrin.h>

#include "nest/flash_rows-inl.h"

HWY_PUSH_ATTRIBUTES("avx,avx2,fma")
namespace mkv {
namespace {

using flash::kLanes, flash::kTokens, flash::kWordLanes;
constexpr size_t kCodeBytes = kTokens / 2;  // of a slab
constexpr size_t kWidest = 6 * kWordLanes;  // of a part: with two tokens 12 sums in registers
constexpr size_t kSlabsAtOnce = 6;          // whose rows stay in the first cache

size_t part_of(size_t dims) { return dims % kWidest == 0 ? kWidest : 4 * kWordLanes; }

// What entry `e` of a slab adds to 8 dims; at: these of its first column, [4] rows of `dims`.
HWY_INLINE __m256 entry_of(const Codebook& codebook, size_t e, const float* at, size_t dims) {
  __m256 sum = _mm256_setzero_ps();
  for (size_t c = 0; c < kSlabColumns; ++c) {
    sum =
        _mm256_fmadd_ps(_mm256_set1_ps(codebook.entry[c][e]), _mm256_loadu_ps(at + c * dims), sum);
  }
  return sum;
}

// Adds to `most` [dims] what an entry of a slab adds to them at most.
void add_most(const CodeSlab& slab, const Matrix<float>& columns, std::span<float> most) {
  for (size_t c = 0; c < kSlabColumns; ++c) {
    float largest = 0.0f;
    for (const float x : slab.codebook.entry[c]) largest = std::max(largest, std::abs(x));
    const float* column = columns.row(slab.first_column + c).data();
    for (size_t d = 0; d < most.size(); d += kLanes) {
      const __m256 x = flash::magnitude(_mm256_loadu_ps(column + d));
      _mm256_storeu_ps(most.data() + d, _mm256_fmadd_ps(_mm256_set1_ps(largest), x,
                                                        _mm256_loadu_ps(most.data() + d)));
    }
  }
}

// The columns of decode, scaled, as rows.
void scale_columns(View<const float> decode, std::span<const float> scale, Matrix<float>& columns) {
  columns.reshape(decode.cols, decode.rows);
  for (size_t d = 0; d < decode.rows; ++d) {
    const std::span<const float> row = decode.row(d);
    for (size_t c = 0; c < row.size(); ++c) columns.at(c, d) = row[c] * scale[c];
  }
}

// Sums of two tokens, those of a byte's halves, from vector kVector of a part on. A vector holds
// the next ones where arrays would do, because GCC keeps what loops index in memory.
template <size_t kVector, size_t kVectors>
struct TwoSums {
  __m256i low, high;
  TwoSums<kVector + 1, kVectors> next;

  HWY_INLINE TwoSums(const __m256i* of_low, const __m256i* of_high)
      : low(_mm256_load_si256(of_low + kVector)),
        high(_mm256_load_si256(of_high + kVector)),
        next(of_low, of_high) {}
  HWY_INLINE void add(const __m256i* to_low, const __m256i* to_high) {
    low = _mm256_add_epi16(low, _mm256_load_si256(to_low + kVector));
    high = _mm256_add_epi16(high, _mm256_load_si256(to_high + kVector));
    next.add(to_low, to_high);
  }
  HWY_INLINE void store_to(__m256i* of_low, __m256i* of_high) const {
    _mm256_store_si256(of_low + kVector, low);
    _mm256_store_si256(of_high + kVector, high);
    next.store_to(of_low, of_high);
  }
};
template <size_t kVectors>
struct TwoSums<kVectors, kVectors> {
  HWY_INLINE TwoSums(const __m256i*, const __m256i*) {}
  HWY_INLINE void add(const __m256i*, const __m256i*) {}
  HWY_INLINE void store_to(__m256i*, __m256i*) const {}
};

// Adds the rows of some slabs to the sums of two tokens.
template <size_t kVectors>
HWY_INLINE void add_rows(const int16_t* rows, const uint8_t* codes, size_t slabs, int16_t* low,
                         int16_t* high) {
  constexpr size_t kPart = kVectors * kWordLanes;
  const auto vectors = [](auto* p) { return reinterpret_cast<__m256i*>(const_cast<int16_t*>(p)); };
  TwoSums<0, kVectors> sums(vectors(low), vectors(high));
  for (size_t s = 0; s < slabs; ++s, rows += kCodebookEntries * kPart, codes += kCodeBytes) {
    sums.add(vectors(rows + (*codes & 15) * kPart), vectors(rows + (*codes >> 4) * kPart));
  }
  sums.store_to(vectors(low), vectors(high));
}

// Sums [64][part] of words.
template <size_t kVectors>
void add_part(const int16_t* rows, const uint8_t* codes, size_t slabs, int16_t* words) {
  constexpr size_t kPart = kVectors * kWordLanes, kSlabWords = kCodebookEntries * kPart;
  std::fill_n(words, kTokens * kPart, int16_t{0});
  for (size_t s = 0; s < slabs; s += kSlabsAtOnce) {
    const size_t count = std::min(kSlabsAtOnce, slabs - s);
    const int16_t* next = rows + count * kSlabWords;
    // The rows of the next slabs, which the tokens will read in no order.
    const size_t ahead = std::min(kSlabsAtOnce, slabs - s - count) * kSlabWords / (kTokens / 2);
    for (size_t t = 0; t < kTokens / 2; ++t) {
      for (size_t i = 0; i < ahead; i += 32) {
        _mm_prefetch(reinterpret_cast<const char*>(next + t * ahead + i), _MM_HINT_T0);
      }
      add_rows<kVectors>(rows, codes + s * kCodeBytes + t, count, words + t * kPart,
                         words + (t + kTokens / 2) * kPart);
    }
    rows = next;
  }
}

// x[i] = row i of 8 words becomes row i of the transposed.
HWY_INLINE void transpose(__m128i (&x)[8]) {
  for (size_t round = 0; round < 3; ++round) {
    __m128i y[8];
    for (size_t i = 0; i < 4; ++i) {
      y[2 * i] = _mm_unpacklo_epi16(x[i], x[i + 4]);
      y[2 * i + 1] = _mm_unpackhi_epi16(x[i], x[i + 4]);
    }
    std::copy_n(y, 8, x);
  }
}

// out [part][64] = unit * words [64][part].
void widen_part(const int16_t* words, size_t part, const float* unit, View<float> out) {
  for (size_t t = 0; t < kTokens; t += kLanes) {
    for (size_t d = 0; d < part; d += kLanes) {
      __m128i x[kLanes];
      for (size_t i = 0; i < kLanes; ++i) {
        x[i] = _mm_load_si128(reinterpret_cast<const __m128i*>(words + (t + i) * part + d));
      }
      transpose(x);
      for (size_t i = 0; i < kLanes; ++i) {
        const __m256 row = _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(x[i]));
        _mm256_storeu_ps(out.row(d + i).data() + t,
                         _mm256_mul_ps(row, _mm256_set1_ps(unit[d + i])));
      }
    }
  }
}

}  // namespace

bool has_code_sums(size_t slabs, size_t columns, size_t dims) {
  return has_avx2() && slabs > 0 && slabs <= columns && dims % part_of(dims) == 0;
}

void make_code_sums(std::span<const CodeSlab> slabs, View<const float> decode,
                    std::span<const float> scale, CodeSums& out) {
  const size_t dims = decode.rows, part = part_of(dims);
  MKV_CHECK(dims % part == 0);
  out.slabs = slabs.size();
  out.dims = dims;
  out.rows.resize(std::max(out.rows.size(), dims * slabs.size() * kCodebookEntries));
  out.unit.assign(dims, 0.0f);
  thread_local Matrix<float> columns;
  scale_columns(decode, scale, columns);
  for (const CodeSlab& slab : slabs) add_most(slab, columns, out.unit);
  // Rounding may add a half each.
  const float most = 32767.0f - 0.5f * static_cast<float>(slabs.size());
  std::vector<float> factor(dims);
  for (size_t d = 0; d < dims; ++d) {
    out.unit[d] /= most;
    factor[d] = flash::inverse_of(out.unit[d]);
  }
  for (size_t s = 0; s < slabs.size(); ++s) {
    const Codebook& codebook = slabs[s].codebook;
    for (size_t d = 0; d < dims; d += kWordLanes) {
      const __m256 low = _mm256_loadu_ps(factor.data() + d),
                   high = _mm256_loadu_ps(factor.data() + d + kLanes);
      const float* at = columns.row(slabs[s].first_column).data() + d;
      int16_t* to = out.rows.data() + (d / part * slabs.size() + s) * kCodebookEntries * part;
      for (size_t e = 0; e < kCodebookEntries; ++e) {
        prefetch_to_write(to + (kCodebookEntries + e) * part + d % part);  // of the next slab
        flash::store(
            to + e * part + d % part,
            flash::ordered_words(_mm256_mul_ps(low, entry_of(codebook, e, at, dims)),
                                 _mm256_mul_ps(high, entry_of(codebook, e, at + kLanes, dims))));
      }
    }
  }
}

void add_up_codes(const CodeSums& sums, const uint8_t* codes, View<float> out,
                  Buffer<int16_t>& words) {
  const size_t part = part_of(sums.dims);
  words.resize(std::max(words.size(), kTokens * part));
  for (size_t d = 0; d < sums.dims; d += part) {
    const int16_t* rows = sums.rows.data() + d * sums.slabs * kCodebookEntries;
    if (part == kWidest) {
      add_part<kWidest / kWordLanes>(rows, codes, sums.slabs, words.data());
    } else {
      add_part<4>(rows, codes, sums.slabs, words.data());
    }
    widen_part(words.data(), part, sums.unit.data() + d,
               {out.row(d).data(), part, kTokens, out.stride});
  }
}

}  // namespace mkv
HWY_POP_ATTRIBUTES

#else

namespace mkv {
bool has_code_sums(size_t, size_t, size_t) { return false; }
void make_code_sums(std::span<const CodeSlab>, View<const float>, std::span<const float>,
                    CodeSums&) {
  MKV_CHECK(false);
}
void add_up_codes(const CodeSums&, const uint8_t*, View<float>, Buffer<int16_t>&) {
  MKV_CHECK(false);
}
}  // namespace mkv

#endif
