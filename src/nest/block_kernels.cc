#include "nest/block_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "nest/block_kernels.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.h.
#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"

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

// Four vectors of tokens times kQueries queries stay in registers over all columns.
template <size_t kQueries, class T>
HWY_INLINE void score_queries(const float* queries, size_t query_stride, size_t columns,
                              const T* block, float* scores, size_t score_stride) {
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
      const V x0 = load_f32(d, column), x1 = load_f32(d, column + n);
      const V x2 = load_f32(d, column + 2 * n), x3 = load_f32(d, column + 3 * n);
      for (size_t q = 0; q < kQueries; ++q) {
        const V factor = hn::Set(d, queries[q * query_stride + c]);
        sum[q][0] = hn::MulAdd(factor, x0, sum[q][0]);
        sum[q][1] = hn::MulAdd(factor, x1, sum[q][1]);
        sum[q][2] = hn::MulAdd(factor, x2, sum[q][2]);
        sum[q][3] = hn::MulAdd(factor, x3, sum[q][3]);
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
HWY_INLINE void score_all(View<const float> queries, const T* block, View<float> scores) {
  size_t q = 0;
  for (; q + 3 <= queries.rows; q += 3) {
    score_queries<3>(queries.row(q).data(), queries.stride, queries.cols, block,
                     scores.row(q).data(), scores.stride);
  }
  for (; q < queries.rows; ++q) {
    score_queries<1>(queries.row(q).data(), queries.stride, queries.cols, block,
                     scores.row(q).data(), scores.stride);
  }
}

void ScoreF16(View<const float> queries, const uint16_t* block, View<float> scores) {
  score_all(queries, block, scores);
}
void ScoreF32(View<const float> queries, const float* block, View<float> scores) {
  score_all(queries, block, scores);
}

template <size_t kQueries, class T>
HWY_INLINE void weigh_queries(const float* weights, size_t weight_stride, const T* block,
                              size_t columns, float* sums, size_t sum_stride) {
  const F32 d;
  const size_t n = hn::Lanes(d);
  for (size_t c = 0; c < columns; ++c) {
    V sum[kQueries];
    for (size_t q = 0; q < kQueries; ++q) sum[q] = hn::Zero(d);
    for (size_t t = 0; t < kTokens; t += n) {
      const V x = load_f32(d, block + c * kTokens + t);
      for (size_t q = 0; q < kQueries; ++q) {
        sum[q] = hn::MulAdd(hn::LoadU(d, weights + q * weight_stride + t), x, sum[q]);
      }
    }
    for (size_t q = 0; q < kQueries; ++q) {
      sums[q * sum_stride + c] += hn::GetLane(hn::SumOfLanes(d, sum[q]));
    }
  }
}

template <class T>
HWY_INLINE void weigh_all(View<const float> weights, const T* block, View<float> sums) {
  size_t q = 0;
  for (; q + 3 <= weights.rows; q += 3) {
    weigh_queries<3>(weights.row(q).data(), weights.stride, block, sums.cols, sums.row(q).data(),
                     sums.stride);
  }
  for (; q < weights.rows; ++q) {
    weigh_queries<1>(weights.row(q).data(), weights.stride, block, sums.cols, sums.row(q).data(),
                     sums.stride);
  }
}

void WeighF16(View<const float> weights, const uint16_t* block, View<float> sums) {
  weigh_all(weights, block, sums);
}
void WeighF32(View<const float> weights, const float* block, View<float> sums) {
  weigh_all(weights, block, sums);
}

float ExpAndSum(float* x, size_t size, float shift) {
  const F32 d;
  const size_t n = hn::Lanes(d);
  const V minus = hn::Set(d, shift);
  // exp() of less than this is a subnormal; the vector exp wants a finite argument.
  const V floor = hn::Set(d, -87.0f);
  V sum = hn::Zero(d);
  size_t i = 0;
  for (; i + n <= size; i += n) {
    const V y = hn::Sub(hn::LoadU(d, x + i), minus);
    const V e = hn::IfThenElseZero(hn::Gt(y, floor), hn::Exp(d, hn::Max(y, floor)));
    sum = hn::Add(sum, e);
    hn::StoreU(e, d, x + i);
  }
  float total = hn::GetLane(hn::SumOfLanes(d, sum));
  const hn::CappedTag<float, 1> one;
  for (; i < size; ++i) {
    const float y = x[i] - shift;
    x[i] = y > -87.0f ? hn::GetLane(hn::Exp(one, hn::Set(one, y))) : 0.0f;
    total += x[i];
  }
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

void ScaleBy(float* x, size_t size, float factor) {
  const F32 d;
  const size_t n = hn::Lanes(d);
  const V f = hn::Set(d, factor);
  size_t i = 0;
  for (; i + n <= size; i += n) hn::StoreU(hn::Mul(hn::LoadU(d, x + i), f), d, x + i);
  for (; i < size; ++i) x[i] *= factor;
}

void WidenBlock(const uint16_t* block, size_t columns, View<float> out, size_t first) {
  const F32 d;
  const size_t n = hn::Lanes(d);
  for (size_t c = 0; c < columns; ++c) {
    float* row = out.row(c).data() + first;
    for (size_t t = 0; t < kTokens; t += n) {
      hn::StoreU(load_f32(d, block + c * kTokens + t), d, row + t);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace mkv
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mkv {
HWY_EXPORT(ScoreF16);
HWY_EXPORT(ScoreF32);
HWY_EXPORT(WeighF16);
HWY_EXPORT(WeighF32);
HWY_EXPORT(ExpAndSum);
HWY_EXPORT(MaxOf);
HWY_EXPORT(ScaleBy);
HWY_EXPORT(WidenBlock);

void score_columns_f16(View<const float> queries, const uint16_t* block, View<float> scores) {
  HWY_DYNAMIC_DISPATCH(ScoreF16)(queries, block, scores);
}
void score_columns_f32(View<const float> queries, const float* block, View<float> scores) {
  HWY_DYNAMIC_DISPATCH(ScoreF32)(queries, block, scores);
}
void weigh_columns_f16(View<const float> weights, const uint16_t* block, View<float> sums) {
  HWY_DYNAMIC_DISPATCH(WeighF16)(weights, block, sums);
}
void weigh_columns_f32(View<const float> weights, const float* block, View<float> sums) {
  HWY_DYNAMIC_DISPATCH(WeighF32)(weights, block, sums);
}
float exp_and_sum(std::span<float> x, float shift) {
  return HWY_DYNAMIC_DISPATCH(ExpAndSum)(x.data(), x.size(), shift);
}
float max_of(std::span<const float> x) { return HWY_DYNAMIC_DISPATCH(MaxOf)(x.data(), x.size()); }
void scale_by(std::span<float> x, float factor) {
  HWY_DYNAMIC_DISPATCH(ScaleBy)(x.data(), x.size(), factor);
}
void widen_block(const uint16_t* block, size_t columns, View<float> out, size_t first) {
  HWY_DYNAMIC_DISPATCH(WidenBlock)(block, columns, out, first);
}
}  // namespace mkv
#endif  // HWY_ONCE
