#include "ops/amx_products.h"

#include <hwy/base.h>

#include <algorithm>

#include "base/check.h"
#include "ops/amx.h"

#if HWY_ARCH_X86_64
// GCC 12 takes what its own header leaves undefined on purpose for a mistake (its bug 105593).
#if HWY_COMPILER_GCC && !HWY_COMPILER_CLANG
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

HWY_PUSH_ATTRIBUTES("avx,avx2,fma,avx512f,avx512bw,avx512vl,avx512dq,amx-tile,amx-int8,amx-bf16")
namespace mkv {
namespace {

constexpr size_t kStride = kAmxRowBytes;

// A product: which part of the left side times which of the right. Neighbours share an operand.
struct Term {
  size_t left, right;
};
template <BrainParts kParts>
struct Terms;
template <>
struct Terms<BrainParts::two_two> {
  static constexpr Term kList[] = {{0, 1}, {0, 0}, {1, 0}};
};
template <>
struct Terms<BrainParts::three_one> {
  static constexpr Term kList[] = {{2, 0}, {1, 0}, {0, 0}};
};
template <>
struct Terms<BrainParts::three_two> {
  static constexpr Term kList[] = {{2, 0}, {1, 0}, {1, 1}, {0, 1}, {0, 0}};
};
template <>
struct Terms<BrainParts::three_three> {
  static constexpr Term kList[] = {{2, 0}, {1, 0}, {1, 1}, {0, 1}, {0, 2}, {0, 0}};
};

// Two tiles of the left side times two of the right: registers 0 to 3 hold the sums, 4 a tile of
// the left side, 5 of the right. Without a second tile its products are left out.
template <BrainParts kParts, bool kLeftTwo, bool kRightTwo>
struct Square {
  HWY_INLINE static void load(const float* c, size_t stride) {
    const size_t bytes = stride * sizeof(float);
    _tile_loadd(0, c, bytes);
    if constexpr (kRightTwo) _tile_loadd(1, c + kBrainRows, bytes);
    if constexpr (kLeftTwo) _tile_loadd(2, c + kBrainRows * stride, bytes);
    if constexpr (kLeftTwo && kRightTwo)
      _tile_loadd(3, c + kBrainRows * stride + kBrainRows, bytes);
  }
  HWY_INLINE static void clear() {
    _tile_zero(0);
    if constexpr (kRightTwo) _tile_zero(1);
    if constexpr (kLeftTwo) _tile_zero(2);
    if constexpr (kLeftTwo && kRightTwo) _tile_zero(3);
  }
  HWY_INLINE static void store(float* c, size_t stride) {
    const size_t bytes = stride * sizeof(float);
    _tile_stored(0, c, bytes);
    if constexpr (kRightTwo) _tile_stored(1, c + kBrainRows, bytes);
    if constexpr (kLeftTwo) _tile_stored(2, c + kBrainRows * stride, bytes);
    if constexpr (kLeftTwo && kRightTwo) {
      _tile_stored(3, c + kBrainRows * stride + kBrainRows, bytes);
    }
  }
  template <size_t kTerm = 0>
  HWY_INLINE static void add(const uint16_t* left, size_t left_stride, const uint16_t* right,
                             size_t right_stride) {
    constexpr auto& kList = Terms<kParts>::kList;
    const uint16_t* const of_left = left + kList[kTerm].left * kBrainTile;
    const uint16_t* const of_right = right + kList[kTerm].right * kBrainTile;
    _tile_loadd(4, of_left, kStride);
    _tile_loadd(5, of_right, kStride);
    _tile_dpbf16ps(0, 4, 5);
    if constexpr (kRightTwo) {
      _tile_loadd(5, of_right + right_stride, kStride);
      _tile_dpbf16ps(1, 4, 5);
    }
    if constexpr (kLeftTwo) {
      _tile_loadd(4, of_left + left_stride, kStride);
      if constexpr (kRightTwo) {
        _tile_dpbf16ps(3, 4, 5);
        _tile_loadd(5, of_right, kStride);
      }
      _tile_dpbf16ps(2, 4, 5);
    }
    if constexpr (kTerm + 1 < std::size(kList)) {
      add<kTerm + 1>(left, left_stride, right, right_stride);
    }
  }
  static void run(const BrainOperand& left, size_t l, const BrainOperand& right, size_t r,
                  size_t blocks, bool fresh, View<float> c) {
    float* out = &c.at(l * kBrainRows, r * kBrainRows);
    const uint16_t* from_left = left.data + l * left.stride;
    const uint16_t* from_right = right.data + r * right.stride;
    if (fresh) {
      clear();
    } else {
      load(out, c.stride);
    }
    for (size_t b = 0; b < blocks; ++b) {
      add(from_left, left.stride, from_right, right.stride);
      from_left += left.parts * kBrainTile;
      from_right += right.parts * kBrainTile;
    }
    store(out, c.stride);
  }
};

template <BrainParts kParts>
void multiply(const BrainOperand& left, const BrainOperand& right, size_t blocks, bool fresh,
              View<float> c) {
  for (size_t r = 0; r < right.tiles; r += 2) {
    for (size_t l = 0; l < left.tiles; l += 2) {
      const bool left_two = l + 1 < left.tiles, right_two = r + 1 < right.tiles;
      const auto run =
          left_two
              ? (right_two ? Square<kParts, true, true>::run : Square<kParts, true, false>::run)
              : (right_two ? Square<kParts, false, true>::run : Square<kParts, false, false>::run);
      run(left, l, right, r, blocks, fresh, c);
    }
  }
}

// Rounded to the nearest bf16, as the upper half of a float; halves away from zero.
HWY_INLINE __m512i round_to_brain(__m512 x) {
  const __m512i bits = _mm512_add_epi32(_mm512_castps_si512(x), _mm512_set1_epi32(0x8000));
  return _mm512_and_si512(bits, _mm512_set1_epi32(static_cast<int>(0xffff0000)));
}
// The upper halves of two vectors beside each other, the first's in the lower half of a lane.
HWY_INLINE __m512i pairs_of(__m512i low, __m512i high) {
  return _mm512_or_si512(_mm512_srli_epi32(low, 16), high);
}
// x becomes what a part leaves of it; returns the part.
HWY_INLINE __m512i take_part(__m512& x) {
  const __m512i part = round_to_brain(x);
  x = _mm512_sub_ps(x, _mm512_castsi512_ps(part));
  return part;
}

}  // namespace

void multiply_brain(const BrainOperand& left, const BrainOperand& right, size_t blocks,
                    BrainParts parts, bool fresh, View<float> c) {
  MKV_CHECK(c.rows >= left.tiles * kBrainRows && c.cols >= right.tiles * kBrainRows);
  MKV_CHECK(left.parts >= left_parts(parts) && right.parts >= right_parts(parts));
  const TileScope scope(TileConfig::whole());
  switch (parts) {
    case BrainParts::two_two:
      return multiply<BrainParts::two_two>(left, right, blocks, fresh, c);
    case BrainParts::three_one:
      return multiply<BrainParts::three_one>(left, right, blocks, fresh, c);
    case BrainParts::three_two:
      return multiply<BrainParts::three_two>(left, right, blocks, fresh, c);
    case BrainParts::three_three:
      return multiply<BrainParts::three_three>(left, right, blocks, fresh, c);
  }
}

void split_left(View<const float> x, size_t first, size_t parts, uint16_t* to) {
  // Neighbouring lanes' upper halves together: of two registers one after the other.
  const size_t blocks = (x.cols + kBrainColumns - 1) / kBrainColumns;
  alignas(64) uint16_t upper[32];
  for (size_t i = 0; i < 32; ++i) upper[i] = static_cast<uint16_t>(2 * i + 1);
  const __m512i order = _mm512_load_si512(upper);
  const size_t rows = std::min(kBrainRows, x.rows - first);
  if (rows < kBrainRows) std::fill_n(to, blocks * parts * kBrainTile, uint16_t{0});
  for (size_t r = 0; r < rows; ++r) {
    const float* from = x.row(first + r).data();
    for (size_t b = 0; b < blocks; ++b) {
      const size_t left = std::min(kBrainColumns, x.cols - b * kBrainColumns);
      const auto kept = static_cast<__mmask32>((uint64_t{1} << left) - 1);
      const float* at = from + b * kBrainColumns;
      __m512 low = _mm512_maskz_loadu_ps(static_cast<__mmask16>(kept), at);
      __m512 high = _mm512_maskz_loadu_ps(static_cast<__mmask16>(kept >> 16), at + 16);
      uint16_t* out = to + b * parts * kBrainTile + r * kBrainColumns;
      for (size_t part = 0; part < parts; ++part, out += kBrainTile) {
        const __m512i first_half = take_part(low), second_half = take_part(high);
        _mm512_store_si512(out, _mm512_permutex2var_epi16(first_half, order, second_half));
      }
    }
  }
}

void split_right_rows(View<const float> x, size_t first, size_t parts, uint16_t* to) {
  split_left(x, first, parts, to);
  const __m512i rows =
      _mm512_set_epi32(240, 224, 208, 192, 176, 160, 144, 128, 112, 96, 80, 64, 48, 32, 16, 0);
  const size_t tiles = (x.cols + kBrainColumns - 1) / kBrainColumns * parts;
  for (size_t i = 0; i < tiles; ++i, to += kBrainTile) {
    __m512i pairs[kBrainRows];
    for (size_t p = 0; p < kBrainRows; ++p) {
      pairs[p] = _mm512_i32gather_epi32(rows, to + 2 * p, sizeof(int32_t));
    }
    for (size_t p = 0; p < kBrainRows; ++p) _mm512_store_si512(to + 2 * p * kBrainRows, pairs[p]);
  }
}

void split_right(View<const float> x, size_t first, size_t parts, uint16_t* to) {
  const size_t blocks = (x.rows + kBrainColumns - 1) / kBrainColumns;
  for (size_t c = 0; c < blocks * kBrainColumns; c += 2) {
    __m512 low = _mm512_setzero_ps(), high = low;
    if (c < x.rows) low = _mm512_loadu_ps(x.row(c).data() + first);
    if (c + 1 < x.rows) high = _mm512_loadu_ps(x.row(c + 1).data() + first);
    uint16_t* out =
        to + c / kBrainColumns * parts * kBrainTile + c % kBrainColumns / 2 * 2 * kBrainRows;
    for (size_t part = 0; part < parts; ++part, out += kBrainTile) {
      const __m512i first_half = take_part(low), second_half = take_part(high);
      _mm512_store_si512(out, pairs_of(first_half, second_half));
    }
  }
}

}  // namespace mkv
HWY_POP_ATTRIBUTES

#else

namespace mkv {
void multiply_brain(const BrainOperand&, const BrainOperand&, size_t, BrainParts, bool,
                    View<float>) {
  MKV_CHECK(false);
}
void split_left(View<const float>, size_t, size_t, uint16_t*) { MKV_CHECK(false); }
void split_right_rows(View<const float>, size_t, size_t, uint16_t*) { MKV_CHECK(false); }
void split_right(View<const float>, size_t, size_t, uint16_t*) { MKV_CHECK(false); }
}  // namespace mkv

#endif
