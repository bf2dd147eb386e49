// Exponentials that several kernel files share.
#if defined(MKV_OPS_EXP_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MKV_OPS_EXP_INL_H_
#undef MKV_OPS_EXP_INL_H_
#else
#define MKV_OPS_EXP_INL_H_
#endif

#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace mkv {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// exp(x) for x <= 88; 0 below -87 and for -inf, where it would be subnormal. NaN stays NaN.
template <class D, class Vec>
HWY_INLINE Vec exp_or_zero(D d, Vec x) {
  const auto floor = hn::Set(d, -87.0f);
  const auto e = hn::Exp(d, hn::Max(x, floor));
  return hn::IfThenElse(hn::Eq(x, x), hn::IfThenElseZero(hn::Ge(x, floor), e), x);
}

// exp(x) for x <= 0, and 0 from -87 down, where it would be subnormal, and of NaN: half the
// instructions of Highway's, which takes what is above, too. exp(r) of the rest |r| <= ln 2 / 2 is
// a polynomial (relative error 3e-9, fitted to exp by us) times a power of two, whose exponent is
// added to the bits.
template <class D, class Vec>
HWY_INLINE Vec exp_of_negative(D d, Vec x) {
  const auto floor = hn::Set(d, -87.0f), shift = hn::Set(d, 0x1.8p23f);
  const auto y = hn::Max(x, floor);
  // The nearest integer of y / ln 2, in the low bits; then as a float.
  const auto bits = hn::MulAdd(y, hn::Set(d, 1.44269504f), shift);
  const auto n = hn::Sub(bits, shift);
  // ln 2 in two parts, of which n times the first is exact without a fused product as well.
  auto r = hn::NegMulAdd(n, hn::Set(d, 0x1.62e4p-1f), y);
  r = hn::NegMulAdd(n, hn::Set(d, 1.42860677e-6f), r);
  auto p = hn::Set(d, 1.38145405e-3f);
  for (const float next : {8.36874545e-3f, 4.16683890e-2f, 0.166665211f, 0.49999994f, 1.0f, 1.0f}) {
    p = hn::MulAdd(p, r, hn::Set(d, next));
  }
  const hn::Rebind<int32_t, D> d32;
  const auto power = hn::ShiftLeft<23>(hn::BitCast(d32, bits));
  return hn::IfThenElseZero(hn::Gt(x, floor), hn::BitCast(d, hn::Add(hn::BitCast(d32, p), power)));
}

// g / (1 + exp(-x)), through exp(-|x|), which cannot overflow; g and x have the same sign.
template <class D, class Vec>
HWY_INLINE Vec gated(D d, Vec g, Vec x) {
  const auto e = exp_of_negative(d, hn::Neg(hn::Abs(x)));
  const auto numerator = hn::IfThenElse(hn::Lt(g, hn::Zero(d)), hn::Mul(g, e), g);
  return hn::Div(numerator, hn::Add(hn::Set(d, 1.0f), e));
}

}  // namespace HWY_NAMESPACE
}  // namespace mkv
HWY_AFTER_NAMESPACE();

#endif  // MKV_OPS_EXP_INL_H_
