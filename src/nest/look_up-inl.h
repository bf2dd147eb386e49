// Per-target look-ups in tables of 16 floats.
#if defined(MKV_NEST_LOOK_UP_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MKV_NEST_LOOK_UP_INL_H_
#undef MKV_NEST_LOOK_UP_INL_H_
#else
#define MKV_NEST_LOOK_UP_INL_H_
#endif

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace mkv {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using F32 = hn::ScalableTag<float>;
using I32 = hn::RebindToSigned<F32>;
using V = hn::Vec<F32>;

// table[index] for 16 floats.
HWY_INLINE V look_up(F32 d, const float* table, hn::Vec<I32> index) {
  if constexpr (hn::MaxLanes(F32()) >= 16) {
    return hn::TableLookupLanes(hn::LoadU(d, table), hn::IndicesFromVec(d, index));
  } else if constexpr (hn::MaxLanes(F32()) == 8) {
    const I32 di;
    const auto within = hn::IndicesFromVec(d, hn::And(index, hn::Set(di, 7)));
    const V low = hn::TableLookupLanes(hn::LoadU(d, table), within);
    const V high = hn::TableLookupLanes(hn::LoadU(d, table + 8), within);
    return hn::IfThenElse(hn::RebindMask(d, hn::Gt(index, hn::Set(di, 7))), high, low);
  } else {
    return hn::GatherIndex(d, table, index);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace mkv
HWY_AFTER_NAMESPACE();

#endif  // MKV_NEST_LOOK_UP_INL_H_
