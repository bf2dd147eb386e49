// The kernels over plain float32 vectors of ops/ops.h.
#include <cmath>

#include "base/half.h"
#include "ops/ops.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/vector_kernels.cc"
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

// fn(tag, i) for whole vectors, then for the elements left one by one: every pass over memory
// below is this loop, and never touches a byte outside the span.
template <class Fn>
HWY_INLINE void for_vectors(size_t size, const Fn& fn) {
  const F32 d;
  const One one;
  const size_t n = hn::Lanes(d);
  size_t i = 0;
  for (; i + n <= size; i += n) fn(d, i);
  for (; i < size; ++i) fn(one, i);
}

HWY_INLINE float sum_of(V v) { return hn::GetLane(hn::SumOfLanes(F32(), v)); }

float Dot(const float* a, const float* b, size_t size) {
  const F32 d;
  const size_t n = hn::Lanes(d);
  V s0 = hn::Zero(d), s1 = s0, s2 = s0, s3 = s0;  // four chains hide the latency of the FMA
  size_t i = 0;
  for (; i + 4 * n <= size; i += 4 * n) {
    s0 = hn::MulAdd(hn::LoadU(d, a + i), hn::LoadU(d, b + i), s0);
    s1 = hn::MulAdd(hn::LoadU(d, a + i + n), hn::LoadU(d, b + i + n), s1);
    s2 = hn::MulAdd(hn::LoadU(d, a + i + 2 * n), hn::LoadU(d, b + i + 2 * n), s2);
    s3 = hn::MulAdd(hn::LoadU(d, a + i + 3 * n), hn::LoadU(d, b + i + 3 * n), s3);
  }
  for (; i + n <= size; i += n) s0 = hn::MulAdd(hn::LoadU(d, a + i), hn::LoadU(d, b + i), s0);
  float sum = sum_of(hn::Add(hn::Add(s0, s1), hn::Add(s2, s3)));
  const hn::CappedTag<float, 4> four;
  auto rest = hn::Zero(four);
  for (; i + hn::Lanes(four) <= size; i += hn::Lanes(four)) {
    rest = hn::MulAdd(hn::LoadU(four, a + i), hn::LoadU(four, b + i), rest);
  }
  sum += hn::GetLane(hn::SumOfLanes(four, rest));
  for (; i < size; ++i) sum += a[i] * b[i];
  return sum;
}

void Axpy(float scale, const float* x, float* y, size_t size) {
  for_vectors(size, [=](auto d, size_t i) HWY_ATTR {
    hn::StoreU(hn::MulAdd(hn::Set(d, scale), hn::LoadU(d, x + i), hn::LoadU(d, y + i)), d, y + i);
  });
}

void RmsNorm(const float* x, const float* weight, float epsilon, float* out, size_t size) {
  const float mean = Dot(x, x, size) / static_cast<float>(size);
  const float factor = 1.0f / std::sqrt(mean + epsilon);
  for_vectors(size, [=](auto d, size_t i) HWY_ATTR {
    const auto scaled = hn::Mul(hn::LoadU(d, x + i), hn::Set(d, factor));
    hn::StoreU(hn::Mul(scaled, hn::LoadU(d, weight + i)), d, out + i);
  });
}

void Swiglu(float* gate, const float* up, size_t size) {
  for_vectors(size, [=](auto d, size_t i) HWY_ATTR {
    const auto g = hn::LoadU(d, gate + i);
    hn::StoreU(hn::Mul(gated(d, g, g), hn::LoadU(d, up + i)), d, gate + i);
  });
}

void Geglu(float* gate, const float* up, size_t size) {
  constexpr float kSlope = 1.5957691216f;  // 2 sqrt(2 / pi)
  for_vectors(size, [=](auto d, size_t i) HWY_ATTR {
    const auto g = hn::LoadU(d, gate + i);
    // (1 + tanh u) / 2 = 1 / (1 + exp(-2u))
    const auto cubic =
        hn::MulAdd(hn::Mul(g, g), hn::Set(d, 0.044715f * kSlope), hn::Set(d, kSlope));
    const auto gelu = gated(d, g, hn::Mul(g, cubic));
    hn::StoreU(hn::Mul(gelu, hn::LoadU(d, up + i)), d, gate + i);
  });
}

// The largest element of x * scale, which is stored back if `store`. -inf if there is none.
float MaxOfScaled(float* out, const float* x, float scale, size_t size) {
  const F32 d;
  const float lowest = -HUGE_VALF;
  V largest = hn::Set(d, lowest);
  float rest = lowest;
  const size_t n = hn::Lanes(d);
  size_t i = 0;
  for (; i + n <= size; i += n) {
    const V v = hn::Mul(hn::LoadU(d, x + i), hn::Set(d, scale));
    if (out != nullptr) hn::StoreU(v, d, out + i);
    largest = hn::Max(largest, v);
  }
  for (; i < size; ++i) {
    const float v = x[i] * scale;
    if (out != nullptr) out[i] = v;
    rest = v > rest ? v : rest;
  }
  const float in_vectors = hn::GetLane(hn::MaxOfLanes(d, largest));
  return rest > in_vectors ? rest : in_vectors;
}

// sum exp(x - shift), in double beyond chunks of a thousand or so: 10^5 logits are summed to a
// relative error of some 1e-6. exp() is stored to out unless that is null.
double SumExp(float* out, const float* x, float shift, size_t size) {
  constexpr size_t kChunk = 1024;
  const F32 d;
  const size_t n = hn::Lanes(d);
  double total = 0;
  for (size_t begin = 0; begin < size; begin += kChunk) {
    const size_t end = HWY_MIN(size, begin + kChunk);
    V sum = hn::Zero(d);
    size_t i = begin;
    for (; i + n <= end; i += n) {
      const V e = exp_or_zero(d, hn::Sub(hn::LoadU(d, x + i), hn::Set(d, shift)));
      if (out != nullptr) hn::StoreU(e, d, out + i);
      sum = hn::Add(sum, e);
    }
    total += static_cast<double>(sum_of(sum));
    for (; i < end; ++i) {
      const One one;
      const float e = hn::GetLane(exp_or_zero(one, hn::Set(one, x[i] - shift)));
      if (out != nullptr) out[i] = e;
      total += static_cast<double>(e);
    }
  }
  return total;
}

// What to subtract when the largest element is x: if all are -inf, 0, and each exp() is then 0.
HWY_INLINE float finite(float x) { return x == -HUGE_VALF ? 0.0f : x; }

void Softmax(float* x, float scale, size_t size) {
  const double sum = SumExp(x, x, finite(MaxOfScaled(x, x, scale, size)), size);
  const float factor = sum == 0.0 ? 0.0f : static_cast<float>(1.0 / sum);
  for_vectors(size, [=](auto d, size_t i) HWY_ATTR {
    hn::StoreU(hn::Mul(hn::LoadU(d, x + i), hn::Set(d, factor)), d, x + i);
  });
}

float LogSumExp(const float* x, size_t size) {
  const float largest = finite(MaxOfScaled(nullptr, x, 1.0f, size));
  const double sum = SumExp(nullptr, x, largest, size);
  return static_cast<float>(static_cast<double>(largest) + std::log(sum));
}

// A piece of some vectors is looked into only if it has a larger number than those before.
size_t IndexOfLargest(const float* x, size_t size) {
  const F32 d;
  constexpr size_t kPiece = 1024;
  size_t best = size;
  float largest = -HUGE_VALF;
  for (size_t begin = 0; begin < size; begin += kPiece) {
    const size_t end = HWY_MIN(size, begin + kPiece);
    const V above = hn::Set(d, largest);
    auto any = hn::FirstN(d, 0);
    size_t i = begin;
    for (; i + hn::Lanes(d) <= end; i += hn::Lanes(d)) {
      any = hn::Or(any, hn::Gt(hn::LoadU(d, x + i), above));
    }
    if (!hn::AllFalse(d, any)) i = begin;
    for (; i < end; ++i) {
      if (x[i] > largest) {
        largest = x[i];
        best = i;
      }
    }
  }
  return best;
}

void F32ToF16(const float* in, uint16_t* out, size_t size) {
  size_t i = 0;
  if constexpr (kHardwareHalf) {
    const F32 d;
    const hn::Rebind<hwy::float16_t, F32> d16;
    for (const size_t n = hn::Lanes(d); i + n <= size; i += n) {
      const auto half = hn::DemoteTo(d16, hn::LoadU(d, in + i));
      hn::StoreU(half, d16, reinterpret_cast<hwy::float16_t*>(out + i));
    }
  }
  for (; i < size; ++i) out[i] = mkv::f32_to_f16(in[i]);
}

void F16ToF32(const uint16_t* in, float* out, size_t size) {
  for_vectors(size, [=](auto d, size_t i) HWY_ATTR {
    hn::StoreU(load_half(d, reinterpret_cast<const uint8_t*>(in + i)), d, out + i);
  });
}

void Rope(float* head, const float* cos, const float* sin, size_t half) {
  for_vectors(half, [=](auto d, size_t i) HWY_ATTR {
    const auto a = hn::LoadU(d, head + i), b = hn::LoadU(d, head + half + i);
    const auto c = hn::LoadU(d, cos + i), s = hn::LoadU(d, sin + i);
    hn::StoreU(hn::Sub(hn::Mul(a, c), hn::Mul(b, s)), d, head + i);
    hn::StoreU(hn::MulAdd(b, c, hn::Mul(a, s)), d, head + half + i);
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace mkv
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mkv {
HWY_EXPORT(Dot);
HWY_EXPORT(Axpy);
HWY_EXPORT(RmsNorm);
HWY_EXPORT(Swiglu);
HWY_EXPORT(Geglu);
HWY_EXPORT(Softmax);
HWY_EXPORT(LogSumExp);
HWY_EXPORT(IndexOfLargest);
HWY_EXPORT(F32ToF16);
HWY_EXPORT(F16ToF32);
HWY_EXPORT(Rope);

float dot(std::span<const float> a, std::span<const float> b) {
  MKV_CHECK(a.size() == b.size());
  return HWY_DYNAMIC_DISPATCH(Dot)(a.data(), b.data(), a.size());
}

void axpy(float scale, std::span<const float> x, std::span<float> y) {
  MKV_CHECK(x.size() == y.size());
  HWY_DYNAMIC_DISPATCH(Axpy)(scale, x.data(), y.data(), x.size());
}

void rms_norm(std::span<const float> x, std::span<const float> weight, float epsilon,
              std::span<float> out) {
  MKV_CHECK(x.size() == weight.size() && x.size() == out.size());
  if (x.empty()) return;
  HWY_DYNAMIC_DISPATCH(RmsNorm)(x.data(), weight.data(), epsilon, out.data(), x.size());
}

void swiglu(std::span<float> gate, std::span<const float> up) {
  MKV_CHECK(gate.size() == up.size());
  HWY_DYNAMIC_DISPATCH(Swiglu)(gate.data(), up.data(), gate.size());
}

void geglu(std::span<float> gate, std::span<const float> up) {
  MKV_CHECK(gate.size() == up.size());
  HWY_DYNAMIC_DISPATCH(Geglu)(gate.data(), up.data(), gate.size());
}

void softmax(std::span<float> x, float scale) {
  HWY_DYNAMIC_DISPATCH(Softmax)(x.data(), scale, x.size());
}

float log_sum_exp(std::span<const float> x) {
  return HWY_DYNAMIC_DISPATCH(LogSumExp)(x.data(), x.size());
}

size_t index_of_largest(std::span<const float> x) {
  return HWY_DYNAMIC_DISPATCH(IndexOfLargest)(x.data(), x.size());
}
void f32_to_f16(std::span<const float> in, std::span<uint16_t> out) {
  MKV_CHECK(in.size() == out.size());
  HWY_DYNAMIC_DISPATCH(F32ToF16)(in.data(), out.data(), in.size());
}

void f16_to_f32(std::span<const uint16_t> in, std::span<float> out) {
  MKV_CHECK(in.size() == out.size());
  HWY_DYNAMIC_DISPATCH(F16ToF32)(in.data(), out.data(), in.size());
}

void rope(std::span<float> head, std::span<const float> cos, std::span<const float> sin) {
  MKV_CHECK(cos.size() == sin.size() && 2 * cos.size() <= head.size());
  HWY_DYNAMIC_DISPATCH(Rope)(head.data(), cos.data(), sin.data(), cos.size());
}
void rope_heads(std::span<float> heads, size_t head_dim, std::span<const float> cos,
                std::span<const float> sin) {
  MKV_CHECK(head_dim > 0 && heads.size() % head_dim == 0);
  for (size_t at = 0; at < heads.size(); at += head_dim) {
    rope(heads.subspan(at, head_dim), cos, sin);
  }
}

}  // namespace mkv
#endif  // HWY_ONCE
