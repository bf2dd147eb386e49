#include "nest/beam_kernels.h"

#include "base/check.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "nest/beam_kernels.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.h.
#include "nest/look_up-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mkv {
namespace HWY_NAMESPACE {

constexpr size_t kTokens = 64, kEntries = kCodebookEntries, kColumns = kSlabColumns;
using Key = hn::Vec<I32>;

// A path's residual, and half of its squared length.
struct Path {
  HWY_INLINE Path() {}  // an implicit one lacks the target that GCC asks of NEON's vectors
  V left[kColumns];
  V half_norm;
};

// What a path would cost with each entry, in a key whose lowest six bits name both: costs are not
// negative, so that as integers they have the order of floats. best[kPaths] stays sorted.
template <size_t kPaths>
HWY_INLINE void offer(const Path& path, size_t index, const Codebook& book, const float* half_norms,
                      Key (&best)[kPaths]) {
  const F32 d;
  const I32 di;
  for (size_t e = 0; e < kEntries; ++e) {
    V cost = hn::Add(path.half_norm, hn::Set(d, half_norms[e]));
    for (size_t c = 0; c < kColumns; ++c) {
      cost = hn::NegMulAdd(path.left[c], hn::Set(d, book.entry[c][e]), cost);
    }
    const auto bits = hn::BitCast(di, hn::Max(cost, hn::Zero(d)));
    const auto name = static_cast<int32_t>(index * kEntries + e);
    Key key = hn::Or(hn::AndNot(hn::Set(di, 63), bits), hn::Set(di, name));
    for (Key& kept : best) {
      const Key less = hn::Min(kept, key);
      key = hn::Max(kept, key);
      kept = less;
    }
  }
}

// The path that a key names, one entry longer.
template <size_t kPaths>
HWY_INLINE Path follow(const Path (&paths)[kPaths], Key key, const Codebook& book) {
  const F32 d;
  const I32 di;
  const auto entry = hn::And(key, hn::Set(di, 15));
  const auto parent = hn::And(hn::ShiftRight<4>(key), hn::Set(di, 3));
  Path longer;
  longer.half_norm = hn::Zero(d);
  for (size_t c = 0; c < kColumns; ++c) {
    V left = paths[0].left[c];
    for (size_t p = 1; p < kPaths; ++p) {
      const auto is_parent = hn::Eq(parent, hn::Set(di, static_cast<int32_t>(p)));
      left = hn::IfThenElse(hn::RebindMask(d, is_parent), paths[p].left[c], left);
    }
    longer.left[c] = hn::Sub(left, look_up(d, book.entry[c], entry));
    longer.half_norm = hn::MulAdd(longer.left[c], longer.left[c], longer.half_norm);
  }
  longer.half_norm = hn::Mul(longer.half_norm, hn::Set(d, 0.5f));
  return longer;
}

template <size_t kPaths>
void EncodePaths(std::span<const CodeSlab* const> stages, const float* columns, size_t stride,
                 uint8_t (*codes)[kTokens]) {
  const F32 d;
  const I32 di;
  const size_t n = hn::Lanes(d);
  HWY_ALIGN int32_t names[kMostSlabsPerColumn][kPaths][hn::MaxLanes(F32())];
  std::array<float, kEntries> half_norms[kMostSlabsPerColumn];
  for (size_t s = 0; s < stages.size(); ++s) half_norms[s] = stages[s]->codebook.half_norms();
  for (size_t t = 0; t < kTokens; t += n) {
    Path paths[kPaths];
    for (Path& path : paths) {
      path.half_norm = hn::Set(d, 1e30f);  // until there are as many
      for (V& left : path.left) left = hn::Zero(d);
    }
    V square = hn::Zero(d);
    for (size_t c = 0; c < kColumns; ++c) {
      paths[0].left[c] = hn::LoadU(d, columns + c * stride + t);
      square = hn::MulAdd(paths[0].left[c], paths[0].left[c], square);
    }
    paths[0].half_norm = hn::Mul(square, hn::Set(d, 0.5f));
    for (size_t s = 0; s < stages.size(); ++s) {
      const Codebook& book = stages[s]->codebook;
      Key best[kPaths];
      for (Key& key : best) key = hn::Set(di, INT32_MAX);
      for (size_t p = 0; p < kPaths; ++p) offer(paths[p], p, book, half_norms[s].data(), best);
      Path longer[kPaths];
      for (size_t p = 0; p < kPaths; ++p) {
        longer[p] = follow(paths, best[p], book);
        hn::StoreU(best[p], di, names[s][p]);
      }
      for (size_t p = 0; p < kPaths; ++p) paths[p] = longer[p];
    }
    for (size_t lane = 0; lane < n; ++lane) {
      size_t path = 0;  // the best of the last stage, and back
      for (size_t s = stages.size(); s-- > 0;) {
        const int32_t name = names[s][path][lane];
        codes[s][t + lane] = static_cast<uint8_t>(name & 15);
        path = static_cast<size_t>(name >> 4 & 3);
      }
    }
  }
}

void EncodeBeam(std::span<const CodeSlab* const> stages, const float* columns, size_t stride,
                size_t beam, uint8_t (*codes)[kTokens]) {
  switch (beam) {
    case 2:
      return EncodePaths<2>(stages, columns, stride, codes);
    case 3:
      return EncodePaths<3>(stages, columns, stride, codes);
    default:
      return EncodePaths<4>(stages, columns, stride, codes);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace mkv
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mkv {
HWY_EXPORT(EncodeBeam);

void encode_beam(std::span<const CodeSlab* const> stages, const float* columns, size_t stride,
                 size_t beam, uint8_t (*codes)[64]) {
  MKV_CHECK(beam >= 2 && beam <= kMostBeam && stages.size() <= kMostSlabsPerColumn);
  HWY_DYNAMIC_DISPATCH(EncodeBeam)(stages, columns, stride, beam, codes);
}

}  // namespace mkv
#endif  // HWY_ONCE
