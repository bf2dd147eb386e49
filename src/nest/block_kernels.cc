#include "nest/block_kernels.h"

#include <hwy/cache_control.h>

#include <algorithm>
#include <cmath>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "nest/block_kernels.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.h.
#include "hwy/highway.h"
#include "ops/exp-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mkv {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr size_t kTokens = 64;
using F32 = hn::ScalableTag<float>;
using V = hn::Vec<F32>;

HWY_INLINE V load_f32(F32 d, const float* p) { return hn::LoadU(d, p); }
HWY_INLINE V load_f32(F32 d, const uint16_t* p) {
  const hn::Rebind<hwy::float16_t, F32> half;
  return hn::PromoteTo(d, hn::LoadU(half, reinterpret_cast<const hwy::float16_t*>(p)));
}

// Registers for sums: half of what the target has.
constexpr size_t kSums = HWY_TARGET == HWY_AVX3 ? 24 : 12;

// Asks the memory for a column of a block. Processors foresee a block's columns but not the next
// block (decision 0025).
template <class T>
HWY_INLINE void ask_for(const T* column) {
  constexpr size_t kLine = 64 / sizeof(T);
  for (size_t t = 0; t < kTokens; t += kLine) hwy::Prefetch(column + t);
}

// Four vectors of tokens times kQueries queries stay in registers over all columns; `next` is the
// block that follows.
template <size_t kQueries, class T>
HWY_INLINE void score_queries(const float* queries, size_t query_stride, size_t columns,
                              const T* block, const T* next, float* scores, size_t score_stride) {
  const F32 d;
  const size_t n = hn::Lanes(d);
  for (size_t t = 0; t < kTokens; t += 4 * n) {
    V sum[kQueries][4];
    for (size_t q = 0; q < kQueries; ++q) {
      for (size_t i = 0; i < 4; ++i) {
        sum[q][i] = hn::LoadU(d, scores + q * score_stride + t + i * n);
      }
    }
    for (size_t c = 0; c < columns; ++c) {
      const T* column = block + c * kTokens + t;
      if (t == 0) ask_for(next + c * kTokens);
      V factor[kQueries];
      for (size_t q = 0; q < kQueries; ++q) factor[q] = hn::Set(d, queries[q * query_stride + c]);
      for (size_t i = 0; i < 4; ++i) {  // one vector of tokens at a time beside the sums
        const V x = load_f32(d, column + i * n);
        for (size_t q = 0; q < kQueries; ++q) sum[q][i] = hn::MulAdd(factor[q], x, sum[q][i]);
      }
    }
    for (size_t q = 0; q < kQueries; ++q) {
      for (size_t i = 0; i < 4; ++i) {
        hn::StoreU(sum[q][i], d, scores + q * score_stride + t + i * n);
      }
    }
  }
}

template <class T>
HWY_INLINE const T* block_at(const ColumnBlocks& blocks, size_t index) {
  return reinterpret_cast<const T*>(blocks.data + index * blocks.stride);
}

// The one after it of `count`, or the last.
template <class T>
HWY_INLINE const T* block_after(const ColumnBlocks& blocks, size_t index, size_t count) {
  return block_at<T>(blocks, std::min(index + 1, count - 1));
}

// Queries from `first` on in tiles of kQueries; returns the first left over.
template <size_t kQueries, class T>
HWY_INLINE size_t score_tiles(View<const float> queries, const ColumnBlocks& blocks,
                              View<float> scores, size_t first) {
  size_t q = first;
  const size_t count = scores.cols / kTokens;
  for (; q + kQueries <= queries.rows; q += kQueries) {
    for (size_t b = 0; b < count; ++b) {
      score_queries<kQueries>(queries.row(q).data(), queries.stride, queries.cols,
                              block_at<T>(blocks, b), block_after<T>(blocks, b, count),
                              scores.row(q).data() + b * kTokens, scores.stride);
    }
  }
  return q;
}

template <class T>
HWY_INLINE void score_all(View<const float> queries, const ColumnBlocks& blocks,
                          View<float> scores) {
  size_t q = 0;
  if constexpr (kSums / 4 > 4) q = score_tiles<5, T>(queries, blocks, scores, q);
  if constexpr (kSums / 4 > 3) q = score_tiles<4, T>(queries, blocks, scores, q);
  q = score_tiles<3, T>(queries, blocks, scores, q);
  score_tiles<1, T>(queries, blocks, scores, q);
}

void ScoreColumns(View<const float> queries, const ColumnBlocks& blocks, View<float> scores) {
  if (blocks.type == DType::f32) return score_all<float>(queries, blocks, scores);
  score_all<uint16_t>(queries, blocks, scores);
}

// kColumns columns times kQueries sets of weights stay in registers over all blocks.
template <size_t kQueries, size_t kColumns, class T>
HWY_INLINE void weigh_tile(View<const float> weights, size_t query, const ColumnBlocks& blocks,
                           size_t column, View<float> sums) {
  const F32 d;
  const size_t n = hn::Lanes(d);
  V sum[kColumns][kQueries];
  for (auto& of_column : sum) {
    for (V& x : of_column) x = hn::Zero(d);
  }
  const size_t count = weights.cols / kTokens;
  for (size_t b = 0; b < count; ++b) {
    const T* block = block_at<T>(blocks, b) + column * kTokens;
    const T* next = block_after<T>(blocks, b, count) + column * kTokens;
    for (size_t c = 0; c < kColumns; ++c) ask_for(next + c * kTokens);
    for (size_t t = 0; t < kTokens; t += n) {
      V weight[kQueries];
      for (size_t q = 0; q < kQueries; ++q) {
        weight[q] = hn::LoadU(d, weights.row(query + q).data() + b * kTokens + t);
      }
      for (size_t c = 0; c < kColumns; ++c) {
        const V x = load_f32(d, block + c * kTokens + t);
        for (size_t q = 0; q < kQueries; ++q) sum[c][q] = hn::MulAdd(weight[q], x, sum[c][q]);
      }
    }
  }
  for (size_t c = 0; c < kColumns; ++c) {
    for (size_t q = 0; q < kQueries; ++q) {
      sums.at(query + q, column + c) += hn::GetLane(hn::SumOfLanes(d, sum[c][q]));
    }
  }
}

template <size_t kQueries, class T>
HWY_INLINE size_t weigh_tiles(View<const float> weights, const ColumnBlocks& blocks,
                              View<float> sums, size_t first) {
  constexpr size_t kColumns = kSums / kQueries < 8 ? kSums / kQueries : 8;
  size_t q = first;
  for (; q + kQueries <= weights.rows; q += kQueries) {
    size_t c = 0;
    for (; c + kColumns <= sums.cols; c += kColumns) {
      weigh_tile<kQueries, kColumns, T>(weights, q, blocks, c, sums);
    }
    for (; c < sums.cols; ++c) weigh_tile<kQueries, 1, T>(weights, q, blocks, c, sums);
  }
  return q;
}

template <class T>
HWY_INLINE void weigh_all(View<const float> weights, const ColumnBlocks& blocks, View<float> sums) {
  size_t q = 0;
  if constexpr (kSums > 12) q = weigh_tiles<4, T>(weights, blocks, sums, q);
  q = weigh_tiles<3, T>(weights, blocks, sums, q);
  weigh_tiles<1, T>(weights, blocks, sums, q);
}

void WeighColumns(View<const float> weights, const ColumnBlocks& blocks, View<float> sums) {
  if (blocks.type == DType::f32) return weigh_all<float>(weights, blocks, sums);
  weigh_all<uint16_t>(weights, blocks, sums);
}

float ExpAndSum(float* x, size_t size, float shift) {
  const F32 d;
  const size_t n = hn::Lanes(d);
  const auto step = [shift](auto tag, float* at) HWY_ATTR {
    const auto e = exp_of_negative(tag, hn::Sub(hn::LoadU(tag, at), hn::Set(tag, shift)));
    hn::StoreU(e, tag, at);
    return e;
  };
  V even = hn::Zero(d), odd = even;
  size_t i = 0;
  for (; i + 2 * n <= size; i += 2 * n) {
    even = hn::Add(even, step(d, x + i));
    odd = hn::Add(odd, step(d, x + i + n));
  }
  for (; i + n <= size; i += n) even = hn::Add(even, step(d, x + i));
  float total = hn::GetLane(hn::SumOfLanes(d, hn::Add(even, odd)));
  const hn::CappedTag<float, 1> one;
  for (; i < size; ++i) total += hn::GetLane(step(one, x + i));
  return total;
}

float MaxOf(const float* x, size_t size) {
  const F32 d;
  const size_t n = hn::Lanes(d);
  float best = -HUGE_VALF;
  size_t i = 0;
  if (size >= n) {
    V m = hn::LoadU(d, x);
    for (i = n; i + n <= size; i += n) m = hn::Max(m, hn::LoadU(d, x + i));
    best = hn::GetLane(hn::MaxOfLanes(d, m));
  }
  for (; i < size; ++i) best = HWY_MAX(best, x[i]);
  return best;
}

Peaks PeaksOf(const float* x, size_t size, float least) {
  const F32 d;
  const size_t n = hn::Lanes(d);
  HWY_ALIGN float most[kTokens];
  V top = hn::Set(d, -HUGE_VALF);
  for (size_t i = 0; i < kTokens; i += n) {
    V m = hn::LoadU(d, x + i);
    for (size_t t = i + kTokens; t < size; t += kTokens) m = hn::Max(m, hn::LoadU(d, x + t));
    hn::Store(m, d, most + i);
    top = hn::Max(top, m);
  }
  const float largest = hn::GetLane(hn::MaxOfLanes(d, top));
  if (largest >= least) return {largest, true};  // most cases need no exponentials
  constexpr float kLogOfTokens = 4.1589f;
  if (largest + kLogOfTokens < least) return {largest, false};
  return {largest, ExpAndSum(most, kTokens, largest) >= std::exp(least - largest)};
}

void ScaleBy(float* x, size_t size, float factor) {
  const F32 d;
  const size_t n = hn::Lanes(d);
  const V f = hn::Set(d, factor);
  size_t i = 0;
  for (; i + n <= size; i += n) hn::StoreU(hn::Mul(hn::LoadU(d, x + i), f), d, x + i);
  for (; i < size; ++i) x[i] *= factor;
}

template <class T>
HWY_INLINE void widen_all(const T* block, size_t columns, View<float> out, size_t first) {
  const F32 d;
  const size_t n = hn::Lanes(d);
  for (size_t c = 0; c < columns; ++c) {
    float* row = out.row(c).data() + first;
    for (size_t t = 0; t < kTokens; t += n) {
      hn::StoreU(load_f32(d, block + c * kTokens + t), d, row + t);
    }
  }
}

void WidenBlock(const ColumnBlocks& block, size_t columns, View<float> out, size_t first) {
  if (block.type == DType::f32) return widen_all(block_at<float>(block, 0), columns, out, first);
  widen_all(block_at<uint16_t>(block, 0), columns, out, first);
}

void StoreTokens(View<const uint16_t> rows, uint16_t* block) {
  size_t c = 0;
#if HWY_TARGET != HWY_SCALAR
  const hn::CappedTag<uint16_t, kStoredTokens> d;
  using Row = hn::Vec<decltype(d)>;
  for (; hn::Lanes(d) == kStoredTokens && c + kStoredTokens <= rows.cols; c += kStoredTokens) {
    Row x[kStoredTokens], y[kStoredTokens];
    for (size_t i = 0; i < kStoredTokens; ++i) x[i] = hn::LoadU(d, rows.row(i).data() + c);
    for (size_t round = 0; round < 3; ++round) {  // of log2(8): transposes
      for (size_t i = 0; i < kStoredTokens / 2; ++i) {
        y[2 * i] = hn::InterleaveLower(d, x[i], x[i + kStoredTokens / 2]);
        y[2 * i + 1] = hn::InterleaveUpper(d, x[i], x[i + kStoredTokens / 2]);
      }
      std::copy_n(y, kStoredTokens, x);
    }
    for (size_t i = 0; i < kStoredTokens; ++i) hn::StoreU(x[i], d, block + (c + i) * kTokens);
  }
#endif
  for (; c < rows.cols; ++c) {
    for (size_t t = 0; t < kStoredTokens; ++t) block[c * kTokens + t] = rows.at(t, c);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace mkv
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mkv {
namespace {
constexpr size_t kTokens = 64;
}  // namespace

HWY_EXPORT(ScoreColumns);
HWY_EXPORT(WeighColumns);
HWY_EXPORT(ExpAndSum);
HWY_EXPORT(MaxOf);
HWY_EXPORT(PeaksOf);
HWY_EXPORT(ScaleBy);
HWY_EXPORT(WidenBlock);
HWY_EXPORT(StoreTokens);

void score_columns(View<const float> queries, const ColumnBlocks& blocks, View<float> scores) {
  MKV_CHECK(scores.rows == queries.rows && scores.cols % kTokens == 0);
  HWY_DYNAMIC_DISPATCH(ScoreColumns)(queries, blocks, scores);
}
void weigh_columns(View<const float> weights, const ColumnBlocks& blocks, View<float> sums) {
  MKV_CHECK(sums.rows == weights.rows && weights.cols % kTokens == 0);
  HWY_DYNAMIC_DISPATCH(WeighColumns)(weights, blocks, sums);
}
float exp_and_sum(std::span<float> x, float shift) {
  return HWY_DYNAMIC_DISPATCH(ExpAndSum)(x.data(), x.size(), shift);
}
float max_of(std::span<const float> x) { return HWY_DYNAMIC_DISPATCH(MaxOf)(x.data(), x.size()); }
Peaks peaks_of(std::span<const float> x, float least) {
  MKV_CHECK(!x.empty() && x.size() % kTokens == 0);
  return HWY_DYNAMIC_DISPATCH(PeaksOf)(x.data(), x.size(), least);
}
void scale_by(std::span<float> x, float factor) {
  HWY_DYNAMIC_DISPATCH(ScaleBy)(x.data(), x.size(), factor);
}
void widen_block(const ColumnBlocks& block, size_t columns, View<float> out, size_t first) {
  HWY_DYNAMIC_DISPATCH(WidenBlock)(block, columns, out, first);
}
void store_tokens(View<const uint16_t> rows, uint16_t* block) {
  MKV_CHECK(rows.rows == kStoredTokens);
  HWY_DYNAMIC_DISPATCH(StoreTokens)(rows, block);
}
}  // namespace mkv
#endif  // HWY_ONCE
