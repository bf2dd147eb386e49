#include <hwy/base.h>

#include <algorithm>

#include "base/check.h"
#include "base/prefetch.h"
#include "nest/amx_codes.h"
#include "ops/amx.h"

#if HWY_ARCH_X86_64
// GCC 12 takes what its own header leaves undefined on purpose for a mistake (its bug 105593).
#if HWY_COMPILER_GCC && !HWY_COMPILER_CLANG
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

HWY_PUSH_ATTRIBUTES("avx,avx2,fma,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,amx-tile,amx-int8")
namespace mkv::amx {
namespace {

constexpr size_t kBytes = kAmxRowBytes, kColumns = kSlabColumns, kEntries = kCodebookEntries;
constexpr size_t kPlanesOfTile = kAmxRows / kColumns;  // of values: a row is a column
constexpr size_t kGroupPairs = kGroupBlocks / 2;
constexpr float kHidden = -1e30f;  // also of scores that are minus infinity

// Tile intrinsics of GCC 12 do not say that they read memory.
HWY_INLINE void stores_are_done() { asm volatile("" : : : "memory"); }

// 2^x, relative error below 4e-6: a polynomial through the Chebyshev nodes of 0 ... 1.
HWY_INLINE __m512 exp2_of(__m512 x) {
  const __m512 r = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
  __m512 p = _mm512_set1_ps(0.0136703095f);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.0517449978f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.2416043573f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.6929729222f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0000034929f));
  return _mm512_scalef_ps(p, x);
}

// A head's weights of a pair of blocks: byte j of lane l of part h is of place (2 j + h, l).
struct PairWeights {
  __m512i part[2];
};

// One head, a group of blocks: returns the sum of what is rounded, and the largest score.
HWY_INLINE float soften_head(const float* scores, size_t pairs, PairWeights* out, float& top) {
  __m512 largest = _mm512_set1_ps(kHidden);
  for (size_t i = 0; i < pairs * kPair; i += 16) {
    largest = _mm512_max_ps(largest, _mm512_loadu_ps(scores + i));
  }
  top = _mm512_reduce_max_ps(largest);
  constexpr float kLog2E = 1.44269504f, kLog2Most = 7.99435344f;  // of kMostWeight
  const float base = top > kHidden ? top : 0.0f;  // where all are hidden all weights are 0
  const __m512 slope = _mm512_set1_ps(kLog2E), shift = _mm512_set1_ps(kLog2Most - base * kLog2E);
  __m512 sum[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
  for (size_t p = 0; p < pairs; ++p, scores += kPair) {
    __m512i bytes[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
    for (int j = 3; j >= 0; --j) {
      for (int h = 0; h < 2; ++h) {
        const __m512 score =
            _mm512_max_ps(_mm512_loadu_ps(scores + (2 * j + h) * 16), _mm512_set1_ps(kHidden));
        const __m512 e = exp2_of(_mm512_fmadd_ps(score, slope, shift));
        sum[h] = _mm512_add_ps(sum[h], e);
        bytes[h] = _mm512_or_si512(_mm512_slli_epi32(bytes[h], 8), _mm512_cvtps_epi32(e));
      }
    }
    out[p] = {{bytes[0], bytes[1]}};
  }
  return _mm512_reduce_add_ps(_mm512_add_ps(sum[0], sum[1])) * (1.0f / kMostWeight);
}

// Four heads' weights of half of a pair's tokens into the rows of both blocks' right sides.
HWY_INLINE void spread(const __m512i (&heads)[4], uint8_t* rows) {
  const __m512i a = _mm512_unpacklo_epi32(heads[0], heads[1]);
  const __m512i b = _mm512_unpackhi_epi32(heads[0], heads[1]);
  const __m512i c = _mm512_unpacklo_epi32(heads[2], heads[3]);
  const __m512i d = _mm512_unpackhi_epi32(heads[2], heads[3]);
  const __m512i four[4] = {_mm512_unpacklo_epi64(a, c), _mm512_unpackhi_epi64(a, c),
                           _mm512_unpacklo_epi64(b, d), _mm512_unpackhi_epi64(b, d)};
  for (size_t i = 0; i < 4; ++i) {
    auto* to = reinterpret_cast<__m128i*>(rows + i * kBytes);
    constexpr size_t kFourRows = 4 * kBytes / sizeof(__m128i);
    constexpr size_t kNext = kTile / sizeof(__m128i);  // block
    _mm_store_si128(to, _mm512_castsi512_si128(four[i]));
    _mm_store_si128(to + kFourRows, _mm512_extracti32x4_epi32(four[i], 1));
    _mm_store_si128(to + kNext, _mm512_extracti32x4_epi32(four[i], 2));
    _mm_store_si128(to + kNext + kFourRows, _mm512_extracti32x4_epi32(four[i], 3));
  }
}

// Sums of a group of blocks, by column and head.
struct alignas(64) Whole {
  int32_t of[kAmxRows][kLanes];
};

// Four columns of a plane and kBlocks blocks into rows of left sides.
template <size_t kBlocks>
HWY_INLINE void expand(const CodePlanes& planes, const CodePlanes::Plane& plane,
                       const uint8_t* codes, size_t stride, int8_t* out) {
  const __m512i shift = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi16(4), 1);
  const __m512i low_half = _mm512_set1_epi8(15);
  __m512i sum[kBlocks][kColumns];
  for (size_t s = plane.begin; s < plane.end; ++s) {
    __m512i table[kColumns];
    for (size_t c = 0; c < kColumns; ++c) {
      table[c] = _mm512_broadcast_i32x4(_mm_load_si128(
          reinterpret_cast<const __m128i*>(planes.entries.data() + (s * kColumns + c) * kEntries)));
    }
    for (size_t b = 0; b < kBlocks; ++b) {
      const __m512i both = _mm512_broadcast_i64x4(_mm256_loadu_si256(
          reinterpret_cast<const __m256i*>(codes + b * stride + planes.slabs[s] * size_t{32})));
      const __m512i index = _mm512_and_si512(_mm512_srlv_epi16(both, shift), low_half);
      for (size_t c = 0; c < kColumns; ++c) {
        const __m512i found = _mm512_shuffle_epi8(table[c], index);
        sum[b][c] = s == plane.begin ? found : _mm512_add_epi8(sum[b][c], found);
      }
    }
  }
  for (size_t b = 0; b < kBlocks; ++b) {
    for (size_t c = 0; c < kColumns; ++c) {
      _mm512_store_si512(out + b * kTile + c * kBytes, sum[b][c]);
    }
  }
}

void expand_blocks(const CodePlanes& planes, size_t plane, const CodeBlocks& blocks, int8_t* out) {
  const CodePlanes::Plane& at = planes.planes[plane];
  if (blocks.count == kGroupBlocks) {
    return expand<kGroupBlocks>(planes, at, blocks.data, blocks.stride, out);
  }
  for (size_t b = 0; b < blocks.count; ++b) {
    expand<1>(planes, at, blocks.data + b * blocks.stride, blocks.stride, out + b * kTile);
  }
}

// The sums of a group of blocks.
HWY_INLINE void multiply(const int8_t* left, const uint8_t* weights, size_t blocks, Whole& out) {
  _tile_zero(0);
  for (size_t b = 0; b < blocks; ++b) {
    _tile_loadd(1, left + b * kTile, kBytes);
    _tile_loadd(2, weights + b * kTile, kBytes);
    _tile_dpbsud(0, 1, 2);
  }
  _tile_stored(0, out.of, kBytes);
}

TileConfig shapes_of(size_t heads) {
  TileConfig config = TileConfig::whole();
  const auto lanes = static_cast<uint16_t>(heads * sizeof(int32_t));
  for (const size_t i : {0, 2}) config.row_bytes[i] = lanes;
  return config;
}

// A step is the columns that fill the rows of left sides. While a step's left sides of one group of
// blocks are expanded those before are multiplied, and a step's sums are added up in the next one:
// nothing waits for stores to reach the cache, and products run while vectors do.
class Weigh {
 public:
  Weigh(const CodePlanes& planes, const CodeBlocks& blocks, const uint8_t* weights,
        const float* factor, float* sums)
      : planes_(planes),
        blocks_(blocks),
        weights_(weights),
        factor_(factor),
        sums_(sums),
        groups_((blocks.count + kGroupBlocks - 1) / kGroupBlocks) {}

  HWY_INLINE void run() {
    const size_t steps = (planes_.planes.size() + kPlanesOfTile - 1) / kPlanesOfTile;
    const size_t parts = steps * groups_;  // group of a step, counted through
    Prefetcher ahead(blocks_.ahead, planes_.planes.size() * groups_);
    for (size_t part = 0; part < parts; ++part) {
      expand_part(part, ahead);
      stores_are_done();
      if (part > 0) multiply_part(part - 1);
      if (part % groups_ == groups_ - 1 && part >= groups_) add_up(part / groups_ - 1);
    }
    if (parts == 0) return;
    multiply_part(parts - 1);
    add_up(steps - 1);
  }

 private:
  size_t end_of(size_t step) const {
    return std::min(planes_.planes.size(), (step + 1) * kPlanesOfTile);
  }
  size_t blocks_of(size_t group) const {
    return std::min(kGroupBlocks, blocks_.count - group * kGroupBlocks);
  }
  HWY_INLINE void expand_part(size_t part, Prefetcher& ahead) {
    const size_t step = part / groups_, group = part % groups_;
    const CodeBlocks blocks{
        blocks_.data + group * kGroupBlocks * blocks_.stride, blocks_.stride, blocks_of(group), {}};
    int8_t* left = left_[part % 2];
    for (size_t p = step * kPlanesOfTile; p < end_of(step); ++p, left += kColumns * kBytes) {
      expand_blocks(planes_, p, blocks, left);
      ahead.step();
    }
  }
  HWY_INLINE void multiply_part(size_t part) {
    const size_t step = part / groups_, group = part % groups_;
    multiply(left_[part % 2], weights_ + group * kGroupBlocks * kTile, blocks_of(group),
             whole_[step % 2][group]);
  }
  HWY_INLINE void add_up(size_t step) {
    for (size_t p = step * kPlanesOfTile; p < end_of(step); ++p) {
      const CodePlanes::Plane& plane = planes_.planes[p];
      for (size_t c = 0; c < kColumns; ++c) {
        const size_t row = p % kPlanesOfTile * kColumns + c;
        __m512 sum = _mm512_setzero_ps();
        for (size_t g = 0; g < groups_; ++g) {
          const __m512i whole = _mm512_load_si512(whole_[step % 2][g].of[row]);
          sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(whole), _mm512_loadu_ps(factor_ + g * kLanes),
                                sum);
        }
        float* to = sums_ + (plane.first_column + c) * kLanes;
        const __m512 scale = _mm512_set1_ps(plane.scale[c]);
        _mm512_storeu_ps(to, _mm512_fmadd_ps(sum, scale, _mm512_loadu_ps(to)));
      }
    }
  }

  const CodePlanes& planes_;
  const CodeBlocks& blocks_;
  const uint8_t* weights_;
  const float* factor_;
  float* sums_;
  const size_t groups_;
  alignas(64) int8_t left_[2][kGroupBlocks * kTile];
  Whole whole_[2][kMostBlocks / kGroupBlocks];
};

}  // namespace

void soften(View<const float> scores, uint8_t* weights, float* tops, float* sums) {
  MKV_CHECK(scores.rows <= kLanes && scores.cols % kPair == 0);
  alignas(64) PairWeights of_heads[4][kGroupPairs];
  for (size_t t = 0; t < scores.cols; t += kGroupPairs * kPair, tops += kLanes, sums += kLanes) {
    const size_t pairs = std::min(kGroupPairs, (scores.cols - t) / kPair);
    for (size_t h = 0; h < scores.rows; h += 4) {
      for (size_t i = 0; i < 4 && h + i < scores.rows; ++i) {
        sums[h + i] = soften_head(scores.row(h + i).data() + t, pairs, of_heads[i], tops[h + i]);
      }
      for (size_t p = 0; p < pairs; ++p) {
        uint8_t* rows = weights + (t / kBlock + 2 * p) * kTile + h * sizeof(int32_t);
        for (size_t half = 0; half < 2; ++half) {
          const __m512i four[4] = {of_heads[0][p].part[half], of_heads[1][p].part[half],
                                   of_heads[2][p].part[half], of_heads[3][p].part[half]};
          spread(four, rows + half * 8 * kBytes);
        }
      }
    }
  }
}

void weigh_codes(const CodePlanes& planes, const CodeBlocks& blocks, const uint8_t* weights,
                 const float* factor, size_t heads, float* sums) {
  MKV_CHECK(heads <= kLanes && blocks.count <= kMostBlocks);
  const TileConfig config = shapes_of(heads);
  const TileScope tiles(config);
  Weigh(planes, blocks, weights, factor, sums).run();
}

void by_head(const float* sums, View<float> out) {
  MKV_CHECK(out.rows <= kLanes);
  for (size_t c = 0; c < out.cols; c += 16, sums += 16 * kLanes) {
    __m512i rows[16], pairs[16];
    for (size_t i = 0; i < 16; ++i) rows[i] = _mm512_loadu_si512(sums + i * kLanes);
    for (size_t i = 0; i < 16; i += 4) {
      const __m512i a = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
      const __m512i b = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
      const __m512i d = _mm512_unpacklo_epi32(rows[i + 2], rows[i + 3]);
      const __m512i e = _mm512_unpackhi_epi32(rows[i + 2], rows[i + 3]);
      pairs[i] = _mm512_unpacklo_epi64(a, d);  // lane 4 l + i of four rows in part l
      pairs[i + 1] = _mm512_unpackhi_epi64(a, d);
      pairs[i + 2] = _mm512_unpacklo_epi64(b, e);
      pairs[i + 3] = _mm512_unpackhi_epi64(b, e);
    }
    const size_t left = std::min<size_t>(16, out.cols - c);
    const auto kept = static_cast<__mmask16>((1u << left) - 1u);
    for (size_t i = 0; i < 4; ++i) {
      const __m512i a = _mm512_shuffle_i32x4(pairs[i], pairs[i + 4], _MM_SHUFFLE(1, 0, 1, 0));
      const __m512i b = _mm512_shuffle_i32x4(pairs[i], pairs[i + 4], _MM_SHUFFLE(3, 2, 3, 2));
      const __m512i d = _mm512_shuffle_i32x4(pairs[i + 8], pairs[i + 12], _MM_SHUFFLE(1, 0, 1, 0));
      const __m512i e = _mm512_shuffle_i32x4(pairs[i + 8], pairs[i + 12], _MM_SHUFFLE(3, 2, 3, 2));
      const __m512i of_head[4] = {_mm512_shuffle_i32x4(a, d, _MM_SHUFFLE(2, 0, 2, 0)),
                                  _mm512_shuffle_i32x4(a, d, _MM_SHUFFLE(3, 1, 3, 1)),
                                  _mm512_shuffle_i32x4(b, e, _MM_SHUFFLE(2, 0, 2, 0)),
                                  _mm512_shuffle_i32x4(b, e, _MM_SHUFFLE(3, 1, 3, 1))};
      for (size_t l = 0; l < 4 && 4 * l + i < out.rows; ++l) {
        _mm512_mask_storeu_epi32(out.row(4 * l + i).data() + c, kept, of_head[l]);
      }
    }
  }
}

}  // namespace mkv::amx
HWY_POP_ATTRIBUTES

#else

namespace mkv::amx {
void by_head(const float*, View<float>) { MKV_CHECK(false); }
void soften(View<const float>, uint8_t*, float*, float*) { MKV_CHECK(false); }
void weigh_codes(const CodePlanes&, const CodeBlocks&, const uint8_t*, const float*, size_t,
                 float*) {
  MKV_CHECK(false);
}
}  // namespace mkv::amx

#endif
