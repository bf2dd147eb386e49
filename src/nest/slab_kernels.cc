#include "nest/slab_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "nest/slab_kernels.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.h.
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace mkv {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr size_t kTokens = 64, kHalf = 32, kEntries = kCodebookEntries, kColumns = kSlabColumns;
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

void Encode(const Codebook& codebook, float* residual, size_t stride, uint8_t* codes) {
  const F32 d;
  const I32 di;
  const size_t n = hn::Lanes(d);
  HWY_ALIGN int32_t chosen[kTokens];
  for (size_t t = 0; t < kTokens; t += n) {
    V x[kColumns];
    for (size_t c = 0; c < kColumns; ++c) x[c] = hn::LoadU(d, residual + c * stride + t);
    // Nearest: least |e|^2/2 - x.e
    V best = hn::Set(d, HUGE_VALF);
    auto index = hn::Zero(di);
    for (size_t e = 0; e < kEntries; ++e) {
      V cost = hn::Set(d, codebook.half_norm[e]);
      for (size_t c = 0; c < kColumns; ++c) {
        cost = hn::NegMulAdd(x[c], hn::Set(d, codebook.entry[c][e]), cost);
      }
      const auto closer = hn::Lt(cost, best);
      best = hn::IfThenElse(closer, cost, best);
      index =
          hn::IfThenElse(hn::RebindMask(di, closer), hn::Set(di, static_cast<int32_t>(e)), index);
    }
    for (size_t c = 0; c < kColumns; ++c) {
      hn::StoreU(hn::Sub(x[c], look_up(d, codebook.entry[c], index)), d, residual + c * stride + t);
    }
    hn::StoreU(index, di, chosen + t);
  }
  for (size_t i = 0; i < kHalf; ++i) {
    codes[i] = static_cast<uint8_t>(chosen[i] | (chosen[i + kHalf] << 4));
  }
}

void Expand(const Codebook& codebook, const uint8_t* codes, float* rows, size_t stride) {
  const F32 d;
  const I32 di;
  const size_t n = hn::Lanes(d);
  HWY_ALIGN int32_t index[kTokens];
  for (size_t i = 0; i < kHalf; ++i) {
    index[i] = codes[i] & 15;
    index[i + kHalf] = codes[i] >> 4;
  }
  for (size_t t = 0; t < kTokens; t += n) {
    const auto chosen = hn::LoadU(di, index + t);
    for (size_t c = 0; c < kColumns; ++c) {
      float* row = rows + c * stride + t;
      hn::StoreU(hn::Add(hn::LoadU(d, row), look_up(d, codebook.entry[c], chosen)), d, row);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace mkv
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mkv {
HWY_EXPORT(Encode);
HWY_EXPORT(Expand);

void encode_slab(const Codebook& codebook, float* residual, size_t stride, uint8_t* codes) {
  HWY_DYNAMIC_DISPATCH(Encode)(codebook, residual, stride, codes);
}
void expand_slab(const Codebook& codebook, const uint8_t* codes, float* rows, size_t stride) {
  HWY_DYNAMIC_DISPATCH(Expand)(codebook, codes, rows, stride);
}
}  // namespace mkv
#endif  // HWY_ONCE
