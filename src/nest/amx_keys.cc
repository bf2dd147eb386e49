#include <hwy/base.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/prefetch.h"
#include "nest/amx_codes.h"
#include "ops/amx.h"
#include "ops/instruction_set.h"

namespace mkv::amx {
namespace {

constexpr float kByte = kMostByte;
// 256 high + low with both in a signed byte, turned terms rounded up included.
constexpr float kMostWord = 32500.0f;

}  // namespace

bool usable() { return has_amx(); }

Buffer<int8_t> angle_tiles(std::span<const float> cos, std::span<const float> sin, size_t pairs) {
  const size_t tiles = angle_tiles_of(pairs), places = kPair / 16;
  Buffer<int8_t> out(tiles * places * kTile);
  for (size_t k = 0; k < tiles * kAmxRowBytes; ++k) {
    // _mm512_packs_epi32 and _epi16 put four of each register beside each other.
    const size_t tile = k / kAmxRowBytes, row = k % kAmxRowBytes / 4, part = row % 4;
    const size_t pair = tile * kPairsOfTile + part % 2 * 16 + row / 4 * 4 + k % 4;
    if (pair >= pairs) continue;
    for (size_t t = 0; t < kPair; ++t) {
      const std::span<const float> angle = part < 2 ? cos : sin;
      const size_t place = place_of(t);
      out[(tile * places + place / 16) * kTile + row * kAmxRowBytes + place % 16 * 4 + k % 4] =
          static_cast<int8_t>(std::lrint(kByte * angle[pair * kPair + t]));
    }
  }
  return out;
}

#if HWY_ARCH_X86_64
}  // namespace mkv::amx

// GCC 12 takes what its own header leaves undefined on purpose for a mistake (its bug 105593).
#if HWY_COMPILER_GCC && !HWY_COMPILER_CLANG
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

HWY_PUSH_ATTRIBUTES("avx,avx2,fma,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,amx-tile,amx-int8")
namespace mkv::amx {
namespace {

// Tile intrinsics of GCC 12 do not say that they read memory.
HWY_INLINE void stores_are_done() { asm volatile("" : : : "memory"); }

constexpr size_t kBytes = kAmxRowBytes;

// The terms a and b of 32 pairs as words, in the order of angle_tiles.
struct Turned {
  __m512i first, second;
};
struct Angles {
  __m512 cos[2], sin[2];
};
HWY_INLINE Turned turn(const float* a, const float* b, const Angles& angles,
                       const __mmask16 (&mask)[2]) {
  __m512i words[2][2];
  for (size_t i = 0; i < 2; ++i) {
    const __m512 x = _mm512_maskz_loadu_ps(mask[i], a + i * 16);
    const __m512 y = _mm512_maskz_loadu_ps(mask[i], b + i * 16);
    words[0][i] =
        _mm512_cvtps_epi32(_mm512_fmadd_ps(x, angles.cos[i], _mm512_mul_ps(y, angles.sin[i])));
    words[1][i] =
        _mm512_cvtps_epi32(_mm512_fmsub_ps(y, angles.cos[i], _mm512_mul_ps(x, angles.sin[i])));
  }
  return {_mm512_packs_epi32(words[0][0], words[0][1]),
          _mm512_packs_epi32(words[1][0], words[1][1])};
}

// Turns every head's terms to a block's first position, as bytes.
void turn_terms(const Queries& queries, const float* angles, int8_t* out) {
  const size_t pairs = queries.pairs;
  const __m512i half = _mm512_set1_epi16(128), byte = _mm512_set1_epi16(255);
  for (size_t p = 0; p < pairs; p += kPairsOfTile, out += 2 * kTile) {
    __mmask16 mask[2];
    Angles at;
    for (size_t i = 0; i < 2; ++i) {
      const size_t first = p + i * 16,
                   left = pairs > first ? std::min<size_t>(16, pairs - first) : 0;
      mask[i] = static_cast<__mmask16>((1u << left) - 1u);
      at.cos[i] = _mm512_maskz_loadu_ps(mask[i], angles + first);
      at.sin[i] = _mm512_maskz_loadu_ps(mask[i], angles + pairs + first);
    }
    for (size_t h = 0; h < queries.heads; ++h) {
      const float* a = queries.terms + h * 2 * pairs + p;
      const Turned words = turn(a, a + pairs, at, mask);
      const auto upper = [half](__m512i x) {
        return _mm512_srai_epi16(_mm512_add_epi16(x, half), 8);
      };
      _mm512_store_si512(out + h * kBytes,
                         _mm512_packs_epi16(upper(words.first), upper(words.second)));
      _mm512_store_si512(out + kTile + h * kBytes,
                         _mm512_packus_epi16(_mm512_and_si512(words.first, byte),
                                             _mm512_and_si512(words.second, byte)));
    }
  }
}

// Scores of 16 tokens are a tile: one for each nibble of the 32 bits of a lane of codes. Half of
// them are expanded at a time, so that they are still in the first cache when they are multiplied.
constexpr size_t kPlaces = kPair / 16, kPlacesOfHalf = kPlaces / 2;
using Nibbles = std::make_index_sequence<kPlacesOfHalf>;

// What each nibble stands for: the permutation reads only the lowest four bits of an index.
template <size_t kFirst, size_t... kNibble>
HWY_INLINE void look_up(__m512i codes, __m512i table, __m512i (&found)[kPlacesOfHalf],
                        std::index_sequence<kNibble...>) {
  ((found[kNibble] =
        _mm512_permutexvar_epi32(_mm512_srli_epi32(codes, 4 * (kFirst + kNibble)), table)),
   ...);
}
template <size_t kFirst, size_t... kNibble>
HWY_INLINE void add_look_up(__m512i codes, __m512i table, __m512i (&sum)[kPlacesOfHalf],
                            std::index_sequence<kNibble...>) {
  ((sum[kNibble] = _mm512_add_epi8(
        sum[kNibble],
        _mm512_permutexvar_epi32(_mm512_srli_epi32(codes, 4 * (kFirst + kNibble)), table))),
   ...);
}

// Rows of kPlacesOfHalf tiles: the columns of planes [begin, end) of half of a pair's tokens. The
// codes of a slab are 32 bytes of either block beside each other.
template <size_t kFirst>
void expand(const CodePlanes& planes, size_t begin, size_t end, const uint8_t* first,
            const uint8_t* second, Prefetcher& ahead, int8_t* out) {
  for (size_t p = begin; p < end; ++p, out += kBytes) {
    const auto table = [&](size_t s) {
      return _mm512_load_si512(planes.entries.data() + s * kBytes);
    };
    const auto codes = [&](size_t s) {
      const size_t at = planes.slabs[s] * size_t{32};
      const __m256i low = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(first + at));
      const __m256i high = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(second + at));
      return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
    };
    size_t s = planes.planes[p].begin;
    const size_t last = planes.planes[p].end;
    __m512i sum[kPlacesOfHalf];
    look_up<kFirst>(codes(s), table(s), sum, Nibbles());
    for (++s; s < last; ++s) add_look_up<kFirst>(codes(s), table(s), sum, Nibbles());
    for (size_t i = 0; i < kPlacesOfHalf; ++i) _mm512_store_si512(out + i * kTile, sum[i]);
    ahead.step();
  }
}

// Adds a left side times kPlacesOfHalf right sides to tiles 0 to 3.
HWY_INLINE void multiply(const int8_t* left, const int8_t* right) {
  _tile_loadd(4, left, kBytes);
  _tile_loadd(5, right, kBytes);
  _tile_dpbssd(0, 4, 5);
  _tile_loadd(5, right + kTile, kBytes);
  _tile_dpbssd(1, 4, 5);
  _tile_loadd(5, right + 2 * kTile, kBytes);
  _tile_dpbssd(2, 4, 5);
  _tile_loadd(5, right + 3 * kTile, kBytes);
  _tile_dpbssd(3, 4, 5);
}
HWY_INLINE void clear() {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
}

// The scores of some pairs, half of one at a time. While a tile of its planes is expanded the one
// before it is multiplied, and sums are read one tile late: nothing waits for stores to reach the
// cache, and products run while vectors do.
class Scores {
 public:
  Scores(const CodePlanes& planes, const Queries& queries, const BlockAngles& angles,
         const CodeBlocks& blocks, const Scratch& scratch, View<float> scores)
      : planes_(planes),
        queries_(queries),
        angles_(angles),
        blocks_(blocks),
        scratch_(scratch),
        scores_(scores),
        tiles_(plane_tiles_of(planes)),
        angle_tiles_(angle_tiles_of(queries.pairs)) {}

  HWY_INLINE void run() {
    const size_t halves = scores_.cols / kPair * 2;
    Prefetcher ahead(blocks_.ahead, planes_.planes.size() * halves);
    clear();
    for (size_t half = 0; half < halves; ++half) {
      for (size_t tile = 0; tile < tiles_; ++tile) {
        expand_tile(half, tile, ahead);
        stores_are_done();
        if (tile > 0) {
          multiply_tile(half, tile - 1);
        } else if (half > 0) {
          end_half(half - 1);
        }
        if (tile == 0 && half % 2 == 0 && angle_tiles_ > 0) {
          turn_terms(queries_, angles_.first + half * angles_.stride, scratch_.turned);
        }
        if (tile == tiles_ - 1 && half > 0) add_up(half - 1);
      }
    }
    end_half(halves - 1);
    add_up(halves - 1);
  }

 private:
  int8_t* expanded(size_t half, size_t tile) const {
    return scratch_.expanded + (half * tiles_ + tile) % 2 * kPlacesOfHalf * kTile;
  }
  HWY_INLINE void expand_tile(size_t half, size_t tile, Prefetcher& ahead) {
    const size_t block = half / 2 * 2, begin = tile * kTilePlanes;
    const uint8_t* first = blocks_.data + block * blocks_.stride;
    const uint8_t* second = block + 1 < blocks_.count ? first + blocks_.stride : first;
    const size_t end = std::min(planes_.planes.size(), begin + kTilePlanes);
    int8_t* out = expanded(half, tile);
    if (half % 2 == 0) {
      expand<0>(planes_, begin, end, first, second, ahead, out);
    } else {
      expand<kPlacesOfHalf>(planes_, begin, end, first, second, ahead, out);
    }
  }
  HWY_INLINE void multiply_tile(size_t half, size_t tile) {
    multiply(queries_.bytes + tile * kTile, expanded(half, tile));
    if (tile == 0) multiply(queries_.bytes + tiles_ * kTile, expanded(half, tile));
  }
  // The last tile of a half and the position mean's; then the sums begin anew.
  HWY_INLINE void end_half(size_t half) {
    multiply_tile(half, tiles_ - 1);
    multiply_angles(half, 1);
    store_sums(0);
    clear();
    if (angle_tiles_ == 0) return;
    multiply_angles(half, 0);
    store_sums(1);
    clear();
  }
  // High (0) or low (1) bytes of turned terms times their angles.
  HWY_INLINE void multiply_angles(size_t half, size_t part) {
    for (size_t t = 0; t < angle_tiles_; ++t) {
      multiply(scratch_.turned + (2 * t + part) * kTile,
               angles_.within + (t * kPlaces + half % 2 * kPlacesOfHalf) * kTile);
    }
  }
  HWY_INLINE void store_sums(size_t part) {
    _tile_stored(0, sums_[part][0], kBytes);
    _tile_stored(1, sums_[part][1], kBytes);
    _tile_stored(2, sums_[part][2], kBytes);
    _tile_stored(3, sums_[part][3], kBytes);
  }

  HWY_INLINE void add_up(size_t half) {
    for (size_t h = 0; h < queries_.heads; ++h) {
      const __m512 unit = _mm512_set1_ps(queries_.unit[h]);
      const __m512 high_unit = _mm512_set1_ps(256.0f * queries_.unit[h]);
      const __m512 base = _mm512_set1_ps(queries_.base[h]);
      float* to = scores_.row(h).data() + half * kPlacesOfHalf * 16;
      for (size_t i = 0; i < kPlacesOfHalf; ++i) {
        __m512 sum = base;
        if (angle_tiles_ > 0) {
          sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_load_si512(sums_[1][i][h])), high_unit,
                                sum);
        }
        sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_load_si512(sums_[0][i][h])), unit, sum);
        _mm512_storeu_ps(to + i * 16, sum);
      }
    }
  }

  const CodePlanes& planes_;
  const Queries& queries_;
  const BlockAngles& angles_;
  const CodeBlocks& blocks_;
  const Scratch& scratch_;
  const View<float> scores_;
  const size_t tiles_, angle_tiles_;
  // [of codes and low bytes of terms, of high bytes][right side]
  alignas(64) int32_t sums_[2][kPlacesOfHalf][kLanes][16];
};

TileConfig shapes_of(size_t heads) {
  TileConfig config = TileConfig::whole();
  for (size_t i = 0; i < 5; ++i) config.rows[i] = static_cast<uint8_t>(heads);
  return config;
}

}  // namespace

void round_query(const CodePlanes& planes, const float* latent, size_t head, const Queries& out) {
  const size_t tiles = plane_tiles_of(planes);
  float* terms = out.terms + head * 2 * out.pairs;
  float unit = 0.0f, largest_term = 0.0f;
  for (size_t p = 0; p < planes.planes.size(); ++p) {
    const CodePlanes::Plane& plane = planes.planes[p];
    float largest = 0.0f;
    for (size_t c = 0; c < kSlabColumns; ++c) {
      largest = std::max(largest, std::abs(latent[plane.first_column + c] * plane.scale[c]));
    }
    unit = std::max(unit, largest / static_cast<float>(p < kTilePlanes ? kMostFirst : kMostByte));
  }
  for (size_t i = 0; i < out.pairs; ++i) {
    const float a = terms[i], b = terms[i + out.pairs];
    largest_term = std::max(largest_term, std::sqrt(a * a + b * b) / kByte);
  }
  unit = std::max(unit, largest_term / kMostWord);
  // A subnormal's reciprocal may be infinite.
  const float factor = unit > 1e-37f ? 1.0f / unit : 0.0f;
  out.unit[head] = unit;
  for (size_t i = 0; i < 2 * out.pairs; ++i) terms[i] *= factor / kByte;
  int8_t* to = out.bytes + head * kBytes;
  for (size_t p = 0; p < tiles * kTilePlanes; p += 4) {
    alignas(64) float values[16] = {};
    for (size_t i = 0; i < 4 && p + i < planes.planes.size(); ++i) {
      const CodePlanes::Plane& plane = planes.planes[p + i];
      const __m128 scale = _mm_mul_ps(_mm_loadu_ps(plane.scale), _mm_set1_ps(factor));
      _mm_store_ps(values + 4 * i, _mm_mul_ps(_mm_loadu_ps(latent + plane.first_column), scale));
    }
    const auto store = [&](size_t tile, __m512i bytes) {
      int8_t* at = to + tile * kTile + p % kTilePlanes * 4;
      _mm_storeu_si128(reinterpret_cast<__m128i*>(at), _mm512_cvtepi32_epi8(bytes));
    };
    const __m512i all = _mm512_cvtps_epi32(_mm512_load_ps(values)),
                  most = _mm512_set1_epi32(kMostByte);
    const __m512i first =
        _mm512_max_epi32(_mm512_min_epi32(all, most), _mm512_set1_epi32(-kMostByte));
    store(p / kTilePlanes, first);
    if (p < kTilePlanes) store(tiles, _mm512_sub_epi32(all, first));
  }
}

void score_codes(const CodePlanes& planes, const Queries& queries, const BlockAngles& angles,
                 const CodeBlocks& blocks, const Scratch& scratch, View<float> scores) {
  MKV_CHECK(queries.heads <= kLanes && scores.rows == queries.heads);
  MKV_CHECK(planes.planes.size() <= kMostPlanes);
  MKV_CHECK(scores.cols == (blocks.count + 1) / 2 * kPair);
  if (blocks.count == 0) return;
  const TileConfig config = shapes_of(queries.heads);
  const TileScope tiles(config);
  Scores(planes, queries, angles, blocks, scratch, scores).run();
}

}  // namespace mkv::amx
HWY_POP_ATTRIBUTES

#else

void round_query(const CodePlanes&, const float*, size_t, const Queries&) { MKV_CHECK(false); }
void score_codes(const CodePlanes&, const Queries&, const BlockAngles&, const CodeBlocks&,
                 const Scratch&, View<float>) {
  MKV_CHECK(false);
}

}  // namespace mkv::amx
#endif
