#include "nest/slab_kernels.h"

#include "nest/avx512.h"
#include "nest/kv_cache.h"
#include "nest/score_bytes.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "nest/slab_kernels.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.h.
#include "nest/look_up-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mkv {
namespace HWY_NAMESPACE {

constexpr size_t kTokens = 64, kHalf = 32, kEntries = kCodebookEntries, kColumns = kSlabColumns;

void Encode(const Codebook& codebook, float* residual, size_t stride, uint8_t* codes) {
  const F32 d;
  const I32 di;
  const size_t n = hn::Lanes(d);
  const std::array<float, kEntries> half_norms = codebook.half_norms();
  HWY_ALIGN int32_t chosen[kTokens];
  for (size_t t = 0; t < kTokens; t += n) {
    V x[kColumns];
    for (size_t c = 0; c < kColumns; ++c) x[c] = hn::LoadU(d, residual + c * stride + t);
    // Nearest: least |e|^2/2 - x.e
    V best = hn::Set(d, HUGE_VALF);
    auto index = hn::Zero(di);
    for (size_t e = 0; e < kEntries; ++e) {
      V cost = hn::Set(d, half_norms[e]);
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

void Tabulate(std::span<const CodeSlab> slabs, const float* query, float* out) {
  const hn::CappedTag<float, kEntries> d;
  const size_t n = hn::Lanes(d);
  for (size_t s = 0; s < slabs.size(); ++s) {
    const Codebook& codebook = slabs[s].codebook;
    const float* q = query + slabs[s].first_column;
    for (size_t e = 0; e < kEntries; e += n) {
      auto sum = hn::Mul(hn::Set(d, q[0]), hn::LoadU(d, codebook.entry[0] + e));
      for (size_t c = 1; c < kColumns; ++c) {
        sum = hn::MulAdd(hn::Set(d, q[c]), hn::LoadU(d, codebook.entry[c] + e), sum);
      }
      hn::StoreU(sum, d, out + s * kEntries + e);
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
HWY_EXPORT(Tabulate);

void encode_slab(const Codebook& codebook, float* residual, size_t stride, uint8_t* codes) {
  HWY_DYNAMIC_DISPATCH(Encode)(codebook, residual, stride, codes);
}
void expand_slab(const Codebook& codebook, const uint8_t* codes, float* rows, size_t stride) {
  HWY_DYNAMIC_DISPATCH(Expand)(codebook, codes, rows, stride);
}
void tabulate_slabs(std::span<const CodeSlab> slabs, const float* query, float* out) {
  HWY_DYNAMIC_DISPATCH(Tabulate)(slabs, query, out);
}
bool scores_by_fours() { return avx512::scores_fours(); }

void round_tables(const float* values, size_t head, const ScoreTables& to) {
  if (scores_by_fours()) return round_to_fours(values, head, to);
  round_to_bytes(values, to.slabs, to.bytes + head * part_count(to.slabs));
}

void score_slabs(const ScoreTables& tables, Slabs which, const CodeBlocks& blocks,
                 std::span<const size_t> heads, View<float> scores) {
  MKV_CHECK(scores.cols == blocks.count * kBlockTokens && tables.heads == scores.rows);
  if (scores_by_fours()) return avx512::score_slabs(tables, which, blocks, heads, scores);
  score_bytes(tables, which, blocks, heads, scores);
}
}  // namespace mkv
#endif  // HWY_ONCE
