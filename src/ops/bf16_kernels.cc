// The kernels of ops/bf16.h.
#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "ops/bf16.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/bf16_kernels.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.h.
#include "hwy/highway.h"
#include "ops/exp-inl.h"
#include "ops/half-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mkv {
namespace HWY_NAMESPACE {

using F32 = hn::ScalableTag<float>;
using One = hn::CappedTag<float, 1>;
using V = hn::Vec<F32>;

template <class D>
HWY_INLINE hn::Vec<D> load(D d, const uint16_t* p) {
  return load_bfloat(d, reinterpret_cast<const uint8_t*>(p));
}

// To nearest, ties to even. Not for NaN.
template <class D, class Vec>
HWY_INLINE void store(D /*d*/, Vec v, uint16_t* p) {
  const hn::Rebind<uint32_t, D> u32;
  const hn::Rebind<int32_t, D> i32;
  const hn::Rebind<uint16_t, D> u16;
  const auto bits = hn::BitCast(u32, v);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(u32, 1));
  const auto rounded = hn::Add(bits, hn::Add(odd, hn::Set(u32, 0x7fff)));
  hn::StoreU(hn::DemoteTo(u16, hn::BitCast(i32, hn::ShiftRight<16>(rounded))), u16, p);
}

// fn(tag, i, sum) for whole vectors, then for the elements left one by one; the sum of what fn
// returns.
template <class Fn>
HWY_INLINE float sum_over(size_t begin, size_t end, const Fn& fn) {
  const F32 d;
  const One one;
  const size_t n = hn::Lanes(d);
  V sum = hn::Zero(d);
  size_t i = begin;
  for (; i + n <= end; i += n) sum = hn::Add(sum, fn(d, i));
  float total = hn::GetLane(hn::SumOfLanes(d, sum));
  for (; i < end; ++i) total += hn::GetLane(fn(one, i));
  return total;
}

template <class Fn>
HWY_INLINE void for_all(size_t size, const Fn& fn) {
  const F32 d;
  const One one;
  const size_t n = hn::Lanes(d);
  size_t i = 0;
  for (; i + n <= size; i += n) fn(d, i);
  for (; i < size; ++i) fn(one, i);
}

template <class T>
HWY_INLINE float largest_of(const T* x, size_t size) {
  const F32 d;
  const size_t n = hn::Lanes(d);
  V most = hn::Set(d, -HUGE_VALF);
  size_t i = 0;
  const auto at = [x](auto tag, size_t j) HWY_ATTR {
    if constexpr (sizeof(T) == 2)
      return load(tag, x + j);
    else
      return hn::LoadU(tag, x + j);
  };
  for (; i + n <= size; i += n) most = hn::Max(most, at(d, i));
  float out = hn::GetLane(hn::MaxOfLanes(d, most));
  for (; i < size; ++i) out = HWY_MAX(out, hn::GetLane(at(One(), i)));
  return out;
}

void F32ToBf16(const float* in, uint16_t* out, size_t size) {
  for_all(size, [=](auto d, size_t i) HWY_ATTR { store(d, hn::LoadU(d, in + i), out + i); });
}

ExpRow ExpOfRow(const float* scores, size_t seen, uint16_t* p) {
  const float largest = largest_of(scores, seen);
  const float sum = sum_over(0, seen, [=](auto d, size_t i) HWY_ATTR {
    const auto e = exp_or_zero(d, hn::Sub(hn::LoadU(d, scores + i), hn::Set(d, largest)));
    store(d, e, p + i);
    return e;
  });
  return {largest, sum};
}

void ExpOfRowBackward(const ExpRowGradient& row, size_t seen, uint16_t* p, uint16_t* d_score) {
  const float *scores = row.scores.data(), *d_p = row.d_p.data();
  const float log_sum = row.log_sum, mean = row.mean;
  for_all(seen, [=](auto d, size_t i) HWY_ATTR {
    const auto e = exp_or_zero(d, hn::Sub(hn::LoadU(d, scores + i), hn::Set(d, log_sum)));
    store(d, e, p + i);
    store(d, hn::Mul(e, hn::Sub(hn::LoadU(d, d_p + i), hn::Set(d, mean))), d_score + i);
  });
}

void SwigluBf16(const uint16_t* gate, const uint16_t* up, uint16_t* out, size_t size) {
  for_all(size, [=](auto d, size_t i) HWY_ATTR {
    const auto g = load(d, gate + i);
    store(d, hn::Mul(gated(d, g, g), load(d, up + i)), out + i);
  });
}

// silu' = s (1 + g (1 - s)), s = 1 / (1 + exp(-g))
void SwigluBf16Backward(const SwigluGradient& in, uint16_t* d_gate, uint16_t* d_up) {
  const uint16_t *d_out = in.d.data(), *gate = in.gate.data(), *up = in.up.data();
  for_all(in.d.size(), [=](auto d, size_t i) HWY_ATTR {
    const auto one = hn::Set(d, 1.0f);
    const auto g = load(d, gate + i), dy = load(d, d_out + i);
    const auto e = exp_or_zero(d, hn::Neg(hn::Abs(g)));
    const auto s = hn::Div(hn::IfThenElse(hn::Lt(g, hn::Zero(d)), e, one), hn::Add(one, e));
    store(d, hn::Mul(dy, hn::Mul(g, s)), d_up + i);
    const auto slope = hn::Mul(s, hn::MulAdd(g, hn::Sub(one, s), one));
    store(d, hn::Mul(hn::Mul(dy, load(d, up + i)), slope), d_gate + i);
  });
}

// exp(x - largest) to out; the sum in double beyond chunks.
double ExpOf(const uint16_t* x, float largest, float* out, size_t size) {
  constexpr size_t kChunk = 1024;
  double total = 0;
  for (size_t begin = 0; begin < size; begin += kChunk) {
    total += sum_over(begin, HWY_MIN(size, begin + kChunk), [=](auto d, size_t i) HWY_ATTR {
      const auto e = exp_or_zero(d, hn::Sub(load(d, x + i), hn::Set(d, largest)));
      hn::StoreU(e, d, out + i);
      return e;
    });
  }
  return total;
}

double MeanDifference(const float* weights, const uint16_t* a, const uint16_t* b, size_t size) {
  constexpr size_t kChunk = 1024;
  double total = 0;
  for (size_t begin = 0; begin < size; begin += kChunk) {
    total += sum_over(begin, HWY_MIN(size, begin + kChunk), [=](auto d, size_t i) HWY_ATTR {
      return hn::Mul(hn::LoadU(d, weights + i), hn::Sub(load(d, a + i), load(d, b + i)));
    });
  }
  return total;
}

VocabularyLoss LossOfRow(const VocabularyRow& row, float* scratch, uint16_t* gradient) {
  const size_t size = row.student.size();
  const uint16_t *student = row.student.data(), *teacher = row.teacher.data();
  const float largest = largest_of(student, size);
  const double sum = ExpOf(student, largest, scratch, size);
  const double log_sum = static_cast<double>(largest) + std::log(sum);
  const auto logit = [](uint16_t x) { return static_cast<double>(hn::GetLane(load(One(), &x))); };
  VocabularyLoss loss;
  loss.cross_entropy = log_sum - logit(student[row.target]);
  const bool taught = !row.teacher.empty();
  const float kl_weight = taught ? row.kl_weight : 0.0f;
  const auto own = static_cast<float>((kl_weight + row.cross_entropy_weight) / sum);
  float others = 0;
  float* p = scratch + size;
  if (taught) {
    const float teacher_largest = largest_of(teacher, size);
    const double teacher_sum = ExpOf(teacher, teacher_largest, p, size);
    others = static_cast<float>(kl_weight / teacher_sum);
    loss.kl = MeanDifference(p, teacher, student, size) / teacher_sum + log_sum -
              (static_cast<double>(teacher_largest) + std::log(teacher_sum));
    for_all(size, [=](auto d, size_t i) HWY_ATTR {
      const auto q = hn::Mul(hn::LoadU(d, scratch + i), hn::Set(d, own));
      store(d, hn::NegMulAdd(hn::LoadU(d, p + i), hn::Set(d, others), q), gradient + i);
    });
  } else {
    for_all(size, [=](auto d, size_t i) HWY_ATTR {
      store(d, hn::Mul(hn::LoadU(d, scratch + i), hn::Set(d, own)), gradient + i);
    });
  }
  const float at_target = scratch[row.target] * own - (taught ? p[row.target] * others : 0.0f);
  store(One(), hn::Set(One(), at_target - row.cross_entropy_weight), gradient + row.target);
  return loss;
}

}  // namespace HWY_NAMESPACE
}  // namespace mkv
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mkv {
HWY_EXPORT(F32ToBf16);
HWY_EXPORT(ExpOfRow);
HWY_EXPORT(ExpOfRowBackward);
HWY_EXPORT(SwigluBf16);
HWY_EXPORT(SwigluBf16Backward);
HWY_EXPORT(LossOfRow);

void f32_to_bf16(std::span<const float> in, std::span<uint16_t> out) {
  MKV_CHECK(in.size() == out.size());
  HWY_DYNAMIC_DISPATCH(F32ToBf16)(in.data(), out.data(), in.size());
}

ExpRow exp_row(std::span<const float> scores, size_t seen, std::span<uint16_t> p) {
  MKV_CHECK(seen >= 1 && seen <= scores.size() && p.size() == scores.size());
  const ExpRow row = HWY_DYNAMIC_DISPATCH(ExpOfRow)(scores.data(), seen, p.data());
  std::ranges::fill(p.subspan(seen), uint16_t{0});
  return row;
}

void exp_row_backward(const ExpRowGradient& row, size_t seen, std::span<uint16_t> p,
                      std::span<uint16_t> d_score) {
  MKV_CHECK(seen <= row.scores.size() && row.d_p.size() == row.scores.size());
  MKV_CHECK(p.size() == row.scores.size() && d_score.size() == p.size());
  HWY_DYNAMIC_DISPATCH(ExpOfRowBackward)(row, seen, p.data(), d_score.data());
  std::ranges::fill(p.subspan(seen), uint16_t{0});
  std::ranges::fill(d_score.subspan(seen), uint16_t{0});
}

void swiglu_bf16(std::span<const uint16_t> gate, std::span<const uint16_t> up,
                 std::span<uint16_t> out) {
  MKV_CHECK(gate.size() == up.size() && out.size() == up.size());
  HWY_DYNAMIC_DISPATCH(SwigluBf16)(gate.data(), up.data(), out.data(), out.size());
}

void swiglu_bf16_backward(const SwigluGradient& in, std::span<uint16_t> d_gate,
                          std::span<uint16_t> d_up) {
  MKV_CHECK(in.gate.size() == in.d.size() && in.up.size() == in.d.size());
  MKV_CHECK(d_gate.size() == in.d.size() && d_up.size() == in.d.size());
  HWY_DYNAMIC_DISPATCH(SwigluBf16Backward)(in, d_gate.data(), d_up.data());
}

VocabularyLoss vocabulary_loss(const VocabularyRow& row, std::span<float> scratch,
                               std::span<uint16_t> gradient) {
  const size_t size = row.student.size();
  MKV_CHECK(row.target < size && (row.teacher.empty() || row.teacher.size() == size));
  MKV_CHECK(scratch.size() >= 2 * size && gradient.size() == size);
  return HWY_DYNAMIC_DISPATCH(LossOfRow)(row, scratch.data(), gradient.data());
}

}  // namespace mkv
#endif  // HWY_ONCE
