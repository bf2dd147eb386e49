// Per-target loads of any alignment, and of 16-bit floats, exact on every target. Highway's own f16
// conversions emulate machines without F16C by rules of their own (truncation, no infinities), so
// only the ones that the hardware does are used.
#if defined(MKV_OPS_HALF_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MKV_OPS_HALF_INL_H_
#undef MKV_OPS_HALF_INL_H_
#else
#define MKV_OPS_HALF_INL_H_
#endif

#include <cstring>

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace mkv {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr bool kHardwareHalf =
    HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_NEON;

// LoadU of any address: Highway's asks for alignof(T), which rows of a file need not have.
template <class D>
HWY_INLINE hn::Vec<D> load_bytes_as(D d, const uint8_t* p) {
  using T = hn::TFromD<D>;
  if constexpr (HWY_TARGET == HWY_SCALAR || HWY_TARGET == HWY_EMU128) {
    T values[hn::MaxLanes(D())];
    std::memcpy(values, p, sizeof(values));
    return hn::LoadU(d, values);
  } else {
    return hn::LoadU(d, reinterpret_cast<const T*>(p));  // an instruction without that rule
  }
}

// Lanes(d) binary16 numbers at p.
template <class D>
HWY_INLINE hn::Vec<D> load_half(D d, const uint8_t* p) {
  if constexpr (kHardwareHalf) {
    const hn::Rebind<hwy::float16_t, D> d16;
    return hn::PromoteTo(d, load_bytes_as(d16, p));
  } else {
    const hn::Rebind<uint16_t, D> d16;
    const hn::Rebind<int32_t, D> d32;
    const auto bits = hn::PromoteTo(d32, load_bytes_as(d16, p));
    const auto magnitude = hn::And(bits, hn::Set(d32, 0x7fff));
    // The exponent moves by a product, which turns subnormals into normal numbers as well.
    const auto shifted = hn::BitCast(d, hn::ShiftLeft<13>(magnitude));
    const auto value = hn::BitCast(d32, hn::Mul(shifted, hn::Set(d, 0x1p112f)));
    const auto special = hn::VecFromMask(d32, hn::Gt(magnitude, hn::Set(d32, 0x7bff)));
    const auto infinite = hn::And(special, hn::Set(d32, 0x7f800000));
    const auto sign = hn::ShiftLeft<16>(hn::Xor(bits, magnitude));
    return hn::BitCast(d, hn::Or(hn::Or(value, infinite), sign));
  }
}

template <class D>
HWY_INLINE hn::Vec<D> load_bfloat(D d, const uint8_t* p) {
  const hn::Rebind<uint16_t, D> d16;
  const hn::Rebind<int32_t, D> d32;
  const auto bits = hn::PromoteTo(d32, load_bytes_as(d16, p));
  return hn::BitCast(d, hn::ShiftLeft<16>(bits));
}

}  // namespace HWY_NAMESPACE
}  // namespace mkv
HWY_AFTER_NAMESPACE();

#endif  // MKV_OPS_HALF_INL_H_
