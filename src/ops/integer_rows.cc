// The rounding of activations to integers.
#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "base/prefetch.h"
#include "ops/integer_products.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/integer_rows.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.h.
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace mkv {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

#if HWY_TARGET == HWY_SCALAR

bool HasIntegerProducts() { return false; }
void ToIntegerRows(View<const float>, size_t, size_t, IntegerRows&) { MKV_CHECK(false); }
void ToWordRows(View<const float>, size_t, size_t, WordRows&) { MKV_CHECK(false); }

#else

bool HasIntegerProducts() { return true; }

// Below it a group is taken for zeros: 1 / scale would not be finite.
constexpr float kSmallest = 0x1p-100f;
constexpr size_t kHalf = kIntegerGroup / 2;
constexpr float kMostOfWord = 32767;

// x * factor + kOfInteger has the nearest integer in its low bits, for less than NearestInt takes,
// which looks after overflow.
constexpr float kOfInteger = 0x1.8p23f;
template <class D, class Vec>
HWY_INLINE auto integers_of(D d, Vec x) {
  const hn::Rebind<int32_t, D> d32;
  return hn::Sub(hn::BitCast(d32, x), hn::BitCast(d32, hn::Set(d, kOfInteger)));
}

// The bytes of a group's words: high ones in order, then low ones.
HWY_INLINE void split_words(const int16_t* words, int8_t* bytes) {
  const hn::CappedTag<int16_t, kHalf> d;
  const hn::Repartition<int8_t, decltype(d)> d8;
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

// One group: 32 elements of x to 32 words, its scale and the sums of the words of its halves.
HWY_INLINE void to_integers(const float* x, int16_t* words, float& scale, int32_t* sums) {
  const hn::CappedTag<float, kHalf / 2> d;  // times 2 as even and odd ones: at most half a group
  const hn::Rebind<int32_t, decltype(d)> d32;
  const hn::Rebind<int16_t, decltype(d)> d16;
  constexpr size_t kStep = hn::MaxLanes(d), kCount = kHalf / kStep;
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
  const auto factor = hn::Set(d, inverse), of_integer = hn::Set(d, kOfInteger);
  for (size_t half = 0; half < 2; ++half) {
    auto total = hn::Zero(d32);
    for (size_t i = half * kCount / 2; i < (half + 1) * kCount / 2; ++i) {
      const auto a = integers_of(d, hn::Add(hn::Mul(even[i], factor), of_integer));
      const auto b = integers_of(d, hn::Add(hn::Mul(odd[i], factor), of_integer));
      total = hn::Add(total, hn::Add(a, b));
      hn::StoreU(hn::DemoteTo(d16, a), d16, words + i * kStep);
      hn::StoreU(hn::DemoteTo(d16, b), d16, words + kHalf + i * kStep);
    }
    sums[half] = hn::GetLane(hn::SumOfLanes(d32, total));
  }
  scale = finite ? top * (1.0f / kLargestWord) : std::numeric_limits<float>::quiet_NaN();
}

void ToIntegerRows(View<const float> x, size_t first, size_t last, IntegerRows& out) {
  for (size_t t = first; t < last; ++t) {
    const float* from = x.row(t).data();
    for (size_t i = t * out.groups; i < (t + 1) * out.groups; ++i, from += kIntegerGroup) {
      int16_t* words = out.values.data() + i * kIntegerGroup;
      int32_t* sums = out.integer_sums.data() + i * 2;
      to_integers(from, words, out.scales[i], sums);
      out.sums[i] = out.scales[i] * static_cast<float>(sums[0] + sums[1]);
      if (out.split) split_words(words, out.bytes.data() + i * 2 * kIntegerGroup);
    }
  }
}

// A run: `size` elements of x to words, and their scale.
HWY_INLINE void to_words(const float* x, size_t size, int16_t* words, float& scale) {
  const hn::CappedTag<float, kHalf / 2> d;
  const hn::Rebind<int32_t, decltype(d)> d32;
  const hn::Rebind<int16_t, decltype(d)> d16;
  constexpr size_t kStep = hn::MaxLanes(d);
  auto largest = hn::Zero(d32);  // of the bits without sign: a NaN is above all numbers
  hn::Vec<decltype(d)> sums[kIntegerGroup / kStep];  // chains hide the latency of the FMA
  for (auto& sum : sums) sum = hn::Zero(d);
  const auto part = hn::Set(d, 1.0f / kLargestWordSum);  // taken first, so that no sum is infinite
  for (size_t g = 0; g < size; g += kIntegerGroup) {
    for (size_t i = 0; i < kIntegerGroup / kStep; ++i) {
      const auto magnitude = hn::Abs(hn::LoadU(d, x + g + i * kStep));
      largest = hn::Max(largest, hn::BitCast(d32, magnitude));
      sums[i] = hn::MulAdd(magnitude, part, sums[i]);
    }
  }
  auto sum = sums[0];
  for (size_t i = 1; i < kIntegerGroup / kStep; ++i) sum = hn::Add(sum, sums[i]);
  const float top = std::bit_cast<float>(hn::GetLane(hn::MaxOfLanes(d32, largest)));
  const bool finite = top <= std::numeric_limits<float>::max();
  const float step = std::max(top * (1.0f / kMostOfWord), hn::GetLane(hn::SumOfLanes(d, sum)));
  const auto factor = hn::Set(d, finite && step > kSmallest ? 1.0f / step : 0.0f);
  const auto of_integer = hn::Set(d, kOfInteger);
  for (size_t g = 0; g < size; g += kIntegerGroup) {
    for (size_t i = 0; i < kHalf; i += kStep) {
      hn::Vec<decltype(d)> even, odd;
      hn::LoadInterleaved2(d, x + g + i * 2, even, odd);
      const auto a = integers_of(d, hn::MulAdd(even, factor, of_integer));
      const auto b = integers_of(d, hn::MulAdd(odd, factor, of_integer));
      hn::StoreU(hn::DemoteTo(d16, a), d16, words + g + i);
      hn::StoreU(hn::DemoteTo(d16, b), d16, words + g + kHalf + i);
    }
  }
  scale = finite ? step : std::numeric_limits<float>::quiet_NaN();
}

void ToWordRows(View<const float> x, size_t first, size_t last, WordRows& out) {
  const size_t size = out.together * kIntegerGroup, runs = out.groups / out.together;
  for (size_t t = first; t < last; ++t) {
    const float* from = x.row(t).data();
    for (size_t i = t * runs; i < (t + 1) * runs; ++i, from += size) {
      to_words(from, size, out.values.data() + i * size, out.scales[i]);
    }
  }
}

#endif  // HWY_TARGET == HWY_SCALAR

}  // namespace HWY_NAMESPACE
}  // namespace mkv
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mkv {
HWY_EXPORT(HasIntegerProducts);
HWY_EXPORT(ToIntegerRows);
HWY_EXPORT(ToWordRows);

namespace {
template <class T>
void grow(Buffer<T>& buffer, size_t size) {
  buffer.resize(std::max(buffer.size(), size));
}
}  // namespace

void IntegerRows::reshape(size_t token_count, size_t cols, Split wanted) {
  MKV_CHECK(cols % kIntegerGroup == 0);
  tokens = token_count;
  groups = cols / kIntegerGroup;
  split = wanted == Split::yes;
  grow(values, tokens * cols);
  grow(scales, tokens * groups);
  grow(sums, tokens * groups);
  grow(integer_sums, tokens * groups * 2);
  if (split) grow(bytes, tokens * cols * 2);
}

void IntegerRows::prefetch_row_to_write(size_t t) const {
  const size_t cols = groups * kIntegerGroup;
  prefetch_to_write(row(t), cols * sizeof(int16_t));
  if (split) prefetch_to_write(row_bytes(t), cols * 2);
  prefetch_to_write(row_scales(t), groups * sizeof(float));
  prefetch_to_write(row_sums(t), groups * sizeof(float));
  prefetch_to_write(row_integer_sums(t), groups * 2 * sizeof(int32_t));
}

void IntegerRows::prefetch_row(size_t t, bool as_bytes) const {
  const size_t size = groups * kIntegerGroup * sizeof(int16_t);  // either way
  prefetch(as_bytes ? static_cast<const void*>(row_bytes(t)) : row(t), size);
  prefetch(row_scales(t), groups * sizeof(float));
  prefetch(row_sums(t), groups * sizeof(float));
  prefetch(row_integer_sums(t), groups * 2 * sizeof(int32_t));
}

void WordRows::prefetch_row_to_write(size_t t) const {
  const WordsView rows = words();
  prefetch_to_write(rows.row(t), groups * kIntegerGroup * sizeof(int16_t));
  prefetch_to_write(rows.row_scales(t), rows.runs() * sizeof(float));
}

void WordRows::reshape(size_t token_count, size_t cols) {
  MKV_CHECK(cols % kIntegerGroup == 0);
  tokens = token_count;
  groups = cols / kIntegerGroup;
  together = kMostTogether;
  while (groups % together != 0) --together;
  grow(values, tokens * cols);
  grow(scales, tokens * groups / together);
}

bool has_integer_products() { return HWY_DYNAMIC_DISPATCH(HasIntegerProducts)(); }

void to_integer_rows(View<const float> x, size_t first, size_t last, IntegerRows& out) {
  MKV_CHECK(out.tokens == x.rows && out.groups * kIntegerGroup == x.cols && last <= x.rows);
  HWY_DYNAMIC_DISPATCH(ToIntegerRows)(x, first, last, out);
}

void to_word_rows(View<const float> x, size_t first, size_t last, WordRows& out) {
  MKV_CHECK(out.tokens == x.rows && out.groups * kIntegerGroup == x.cols && last <= x.rows);
  HWY_DYNAMIC_DISPATCH(ToWordRows)(x, first, last, out);
}

}  // namespace mkv
#endif  // HWY_ONCE
