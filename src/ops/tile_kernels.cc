// Integer products of few tokens with weights in tiles: the rows of a tile are the lanes.
#include <algorithm>
#include <cstring>

#include "hwy/cache_control.h"
#include "ops/instruction_set.h"
#include "ops/integer_products.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/tile_kernels.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.h.
#include "hwy/highway.h"
#include "ops/tiles-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mkv {
namespace HWY_NAMESPACE {

#if HWY_TARGET == HWY_SCALAR

void MultiplyIntegerTiles(const IntegerRows&, const Weight&, size_t, size_t, View<float>) {
  MKV_CHECK(false);
}

#else

// Bytes of a tile that are asked of the memory before they are read.
constexpr size_t kAhead = 4096;

// The sum of a quad's products, for each row. With VNNI a word of the activations is split in two
// bytes: unsigned codes times signed bytes, four at once.
constexpr bool kSplitWords = HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX2;

HWY_INLINE IntV add_bytes(IntV sum, ByteV codes, const int8_t* x) {
#if HWY_TARGET == HWY_AVX3
  asm("vpdpbusd %2%{1to8%}, %1, %0"
      : "+v"(sum.raw)
      : "v"(codes.raw), "m"(*reinterpret_cast<const int32_t*>(x)));
#elif HWY_TARGET == HWY_AVX2
  int32_t quad;
  std::memcpy(&quad, x, sizeof(quad));
  const IntV all = hn::Set(Ints(), quad);
  asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum.raw) : "x"(codes.raw), "x"(all.raw));
#else
  (void)codes, (void)x;
#endif
  return sum;
}

HWY_INLINE IntV add_words(IntV sum, ByteV codes, const int16_t* x) {
  const Ints d;
  int32_t even, odd;
  std::memcpy(&even, x, sizeof(even));
  std::memcpy(&odd, x + kIntegerGroup / 2, sizeof(odd));
  const WordPair w = to_words<false>(codes);
  sum = add_products<false>(sum, w.even, hn::BitCast(Words(), hn::Set(d, even)));
  return add_products<false>(sum, w.odd, hn::BitCast(Words(), hn::Set(d, odd)));
}

// A tile times kTokens tokens.
template <class Tile, size_t kTokens, bool kBytes>
struct TileProduct {
  const IntegerRows& x;
  const size_t token;
  FloatV totals[kParts][kTokens];

  HWY_INLINE void add_part(const uint8_t* group, size_t g, size_t part) {
    const Ints d;
    IntV low[kTokens], high[kTokens];
    for (size_t t = 0; t < kTokens; ++t) {
      low[t] = Tile::kCenter == 0 ? hn::Zero(d)
                                  : hn::Set(d, -Tile::kCenter * x.row_integer_sums(token + t)[g]);
      high[t] = hn::Zero(d);
    }
    for (size_t pair = 0; pair < kQuads / 2; ++pair) {
      ByteV codes[2];
      Tile::quads(group, pair, part, codes);
      for (size_t i = 0; i < 2; ++i) {
        const size_t quad = pair * 2 + i;
        for (size_t t = 0; t < kTokens; ++t) {
          if constexpr (kBytes) {
            const int8_t* bytes = x.row_bytes(token + t) + g * 2 * kIntegerGroup + quad * 4;
            high[t] = add_bytes(high[t], codes[i], bytes);
            low[t] = add_bytes(low[t], codes[i], bytes + kIntegerGroup);
          } else {
            low[t] = add_words(low[t], codes[i], x.row(token + t) + g * kIntegerGroup + quad * 2);
          }
        }
      }
    }
    const Floats df;
    const FloatV scale = load_half(df, group + part * kPartRows * 2);
    for (size_t t = 0; t < kTokens; ++t) {
      const IntV sum = kBytes ? hn::Add(hn::ShiftLeft<8>(high[t]), low[t]) : low[t];
      const FloatV x_scale = hn::Set(df, x.row_scales(token + t)[g]);
      FloatV& total = totals[part][t];
      total = hn::MulAdd(hn::ConvertTo(df, sum), hn::Mul(scale, x_scale), total);
      if constexpr (Tile::kOffset) {
        const FloatV min = load_half(df, group + kHalves + part * kPartRows * 2);
        total = hn::MulAdd(min, hn::Set(df, x.row_sums(token + t)[g]), total);
      }
    }
  }
};

template <class Tile, size_t kTokens, bool kBytes>
void multiply_tile(const IntegerRows& x, const uint8_t* group, size_t token, size_t row,
                   View<float> y) {
  TileProduct<Tile, kTokens, kBytes> product{x, token, {}};
  for (auto& part : product.totals) {
    for (FloatV& total : part) total = hn::Zero(Floats());
  }
  for (size_t g = 0; g < x.groups; ++g, group += Tile::kBytes) {
    for (size_t i = 0; i < Tile::kBytes; i += 64) hwy::Prefetch(group + kAhead + i);
    for (size_t part = 0; part < kParts; ++part) product.add_part(group, g, part);
  }
  const size_t rows = std::min(kTileRows, y.cols - row);
  for (size_t t = 0; t < kTokens; ++t) {
    float out[kTileRows];
    for (size_t part = 0; part < kParts; ++part) {
      hn::StoreU(product.totals[part][t], Floats(), out + part * kPartRows);
    }
    std::copy_n(out, rows, &y.at(token + t, row));
  }
}

template <bool kBytes>
void multiply_tiles_with(const IntegerRows& x, const Weight& w, size_t first, size_t last,
                         View<float> y) {
  with_tile(w.type, [&](auto tile) {
    using Tile = decltype(tile);
    for (size_t i = first; i < last; ++i) {
      const auto* data = reinterpret_cast<const uint8_t*>(w.tile(i));
      const size_t row = i * kTileRows;
      size_t t = 0;
      for (; t + 4 <= x.tokens; t += 4) multiply_tile<Tile, 4, kBytes>(x, data, t, row, y);
      for (; t + 2 <= x.tokens; t += 2) multiply_tile<Tile, 2, kBytes>(x, data, t, row, y);
      for (; t < x.tokens; ++t) multiply_tile<Tile, 1, kBytes>(x, data, t, row, y);
    }
  });
}

void MultiplyIntegerTiles(const IntegerRows& x, const Weight& w, size_t first, size_t last,
                          View<float> y) {
  const bool vnni = HWY_TARGET == HWY_AVX3 ? has_vnni() : has_avx2_vnni();
  if (kSplitWords && vnni) return multiply_tiles_with<kSplitWords>(x, w, first, last, y);
  multiply_tiles_with<false>(x, w, first, last, y);
}

#endif  // HWY_TARGET == HWY_SCALAR

}  // namespace HWY_NAMESPACE
}  // namespace mkv
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mkv {
HWY_EXPORT(MultiplyIntegerTiles);

void multiply_integer_tiles(const IntegerRows& x, const Weight& w, size_t first, size_t last,
                            View<float> y) {
  MKV_CHECK(x.groups * kIntegerGroup == w.cols && w.layout == Layout::tiles);
  MKV_CHECK(y.cols == w.rows && x.tokens == y.rows && last <= w.tiles());
  HWY_DYNAMIC_DISPATCH(MultiplyIntegerTiles)(x, w, first, last, y);
}

}  // namespace mkv
#endif  // HWY_ONCE
