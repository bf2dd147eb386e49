#include "nest/row_kernels.h"

#include <algorithm>
#include <cstdint>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "nest/row_kernels.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.h.
#include "base/check.h"
#include "hwy/highway.h"
#include "ops/half-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mkv {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using F32 = hn::ScalableTag<float>;
using One = hn::CappedTag<float, 1>;
template <class D>
using V = hn::Vec<D>;

template <class D>
HWY_INLINE V<D> load_row(D d, const float* p) {
  return hn::LoadU(d, p);
}
template <class D>
HWY_INLINE V<D> load_row(D d, const uint16_t* p) {
  return load_half(d, reinterpret_cast<const uint8_t*>(p));
}
template <class T>
HWY_INLINE const T* row_at(const Rows& rows, size_t index) {
  return reinterpret_cast<const T*>(rows.at[index]);
}

// kRows rows times kQueries queries: sums of whole vectors, then of the columns left.
template <size_t kRows, size_t kQueries, class T>
HWY_INLINE void score_tile(View<const float> queries, size_t query, const Rows& rows, size_t row,
                           View<float> scores) {
  const F32 d;
  const size_t n = hn::Lanes(d);
  V<F32> sum[kRows][kQueries];
  for (auto& of_row : sum) {
    for (V<F32>& x : of_row) x = hn::Zero(d);
  }
  const T* from[kRows];
  for (size_t r = 0; r < kRows; ++r) from[r] = row_at<T>(rows, row + r);
  size_t c = 0;
  for (; c + n <= queries.cols; c += n) {
    V<F32> factor[kQueries];
    for (size_t q = 0; q < kQueries; ++q) {
      factor[q] = hn::LoadU(d, queries.row(query + q).data() + c);
    }
    for (size_t r = 0; r < kRows; ++r) {
      const V<F32> x = load_row(d, from[r] + c);
      for (size_t q = 0; q < kQueries; ++q) sum[r][q] = hn::MulAdd(factor[q], x, sum[r][q]);
    }
  }
  for (size_t r = 0; r < kRows; ++r) {
    for (size_t q = 0; q < kQueries; ++q) {
      V<One> rest = hn::Zero(One());
      for (size_t i = c; i < queries.cols; ++i) {
        const V<One> factor = hn::Set(One(), queries.at(query + q, i));
        rest = hn::MulAdd(factor, load_row(One(), from[r] + i), rest);
      }
      scores.at(query + q, row + r) = hn::GetLane(hn::SumOfLanes(d, sum[r][q])) + hn::GetLane(rest);
    }
  }
}

// Queries from `first` on in tiles of kQueries; returns the first left over.
template <size_t kQueries, class T>
HWY_INLINE size_t score_queries(View<const float> queries, const Rows& rows, View<float> scores,
                                size_t first) {
  size_t q = first;
  for (; q + kQueries <= queries.rows; q += kQueries) {
    size_t r = 0;
    for (; r + 4 <= rows.at.size(); r += 4) score_tile<4, kQueries, T>(queries, q, rows, r, scores);
    for (; r < rows.at.size(); ++r) score_tile<1, kQueries, T>(queries, q, rows, r, scores);
  }
  return q;
}

template <class T>
HWY_INLINE void score_all(View<const float> queries, const Rows& rows, View<float> scores) {
  const size_t left = score_queries<3, T>(queries, rows, scores, 0);
  score_queries<1, T>(queries, rows, scores, left);
}

void ScoreRows(View<const float> queries, const Rows& rows, View<float> scores) {
  if (rows.type == DType::f32) return score_all<float>(queries, rows, scores);
  score_all<uint16_t>(queries, rows, scores);
}

// kVectors vectors of columns times kQueries sets of weights stay in registers over all rows.
template <size_t kQueries, size_t kVectors, class T, class D>
HWY_INLINE void weigh_tile(D d, View<const float> weights, size_t query, const Rows& rows,
                           size_t column, View<float> sums) {
  const size_t n = hn::Lanes(d);
  V<D> sum[kQueries][kVectors];
  for (size_t q = 0; q < kQueries; ++q) {
    for (size_t i = 0; i < kVectors; ++i) {
      sum[q][i] = hn::LoadU(d, sums.row(query + q).data() + column + i * n);
    }
  }
  for (size_t r = 0; r < rows.at.size(); ++r) {
    const T* from = row_at<T>(rows, r) + column;
    V<D> x[kVectors];
    for (size_t i = 0; i < kVectors; ++i) x[i] = load_row(d, from + i * n);
    for (size_t q = 0; q < kQueries; ++q) {
      const V<D> weight = hn::Set(d, weights.at(query + q, r));
      for (size_t i = 0; i < kVectors; ++i) sum[q][i] = hn::MulAdd(weight, x[i], sum[q][i]);
    }
  }
  for (size_t q = 0; q < kQueries; ++q) {
    for (size_t i = 0; i < kVectors; ++i) {
      hn::StoreU(sum[q][i], d, sums.row(query + q).data() + column + i * n);
    }
  }
}

template <size_t kQueries, class T>
HWY_INLINE size_t weigh_queries(View<const float> weights, const Rows& rows, View<float> sums,
                                size_t first) {
  const F32 d;
  const One one;
  constexpr size_t kVectors = HWY_TARGET == HWY_AVX3 ? 4 : 2;  // beside three queries
  size_t q = first;
  for (; q + kQueries <= sums.rows; q += kQueries) {
    size_t c = 0;
    for (; c + kVectors * hn::Lanes(d) <= sums.cols; c += kVectors * hn::Lanes(d)) {
      weigh_tile<kQueries, kVectors, T>(d, weights, q, rows, c, sums);
    }
    for (; c + hn::Lanes(d) <= sums.cols; c += hn::Lanes(d)) {
      weigh_tile<kQueries, 1, T>(d, weights, q, rows, c, sums);
    }
    for (; c < sums.cols; ++c) weigh_tile<kQueries, 1, T>(one, weights, q, rows, c, sums);
  }
  return q;
}

template <class T>
HWY_INLINE void weigh_all(View<const float> weights, const Rows& rows, View<float> sums) {
  const size_t left = weigh_queries<3, T>(weights, rows, sums, 0);
  weigh_queries<1, T>(weights, rows, sums, left);
}

void WeighRows(View<const float> weights, const Rows& rows, View<float> sums) {
  if (rows.type == DType::f32) return weigh_all<float>(weights, rows, sums);
  weigh_all<uint16_t>(weights, rows, sums);
}

}  // namespace HWY_NAMESPACE
}  // namespace mkv
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mkv {

HWY_EXPORT(ScoreRows);
HWY_EXPORT(WeighRows);

void score_rows(View<const float> queries, const Rows& rows, View<float> scores) {
  MKV_CHECK(scores.rows == queries.rows && scores.cols == rows.at.size());
  HWY_DYNAMIC_DISPATCH(ScoreRows)(queries, rows, scores);
}
void weigh_rows(View<const float> weights, const Rows& rows, View<float> sums) {
  MKV_CHECK(sums.rows == weights.rows && weights.cols == rows.at.size());
  HWY_DYNAMIC_DISPATCH(WeighRows)(weights, rows, sums);
}

}  // namespace mkv
#endif  // HWY_ONCE
