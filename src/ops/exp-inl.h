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

// g / (1 + exp(-x)), through exp(-|x|), which cannot overflow; g and x have the same sign.
template <class D, class Vec>
HWY_INLINE Vec gated(D d, Vec g, Vec x) {
  const auto e = exp_or_zero(d, hn::Neg(hn::Abs(x)));
  const auto numerator = hn::IfThenElse(hn::Lt(g, hn::Zero(d)), hn::Mul(g, e), g);
  return hn::Div(numerator, hn::Add(hn::Set(d, 1.0f), e));
}

}  // namespace HWY_NAMESPACE
}  // namespace mkv
HWY_AFTER_NAMESPACE();

#endif  // MKV_OPS_EXP_INL_H_
