#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>

#include "hwy/cache_control.h"
#include "ops/instruction_set.h"
#include "ops/integer_products.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/integer_kernels.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.h.
#include "hwy/highway.h"
#include "ops/integer-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mkv {
namespace HWY_NAMESPACE {

#if HWY_TARGET == HWY_SCALAR

bool HasIntegerProducts() { return false; }
void ToIntegerRows(View<const float>, size_t, size_t, IntegerRows&) { MKV_CHECK(false); }
void MultiplyIntegerRows(const IntegerRows&, const Weight&, size_t, size_t, View<float>) {
  MKV_CHECK(false);
}

#else

bool HasIntegerProducts() { return true; }

// Below it a group is taken for zeros: 1 / scale would not be finite.
constexpr float kSmallest = 0x1p-100f;

// The bytes of a group's words: high ones in order, then low ones.
HWY_INLINE void split_words(const int16_t* words, int8_t* bytes) {
  const hn::CappedTag<int16_t, kIntegerGroup / 2> d;
  const hn::Repartition<int8_t, decltype(d)> d8;
  constexpr size_t kHalf = kIntegerGroup / 2;
  const auto mask = hn::Set(d, 0xff);
  for (size_t i = 0; i < kHalf; i += hn::MaxLanes(d)) {
    const auto even = hn::LoadU(d, words + i), odd = hn::LoadU(d, words + kHalf + i);
    // Rounded, as the low byte is signed.
    const auto even_high = hn::ShiftRight<8>(hn::Add(even, hn::Set(d, 128)));
    const auto odd_high = hn::ShiftRight<8>(hn::Add(odd, hn::Set(d, 128)));
    const auto high = hn::Or(hn::And(even_high, mask), hn::ShiftLeft<8>(odd_high));
    const auto low = hn::Or(hn::And(even, mask), hn::ShiftLeft<8>(odd));
    hn::StoreU(hn::BitCast(d8, high), d8, bytes + 2 * i);
    hn::StoreU(hn::BitCast(d8, low), d8, bytes + kIntegerGroup + 2 * i);
  }
}

// One group: 32 elements of x to 32 words, its scale and the sum of the words.
HWY_INLINE void to_integers(const float* x, int16_t* words, float& scale, int32_t& sum) {
  const hn::CappedTag<float, kIntegerGroup / 2> d;
  const hn::Rebind<int32_t, decltype(d)> d32;
  const hn::Rebind<int16_t, decltype(d)> d16;
  constexpr size_t kHalf = kIntegerGroup / 2, kStep = hn::MaxLanes(d), kCount = kHalf / kStep;
  hn::Vec<decltype(d)> even[kCount], odd[kCount];
  auto largest = hn::Zero(d32);  // of the bits without sign: a NaN is above all numbers
  for (size_t i = 0; i < kCount; ++i) {
    hn::LoadInterleaved2(d, x + i * kStep * 2, even[i], odd[i]);
    largest = hn::Max(largest, hn::BitCast(d32, hn::Abs(even[i])));
    largest = hn::Max(largest, hn::BitCast(d32, hn::Abs(odd[i])));
  }
  const float top = std::bit_cast<float>(hn::GetLane(hn::MaxOfLanes(d32, largest)));
  const bool finite = top <= std::numeric_limits<float>::max();
  const float inverse = finite && top > kSmallest ? kLargestWord / top : 0.0f;
  const auto factor = hn::Set(d, inverse);
  auto total = hn::Zero(d32);
  for (size_t i = 0; i < kCount; ++i) {
    const auto a = hn::NearestInt(hn::Mul(even[i], factor));
    const auto b = hn::NearestInt(hn::Mul(odd[i], factor));
    total = hn::Add(total, hn::Add(a, b));
    hn::StoreU(hn::DemoteTo(d16, a), d16, words + i * kStep);
    hn::StoreU(hn::DemoteTo(d16, b), d16, words + kHalf + i * kStep);
  }
  scale = finite ? top * (1.0f / kLargestWord) : std::numeric_limits<float>::quiet_NaN();
  sum = hn::GetLane(hn::SumOfLanes(d32, total));
}

void ToIntegerRows(View<const float> x, size_t first, size_t last, IntegerRows& out) {
  const size_t padded = out.padded_groups();
  for (size_t t = first; t < last; ++t) {
    int16_t* words = out.values.data() + t * out.groups * kIntegerGroup;
    float* scales = out.scales.data() + t * padded;
    float* sums = out.sums.data() + t * padded;
    int32_t* integer_sums = out.integer_sums.data() + t * padded;
    int8_t* bytes = out.bytes.data() + t * out.groups * 2 * kIntegerGroup;
    const float* row = x.row(t).data();
    for (size_t g = 0; g < out.groups; ++g) {
      to_integers(row + g * kIntegerGroup, words + g * kIntegerGroup, scales[g], integer_sums[g]);
      sums[g] = scales[g] * static_cast<float>(integer_sums[g]);
      split_words(words + g * kIntegerGroup, bytes + g * 2 * kIntegerGroup);
    }
    std::fill(scales + out.groups, scales + padded, 0.0f);
    std::fill(sums + out.groups, sums + padded, 0.0f);
  }
}

// Groups whose factors are unpacked at a time, so that they stay on the stack.
constexpr size_t kChunk = 64;
static_assert(kChunk <= kMostBlocks && kChunk % kGroupPadding == 0);

// The bytes at p ... p+size-1, to be read soon. Rows follow each other, but a tile walks several at
// once, in runs that are too short for the processor to foresee.
constexpr size_t kAheadBytes = 8192;
template <size_t kSize>
HWY_INLINE void prefetch(const uint8_t* p) {
  constexpr size_t kLines = (kSize + 63) / 64;
  for (size_t i = 0; i < kLines; ++i) hwy::Prefetch(p + i * kSize / kLines);
}

// kRows rows times kTokens tokens. Every sum is made of the same steps in each tile shape, so a
// token's result is the same bit for bit.
template <class Format, size_t kRows, size_t kTokens, bool kVnni>
struct IntegerTile {
  using Sums = FloatV[kRows][kTokens];
  const IntegerRows& x;
  const size_t token;
  const size_t stride;  // bytes from one row of the weight to the next
  float scales[kRows][kTokens][kChunk * Format::kScales];  // of a chunk

  IntegerTile(const IntegerRows& rows, size_t first_token, size_t row_stride)
      : x(rows), token(first_token), stride(row_stride) {}

  // Scales of `groups` groups from `first`, and what the offsets give: offset * sum of the words.
  HWY_INLINE void start_chunk(size_t r, const uint8_t* blocks, size_t first, size_t groups,
                              Sums& sums) {
    float scale[kChunk * Format::kScales + 7], offset[kChunk + 7];
    Format::factors(blocks, groups / Format::kGroups, scale, offset);
    const Floats d;
    constexpr size_t kLanes = hn::MaxLanes(d);
    for (size_t t = 0; t < kTokens; ++t) {
      const float* x_scales = x.row_scales(token + t) + first;
      const float* x_sums = x.row_sums(token + t) + first;
      if constexpr (Format::kScales == 2) {
        for (size_t g = 0; g < groups; ++g) {
          scales[r][t][2 * g] = scale[2 * g] * x_scales[g];
          scales[r][t][2 * g + 1] = scale[2 * g + 1] * x_scales[g];
        }
      } else {
        for (size_t g = 0; g < groups; g += kLanes) {
          const FloatV product = hn::Mul(hn::LoadU(d, scale + g), hn::LoadU(d, x_scales + g));
          hn::StoreU(product, d, scales[r][t] + g);
          if constexpr (Format::kOffset) {
            const FloatV offsets = hn::LoadU(d, offset + g);
            sums[r][t] = hn::MulAdd(offsets, hn::LoadU(d, x_sums + g), sums[r][t]);
          }
        }
      }
    }
  }

  // One block of each row; its groups are group, group + 1 ... of the row, and in_chunk, ... of the
  // chunk.
  template <size_t kGroup>
  HWY_INLINE void add_block(const uint8_t* block, size_t group, size_t in_chunk, Sums& sums) const {
    for (size_t r = 0; r < kRows; ++r) {
      ByteV bytes[kByteVectors];
      Format::template bytes<kGroup>(block + r * stride, bytes);
      WordPair w[kByteVectors];
      for (size_t i = 0; i < kByteVectors; ++i) w[i] = to_words<Format::kSigned>(bytes[i]);
      for (size_t t = 0; t < kTokens; ++t) {
        const int16_t* words = x.row(token + t) + (group + kGroup) * kIntegerGroup;
        const float* scale = scales[r][t] + (in_chunk + kGroup) * Format::kScales;
        sums[r][t] = add_group(w, words, scale, sums[r][t]);
      }
    }
    if constexpr (kGroup + 1 < Format::kGroups) {
      add_block<kGroup + 1>(block, group, in_chunk, sums);
    }
  }

  HWY_INLINE static FloatV add_group(const WordPair (&w)[kByteVectors], const int16_t* words,
                                     const float* scale, FloatV total) {
    const Words d16;
    IntV sum = hn::Zero(Ints());
    for (size_t i = 0; i < kByteVectors; ++i) {
      const int16_t* even = words + i * kByteLanes / 2;
      sum = add_products<kVnni>(sum, w[i].even, hn::LoadU(d16, even));
      sum = add_products<kVnni>(sum, w[i].odd, hn::LoadU(d16, even + kIntegerGroup / 2));
      if (Format::kScales == 2 || i + 1 == kByteVectors) {
        total = hn::MulAdd(hn::ConvertTo(Floats(), sum), scale_of(scale, i), total);
        sum = hn::Zero(Ints());
      }
    }
    return total;
  }

  // The scale of each lane of a group's vector i.
  HWY_INLINE static FloatV scale_of(const float* scale, size_t i) {
    const Floats d;
    if constexpr (Format::kScales == 1) return hn::Set(d, *scale);
    if constexpr (Format::kScales == 2 && kByteVectors == 2) return hn::Set(d, scale[i]);
    if constexpr (Format::kScales == 2 && kByteVectors == 1) {
      return hn::ConcatUpperLower(d, hn::Set(d, scale[1]), hn::Set(d, scale[0]));
    }
  }
};

template <class Format, size_t kRows, size_t kTokens, bool kVnni>
void multiply_tile(const IntegerRows& x, const uint8_t* data, size_t stride, size_t row,
                   size_t token, View<float> y) {
  using Tile = IntegerTile<Format, kRows, kTokens, kVnni>;
  FloatV sums[kRows][kTokens];
  for (auto& of_row : sums) {
    for (FloatV& sum : of_row) sum = hn::Zero(Floats());
  }
  Tile tile(x, token, stride);
  for (size_t first = 0; first < x.groups; first += kChunk) {
    const size_t groups = std::min(kChunk, x.groups - first);
    const uint8_t* block = data + first / Format::kGroups * Format::kBytes;
    for (size_t r = 0; r < kRows; ++r) {
      tile.start_chunk(r, block + r * stride, first, groups, sums);
    }
    const uint8_t* ahead = data + kAheadBytes + first / Format::kGroups * Format::kBytes * kRows;
    for (size_t g = 0; g < groups; g += Format::kGroups, block += Format::kBytes) {
      prefetch<Format::kBytes * kRows>(ahead);
      ahead += Format::kBytes * kRows;
      tile.template add_block<0>(block, first + g, g, sums);
    }
  }
  for (size_t r = 0; r < kRows; ++r) {
    for (size_t t = 0; t < kTokens; ++t) {
      y.at(token + t, row + r) = hn::GetLane(hn::SumOfLanes(Floats(), sums[r][t]));
    }
  }
}

constexpr size_t kMostRows = HWY_TARGET == HWY_AVX3 ? 8 : 4;  // of 32 registers, or 16

template <class Format, size_t kTokens, bool kVnni>
void multiply_tokens(const IntegerRows& x, const Weight& w, size_t first, size_t last, size_t token,
                     View<float> y) {
  // Rows at once: enough independent sums to hide latencies, few enough for the registers.
  constexpr size_t kRows = kTokens > 2 ? 1 : kTokens == 2 ? 2 : Format::kSigned ? 4 : kMostRows;
  const size_t stride = row_bytes(w.type, w.cols);
  const auto* data = reinterpret_cast<const uint8_t*>(w.data) + first * stride;
  size_t r = first;
  for (; r + kRows <= last; r += kRows, data += kRows * stride) {
    multiply_tile<Format, kRows, kTokens, kVnni>(x, data, stride, r, token, y);
  }
  for (; r < last; ++r, data += stride) {
    multiply_tile<Format, 1, kTokens, kVnni>(x, data, stride, r, token, y);
  }
}

template <bool kVnni>
void multiply_rows_with(const IntegerRows& x, const Weight& w, size_t first, size_t last,
                        View<float> y) {
  with_format(w.type, [&](auto format) {
    using Format = decltype(format);
    size_t t = 0;
    for (; t + 4 <= x.tokens; t += 4) {
      multiply_tokens<Format, 4, kVnni>(x, w, first, last, t, y);
    }
    for (; t + 2 <= x.tokens; t += 2) {
      multiply_tokens<Format, 2, kVnni>(x, w, first, last, t, y);
    }
    for (; t < x.tokens; ++t) multiply_tokens<Format, 1, kVnni>(x, w, first, last, t, y);
  });
}

void MultiplyIntegerRows(const IntegerRows& x, const Weight& w, size_t first, size_t last,
                         View<float> y) {
  if (kMayHaveVnni && has_vnni()) return multiply_rows_with<kMayHaveVnni>(x, w, first, last, y);
  multiply_rows_with<false>(x, w, first, last, y);
}

#endif  // HWY_TARGET == HWY_SCALAR

}  // namespace HWY_NAMESPACE
}  // namespace mkv
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mkv {
HWY_EXPORT(HasIntegerProducts);
HWY_EXPORT(ToIntegerRows);
HWY_EXPORT(MultiplyIntegerRows);

void IntegerRows::reshape(size_t token_count, size_t cols) {
  MKV_CHECK(cols % kIntegerGroup == 0);
  tokens = token_count;
  groups = cols / kIntegerGroup;
  values.resize(std::max(values.size(), tokens * cols));
  scales.resize(std::max(scales.size(), tokens * padded_groups()));
  sums.resize(std::max(sums.size(), tokens * padded_groups()));
  integer_sums.resize(std::max(integer_sums.size(), tokens * padded_groups()));
  bytes.resize(std::max(bytes.size(), tokens * cols * 2));
}

bool has_integer_products(DType type) {
  return info(type).block_elements > 1 && HWY_DYNAMIC_DISPATCH(HasIntegerProducts)();
}

void to_integer_rows(View<const float> x, size_t first, size_t last, IntegerRows& out) {
  MKV_CHECK(out.tokens == x.rows && out.groups * kIntegerGroup == x.cols && last <= x.rows);
  HWY_DYNAMIC_DISPATCH(ToIntegerRows)(x, first, last, out);
}

void multiply_integer_rows(const IntegerRows& x, const Weight& w, size_t first, size_t last,
                           View<float> y) {
  MKV_CHECK(x.groups * kIntegerGroup == w.cols && w.cols % info(w.type).block_elements == 0);
  MKV_CHECK(y.cols == w.rows && x.tokens == y.rows && last <= w.rows);
  MKV_CHECK(w.layout == Layout::rows);
  HWY_DYNAMIC_DISPATCH(MultiplyIntegerRows)(x, w, first, last, y);
}

}  // namespace mkv
#endif  // HWY_ONCE
