// Integer products of few tokens with weights in tiles: the rows of a tile are the lanes.
#include <algorithm>
#include <cstring>
#include <limits>

#include "base/prefetch.h"
#include "hwy/cache_control.h"
#include "ops/instruction_set.h"
#include "ops/integer_products.h"
#include "ops/planes.h"

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
void MultiplyLeadingTiles(const IntegerRows&, const float*, const Weight&, size_t, size_t,
                          std::span<float>, float*) {
  MKV_CHECK(false);
}

#else

// Bytes of a tile that are asked of the memory before they are read.
constexpr size_t kAhead = 8192;

// The sum of a quad's products, for each row. With VNNI a word of the activations is split in two
// bytes: unsigned codes times signed bytes, four at once. Highway 1.0.3 has no name for VNNI, nor a
// target that may use it: so it is written as assembly, and asked for at run time.
constexpr bool kSplitWords = HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX2;

// A quad's bytes of the activations, in every lane.
HWY_INLINE IntV all_rows(const void* x) {
  int32_t quad;
  std::memcpy(&quad, x, sizeof(quad));
  return hn::Set(Ints(), quad);
}

// With AVX-512 a quad's bytes are read by the product itself, in the others once for all parts.
#if HWY_TARGET == HWY_AVX3
struct Quad {
  const char (&bytes)[4];

  HWY_INLINE explicit Quad(const int8_t* x) : bytes(*reinterpret_cast<const char (*)[4]>(x)) {}
  HWY_INLINE IntV add(IntV sum, ByteV codes) const {
    asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sum.raw) : "v"(codes.raw), "m"(bytes));
    return sum;
  }
};
#else
struct Quad {
  IntV bytes;

  HWY_INLINE explicit Quad(const int8_t* x) : bytes(all_rows(x)) {}
  HWY_INLINE IntV add(IntV sum, ByteV codes) const {
#if HWY_TARGET == HWY_AVX2
    asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum.raw) : "x"(codes.raw), "x"(bytes.raw));
#else
    (void)codes;
#endif
    return sum;
  }
};
#endif

// Products of neighbours belong to one row and are added up. Which products are in which of
// Highway's two sums is left to the target: neighbours, but on ARM a half of the vector each.
HWY_INLINE IntV add_pairs(IntV sum, WordV codes, IntV x) {
  const Ints d;
  IntV other = hn::Zero(d);
  const WordV words = hn::BitCast(Words(), x);
#if HWY_ARCH_ARM
  const IntV first = hn::ReorderWidenMulAccumulate(d, codes, words, hn::Zero(d), other);
  return hn::Add(sum, hn::Add(hn::ConcatEven(d, other, first), hn::ConcatOdd(d, other, first)));
#else
  sum = hn::ReorderWidenMulAccumulate(d, codes, words, sum, other);
  return hn::Add(sum, other);
#endif
}

// A tile times kTokens tokens.
template <class Tile, size_t kTokens, bool kBytes>
struct TileProduct {
  // Parts of the rows that go together, so that activations are loaded once for all: as many as the
  // registers hold sums of.
  static constexpr size_t kTogether = kTokens == 1 ? kParts : 1;

  // Sums of each row and token, as one product waits for the one before: a processor whose other
  // half is busy looks too little ahead to find those of the next group.
  static constexpr size_t kChains = kBytes && kTogether * kTokens == 1 ? 2 : 1;

  static constexpr size_t kGroupBytes = Tile::kBytes / Tile::kGroups;

  const IntegerRows& x;
  const size_t token;
  FloatV totals[kParts][kTokens];

  HWY_INLINE TileProduct(const IntegerRows& rows, size_t first_token)
      : x(rows), token(first_token) {
    for (auto& part : totals) {
      for (FloatV& total : part) total = hn::Zero(Floats());
    }
  }

  // also(factors, group of a block): called for each group of the activations, in their order.
  template <class Also>
  HWY_INLINE void add_tile(const uint8_t* block, const Also& also) {
    for (size_t first = 0; first < x.groups; first += Tile::kGroups, block += Tile::kBytes) {
      const typename Tile::Factors factors(block);
      for (size_t g = 0; g < Tile::kGroups; ++g) {
        const uint8_t* ahead = block + kAhead + g * kGroupBytes;
        for (size_t i = 0; i < kGroupBytes; i += 64) hwy::Prefetch(ahead + i);
        for (size_t part = 0; part < kParts; part += kTogether) {
          add_group(block, factors, g, first + g, part);
        }
        also(factors, g);
      }
    }
  }

  // The sums of products of a group, or of one half of it; with VNNI of the high bytes and of the
  // low ones.
  struct Sums {
    HWY_INLINE Sums() {}  // an implicit one lacks the target that GCC asks of NEON's vectors
    IntV low[kChains][kTogether][kTokens], high[kChains][kTogether][kTokens];
  };

  // Group `group` of a block, whose activations are those of their group g, for the rows of
  // kTogether parts.
  HWY_INLINE void add_group(const uint8_t* block, const typename Tile::Factors& factors,
                            size_t group, size_t g, size_t first_part) {
    const uint8_t* codes = Tile::codes(block, group);
    for (size_t half = 0; half < Tile::kScales; ++half) {
      Sums sums;
      clear(sums, g, half);
      if (Tile::kScales == 1) {
        add_quads<0, kQuads / 2>(sums, codes, g, first_part);
      } else if (half == 0) {
        add_quads<0, kQuads / 4>(sums, codes, g, first_part);
      } else {
        add_quads<kQuads / 4, kQuads / 2>(sums, codes, g, first_part);
      }
      const Floats df;
      for (size_t p = 0; p < kTogether; ++p) {
        const FloatV scale = factors.scale(group, half, first_part + p);
        for (size_t t = 0; t < kTokens; ++t) {
          IntV sum = sums.low[0][p][t], high = sums.high[0][p][t];
          for (size_t chain = 1; chain < kChains; ++chain) {
            sum = hn::Add(sum, sums.low[chain][p][t]);
            high = hn::Add(high, sums.high[chain][p][t]);
          }
          if constexpr (kBytes) sum = hn::Add(hn::ShiftLeft<8>(high), sum);
          const FloatV x_scale = hn::Set(df, x.row_scales(token + t)[g]);
          FloatV& total = totals[first_part + p][t];
          total = hn::MulAdd(hn::ConvertTo(df, sum), hn::Mul(scale, x_scale), total);
        }
      }
    }
    if constexpr (Tile::kOffset) add_offsets(factors, group, g, first_part);
  }

  HWY_INLINE void add_offsets(const typename Tile::Factors& factors, size_t group, size_t g,
                              size_t first_part) {
    for (size_t part = first_part; part < first_part + kTogether; ++part) {
      const FloatV offset = factors.offset(group, part);
      for (size_t t = 0; t < kTokens; ++t) {
        const FloatV x_sum = hn::Set(Floats(), x.row_sums(token + t)[g]);
        totals[part][t] = hn::MulAdd(offset, x_sum, totals[part][t]);
      }
    }
  }

  // What a code is above its value is taken off first.
  HWY_INLINE void clear(Sums& sums, size_t g, size_t half) const {
    for (size_t t = 0; t < kTokens; ++t) {
      IntV start = hn::Zero(Ints());
      if constexpr (Tile::kCenter != 0) {
        const int32_t* of_halves = x.row_integer_sums(token + t) + g * 2;
        const int32_t all = Tile::kScales == 2 ? of_halves[half] : of_halves[0] + of_halves[1];
        start = hn::Set(Ints(), -Tile::kCenter * all >> Tile::kCenterShift);
      }
      for (size_t p = 0; p < kTogether; ++p) {
        for (size_t chain = 0; chain < kChains; ++chain) {
          sums.low[chain][p][t] = chain == 0 ? start : hn::Zero(Ints());
          sums.high[chain][p][t] = hn::Zero(Ints());
        }
      }
    }
  }

  // The pairs of quads kPair ... kEnd - 1.
  template <size_t kPair, size_t kEnd>
  HWY_INLINE void add_quads(Sums& sums, const uint8_t* codes, size_t g, size_t first_part) const {
    ByteV quads[kTogether][2];
    for (size_t p = 0; p < kTogether; ++p) {
      Tile::Codes::template quads<kPair>(codes, first_part + p, quads[p]);
    }
    for (size_t i = 0; i < 2; ++i) {
      const size_t quad = kPair * 2 + i;
      for (size_t t = 0; t < kTokens; ++t) {
        if constexpr (kBytes) {
          const int8_t* bytes = x.row_bytes(token + t) + g * 2 * kIntegerGroup + quad * 4;
          const Quad high(bytes), low(bytes + kIntegerGroup);
          const size_t chain = i % kChains;
          for (size_t p = 0; p < kTogether; ++p) {
            sums.high[chain][p][t] = high.add(sums.high[chain][p][t], quads[p][i]);
            sums.low[chain][p][t] = low.add(sums.low[chain][p][t], quads[p][i]);
          }
        } else {
          const int16_t* words = x.row(token + t) + g * kIntegerGroup + quad * 2;
          const IntV even = all_rows(words), odd = all_rows(words + kIntegerGroup / 2);
          for (size_t p = 0; p < kTogether; ++p) {
            const WordPair pair = to_words(quads[p][i]);
            IntV& sum = sums.low[0][p][t];
            sum = add_pairs(add_pairs(sum, pair.even, even), pair.odd, odd);
          }
        }
      }
    }
    if constexpr (kPair + 1 < kEnd) add_quads<kPair + 1, kEnd>(sums, codes, g, first_part);
  }
};

template <class Tile, size_t kTokens, bool kBytes>
void multiply_tile(const IntegerRows& x, const uint8_t* block, size_t token, size_t row,
                   View<float> y) {
  TileProduct<Tile, kTokens, kBytes> product(x, token);
  product.add_tile(block, [](const typename Tile::Factors&, size_t) {});
  const size_t rows = std::min(kTileRows, y.cols - row);
  for (size_t t = 0; t < kTokens; ++t) {
    float out[kTileRows];
    for (size_t part = 0; part < kParts; ++part) {
      hn::StoreU(product.totals[part][t], Floats(), out + part * kPartRows);
    }
    std::copy_n(out, rows, &y.at(token + t, row));
  }
}

// The first plane's codes (ops/planes.h), in steps of kStep of the whole ones, whose rests are
// taken for their middle: the center is 128 - 7.5 for Q8_0, 32 - 1.5 for Q6_K.
struct LeadingBytes : TileFormat<HalfFactors<false>, NibbleCodes<0>, 241> {
  static constexpr int kCenterShift = 5;
  static constexpr float kStep = 16.0f;
};
struct LeadingSixBits : TileFormat<ByteFactors, NibbleCodes<0>, 61> {
  static constexpr int kCenterShift = 3;
  static constexpr float kStep = 4.0f;
};

// spread [group][scale]: kRestDeviations^2 times the variance of what the x of a scale add without
// their weights' rests.
template <class Tile, bool kBytes>
void multiply_leading_tile(const IntegerRows& x, const float* spread, const uint8_t* block,
                           std::span<float> y, float& most) {
  const Floats d;
  TileProduct<Tile, 1, kBytes> product(x, 0);
  FloatV squares[kParts];  // of kRestDeviations deviations
  for (FloatV& square : squares) square = hn::Zero(d);
  product.add_tile(block, [&](const typename Tile::Factors& factors, size_t group) HWY_ATTR {
    for (size_t i = 0; i < Tile::kScales; ++i, ++spread) {
      const FloatV of_scale = hn::Set(d, *spread);
      for (size_t part = 0; part < kParts; ++part) {
        const FloatV scale = factors.scale(group, i, part);
        squares[part] = hn::MulAdd(hn::Mul(scale, scale), of_scale, squares[part]);
      }
    }
  });
  constexpr float kLargest = std::numeric_limits<float>::max();
  float out[kTileRows];
  FloatV largest = hn::Set(d, -kLargest);
  bool numbers = true;
  for (size_t part = 0; part < kParts; ++part) {
    const FloatV leading = hn::Mul(product.totals[part][0], hn::Set(d, Tile::kStep));
    const FloatV upper = hn::Add(leading, hn::Sqrt(squares[part]));
    numbers = numbers && hn::AllTrue(d, hn::Le(hn::Abs(upper), hn::Set(d, kLargest)));
    largest = hn::Max(largest, upper);
    hn::StoreU(leading, d, out + part * kPartRows);
  }
  std::copy_n(out, y.size(), y.data());
  most = numbers ? hn::GetLane(hn::MaxOfLanes(d, largest)) : std::numeric_limits<float>::infinity();
}

bool as_bytes() { return kSplitWords && (HWY_TARGET == HWY_AVX3 ? has_vnni() : has_avx2_vnni()); }

template <class Tile>
void multiply_leading_tiles_with(const IntegerRows& x, const float* spread, const Weight& w,
                                 size_t first, size_t last, std::span<float> y, float* most) {
  const auto multiply =
      as_bytes() ? multiply_leading_tile<Tile, kSplitWords> : multiply_leading_tile<Tile, false>;
  for (size_t i = first; i < last; ++i) {
    const auto* block = reinterpret_cast<const uint8_t*>(leading_tile(w, i));
    const size_t row = i * kTileRows;
    multiply(x, spread, block, y.subspan(row, std::min(kTileRows, y.size() - row)), most[i]);
  }
}

void MultiplyLeadingTiles(const IntegerRows& x, const float* spread, const Weight& w, size_t first,
                          size_t last, std::span<float> y, float* most) {
  const size_t begin = first * kTileRows, end = std::min(last * kTileRows, y.size());
  prefetch_to_write(y.data() + begin, (end - begin) * sizeof(float));
  x.prefetch_row(0, as_bytes());
  const auto multiply = w.type == DType::q8_0 ? multiply_leading_tiles_with<LeadingBytes>
                                              : multiply_leading_tiles_with<LeadingSixBits>;
  multiply(x, spread, w, first, last, y, most);
}

template <bool kBytes>
void multiply_tiles_with(const IntegerRows& x, const Weight& w, size_t first, size_t last,
                         View<float> y) {
  with_tile(w.type, [&](auto tile) {
    using Tile = decltype(tile);
    for (size_t i = first; i < last; ++i) {
      const auto* data = reinterpret_cast<const uint8_t*>(whole_tile(w, i));
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
  const bool bytes = as_bytes();
  const size_t begin = first * kTileRows, end = std::min(last * kTileRows, y.cols);
  for (size_t t = 0; t < x.tokens && begin < end; ++t) {
    prefetch_to_write(&y.at(t, begin), (end - begin) * sizeof(float));
    x.prefetch_row(t, bytes);
  }
  if (bytes) return multiply_tiles_with<kSplitWords>(x, w, first, last, y);
  multiply_tiles_with<false>(x, w, first, last, y);
}

#endif  // HWY_TARGET == HWY_SCALAR

}  // namespace HWY_NAMESPACE
}  // namespace mkv
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mkv {
HWY_EXPORT(MultiplyIntegerTiles);
HWY_EXPORT(MultiplyLeadingTiles);

void multiply_integer_tiles(const IntegerRows& x, const Weight& w, size_t first, size_t last,
                            View<float> y) {
  MKV_CHECK(x.groups * kIntegerGroup == w.cols && w.cols % info(w.type).block_elements == 0);
  MKV_CHECK(x.split && w.layout != Layout::rows);
  MKV_CHECK(y.cols == w.rows && x.tokens == y.rows && last <= w.tiles());
  HWY_DYNAMIC_DISPATCH(MultiplyIntegerTiles)(x, w, first, last, y);
}

void multiply_leading_tiles(const IntegerRows& x, std::span<const float> spread, const Weight& w,
                            size_t first, size_t last, std::span<float> y, std::span<float> most) {
  MKV_CHECK(x.groups * kIntegerGroup == w.cols && x.tokens == 1 && x.split);
  MKV_CHECK(spread.size() == w.cols / columns_of_scale(w.type) && y.size() == w.rows &&
            most.size() == w.tiles());
  MKV_CHECK(last <= w.tiles());
  HWY_DYNAMIC_DISPATCH(MultiplyLeadingTiles)(x, spread.data(), w, first, last, y, most.data());
}

}  // namespace mkv
#endif  // HWY_ONCE
