#include "nest/slab_kernels.h"

#include "nest/avx512.h"
#include "nest/kv_cache.h"
#include "nest/slab_reference.h"

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

float Tabulate(std::span<const CodeSlab> slabs, const float* query, float* out) {
  const hn::CappedTag<float, kEntries> d;
  const size_t n = hn::Lanes(d);
  float reach = 0.0f;
  for (size_t s = 0; s < slabs.size(); ++s) {
    const Codebook& codebook = slabs[s].codebook;
    const float* q = query + slabs[s].first_column;
    auto largest = hn::Zero(d);
    for (size_t e = 0; e < kEntries; e += n) {
      auto sum = hn::Mul(hn::Set(d, q[0]), hn::LoadU(d, codebook.entry[0] + e));
      for (size_t c = 1; c < kColumns; ++c) {
        sum = hn::MulAdd(hn::Set(d, q[c]), hn::LoadU(d, codebook.entry[c] + e), sum);
      }
      hn::StoreU(sum, d, out + s * kEntries + e);
      largest = hn::Max(largest, hn::Abs(sum));
    }
    reach += hn::GetLane(hn::MaxOfLanes(d, largest));
  }
  return reach;
}

void RoundTables(const float* values, size_t slabs, float factor, int16_t* table, size_t stride) {
  const hn::CappedTag<float, kEntries / 2> d;
  const hn::Rebind<int16_t, decltype(d)> d16;
  const size_t n = hn::Lanes(d);
  const auto times = hn::Set(d, factor);
  for (size_t s = 0; s < slabs; ++s) {
    for (size_t e = 0; e < kEntries; e += n) {
      const auto rounded = hn::NearestInt(hn::Mul(hn::LoadU(d, values + s * kEntries + e), times));
      hn::StoreU(hn::DemoteTo(d16, rounded), d16, table + s * stride + e);
    }
  }
}

float RoundWeights(const float* values, size_t size, uint8_t* weights) {
  const F32 d;
  const hn::Rebind<uint8_t, F32> d8;
  const size_t n = hn::Lanes(d);
  V largest = hn::Zero(d);
  for (size_t i = 0; i < size; i += n) largest = hn::Max(largest, hn::LoadU(d, values + i));
  const float unit = hn::GetLane(hn::MaxOfLanes(d, largest)) / 255.0f;
  // A subnormal's reciprocal may be infinite.
  const V factor = hn::Set(d, unit > 1e-37f ? 1.0f / unit : 0.0f);
  for (size_t i = 0; i < size; i += n) {
    const auto rounded = hn::NearestInt(hn::Mul(hn::LoadU(d, values + i), factor));
    hn::StoreU(hn::DemoteTo(d8, rounded), d8, weights + i);
  }
  return unit;
}

#if HWY_TARGET == HWY_SCALAR

void ScoreSlabs(const ScoreTables& tables, const CodeBlocks& blocks, View<float> scores) {
  reference::score_slabs(tables, blocks, scores);
}
void WeighSlabs(const CodePlanes& planes, const CodeBlocks& blocks, const uint8_t* weights,
                std::span<const float> factor, View<float> sums) {
  reference::weigh_slabs(planes, blocks, weights, factor, sums);
}

#else

// Bytes of which a 128-bit part is looked up at once.
using Bytes = hn::CappedTag<uint8_t, kHalf>;
using ByteVec = hn::Vec<Bytes>;

// 16-bit entries are looked up as their two bytes.
struct WordTable {
  ByteVec low, high;
};
HWY_INLINE WordTable load_table(const int16_t* entries) {
  HWY_ALIGN static constexpr uint8_t kEven[16] = {0,   2,   4,   6,   8,   10,  12,  14,
                                                  128, 128, 128, 128, 128, 128, 128, 128};
  HWY_ALIGN static constexpr uint8_t kOdd[16] = {1,   3,   5,   7,   9,   11,  13,  15,
                                                 128, 128, 128, 128, 128, 128, 128, 128};
  const Bytes d8;
  const auto* bytes = reinterpret_cast<const uint8_t*>(entries);
  const ByteVec a = hn::LoadDup128(d8, bytes), b = hn::LoadDup128(d8, bytes + kEntries);
  const ByteVec even = hn::LoadDup128(d8, kEven), odd = hn::LoadDup128(d8, kOdd);
  const auto joined = [d8](ByteVec lower, ByteVec upper) HWY_ATTR {
    const hn::Repartition<uint64_t, Bytes> d64;
    return hn::BitCast(d8,
                       hn::InterleaveLower(d64, hn::BitCast(d64, lower), hn::BitCast(d64, upper)));
  };
  return {joined(hn::TableLookupBytesOr0(a, even), hn::TableLookupBytesOr0(b, even)),
          joined(hn::TableLookupBytesOr0(a, odd), hn::TableLookupBytesOr0(b, odd))};
}

// Sums of the lower and upper eight tokens of every 128-bit part.
struct WordSums {
  HWY_INLINE WordSums() {}  // an implicit one lacks the target that GCC asks of NEON's vectors
  hn::Vec<hn::Repartition<int16_t, Bytes> > low, high;
};
HWY_INLINE void add_words(const WordTable& table, ByteVec codes, WordSums& sums) {
  const Bytes d8;
  const hn::Repartition<int16_t, Bytes> d16;
  const ByteVec low = hn::TableLookupBytes(table.low, codes);
  const ByteVec high = hn::TableLookupBytes(table.high, codes);
  sums.low = hn::Add(sums.low, hn::BitCast(d16, hn::InterleaveLower(d8, low, high)));
  sums.high = hn::Add(sums.high, hn::BitCast(d16, hn::InterleaveUpper(d8, low, high)));
}
HWY_INLINE void add_scores(const WordSums& from, float unit, float* scores) {
  const hn::Repartition<int16_t, Bytes> d16;
  const size_t n = hn::Lanes(Bytes()), words = n / 2;
  HWY_ALIGN int16_t sums[kHalf];
  hn::Store(from.low, d16, sums);
  hn::Store(from.high, d16, sums + words);
  for (size_t t = 0; t < n; ++t) {  // 8 of each 16 tokens are in `low`
    scores[t] += unit * static_cast<float>(sums[t / 16 * 8 + t % 8 + t % 16 / 8 * words]);
  }
}

// One head, kBlocks blocks: scores[kBlocks * 64].
template <size_t kBlocks>
HWY_INLINE void score_head(const ScoreTables& tables, size_t heads, size_t head,
                           const uint8_t* codes, size_t stride, float* scores) {
  const Bytes d8;
  const hn::Repartition<int16_t, Bytes> d16;
  const size_t n = hn::Lanes(d8);
  const ByteVec low_half = hn::Set(d8, 15);
  for (size_t i = 0; i < kHalf; i += n) {
    WordSums sums[kBlocks][2];
    for (auto& of_block : sums) {
      for (WordSums& of_half : of_block) of_half.low = of_half.high = hn::Zero(d16);
    }
    for (size_t s = 0; s < tables.slabs; ++s) {
      const WordTable table = load_table(tables.entries + (s * heads + head) * kEntries);
      for (size_t b = 0; b < kBlocks; ++b) {
        const ByteVec both = hn::LoadU(d8, codes + b * stride + s * kHalf + i);
        add_words(table, hn::And(both, low_half), sums[b][0]);
        add_words(table, hn::And(hn::ShiftRight<4>(both), low_half), sums[b][1]);
      }
    }
    for (size_t b = 0; b < kBlocks; ++b) {
      for (size_t half = 0; half < 2; ++half) {
        add_scores(sums[b][half], tables.unit[head], scores + b * kTokens + half * kHalf + i);
      }
    }
  }
}

void ScoreSlabs(const ScoreTables& tables, const CodeBlocks& blocks, View<float> scores) {
  for (size_t h = 0; h < scores.rows; ++h) {
    size_t b = 0;
    const auto codes = [&] { return blocks.data + b * blocks.stride; };
    const auto to = [&] { return scores.row(h).data() + b * kTokens; };
    for (; b + 2 <= blocks.count; b += 2) {
      score_head<2>(tables, scores.rows, h, codes(), blocks.stride, to());
    }
    if (b < blocks.count) score_head<1>(tables, scores.rows, h, codes(), blocks.stride, to());
  }
}

// A plane's columns of a block as 16-bit integers [4][64].
HWY_INLINE void expand_plane(const CodePlanes& planes, const CodePlanes::Plane& plane,
                             const uint8_t* codes, int16_t* columns) {
  const Bytes d8;
  const hn::RebindToSigned<Bytes> ds8;
  const hn::Half<hn::RebindToSigned<Bytes> > half;
  const hn::Repartition<int16_t, Bytes> d16;
  const size_t n = hn::Lanes(d8);
  const ByteVec low_half = hn::Set(d8, 15);
  for (size_t i = 0; i < kHalf; i += n) {
    ByteVec sums[2][kColumns];
    for (size_t c = 0; c < kColumns; ++c) sums[0][c] = sums[1][c] = hn::Zero(d8);
    for (size_t s = plane.begin; s < plane.end; ++s) {
      const ByteVec both = hn::LoadU(d8, codes + planes.slabs[s] * kHalf + i);
      const ByteVec first = hn::And(both, low_half);
      const ByteVec second = hn::And(hn::ShiftRight<4>(both), low_half);
      const auto* entries =
          reinterpret_cast<const uint8_t*>(planes.entries.data() + s * kColumns * kEntries);
      for (size_t c = 0; c < kColumns; ++c) {
        const ByteVec table = hn::LoadDup128(d8, entries + c * kEntries);
        sums[0][c] = hn::Add(sums[0][c], hn::TableLookupBytes(table, first));
        sums[1][c] = hn::Add(sums[1][c], hn::TableLookupBytes(table, second));
      }
    }
    for (size_t c = 0; c < kColumns; ++c) {
      for (size_t h = 0; h < 2; ++h) {
        const auto bytes = hn::BitCast(ds8, sums[h][c]);
        int16_t* to = columns + c * kTokens + h * kHalf + i;
        hn::StoreU(hn::PromoteTo(d16, hn::LowerHalf(half, bytes)), d16, to);
        hn::StoreU(hn::PromoteTo(d16, hn::UpperHalf(half, bytes)), d16, to + n / 2);
      }
    }
  }
}

// whole[h][c] = sum_t weights[h][t] * columns[c][t] over the tokens of `count` blocks, for kHeads
// heads: each column is loaded once for all of them.
template <size_t kHeads>
HWY_INLINE void weigh_columns_of(const int16_t (*columns)[kColumns * kTokens], size_t count,
                                 const uint8_t* weights, int32_t (*whole)[kColumns]) {
  const hn::ScalableTag<int16_t> d16;
  const hn::Repartition<int32_t, decltype(d16)> d32;
  const hn::Rebind<uint8_t, decltype(d16)> d8;
  const size_t n = hn::Lanes(d16);
  // Where pairs add up in one register, as on x86, `high` stays zero and costs nothing.
  hn::Vec<decltype(d32)> low[kHeads][kColumns], high[kHeads][kColumns];
  for (size_t h = 0; h < kHeads; ++h) {
    for (size_t c = 0; c < kColumns; ++c) low[h][c] = high[h][c] = hn::Zero(d32);
  }
  for (size_t b = 0; b < count; ++b) {
    for (size_t t = 0; t < kTokens; t += n) {
      hn::Vec<decltype(d16)> column[kColumns];
      for (size_t c = 0; c < kColumns; ++c) column[c] = hn::Load(d16, columns[b] + c * kTokens + t);
      for (size_t h = 0; h < kHeads; ++h) {
        const auto weight =
            hn::PromoteTo(d16, hn::LoadU(d8, weights + (h * kWeighBlocks + b) * kTokens + t));
        for (size_t c = 0; c < kColumns; ++c) {
          low[h][c] = hn::ReorderWidenMulAccumulate(d32, weight, column[c], low[h][c], high[h][c]);
        }
      }
    }
  }
  for (size_t h = 0; h < kHeads; ++h) {
    for (size_t c = 0; c < kColumns; ++c) {
      whole[h][c] = hn::GetLane(hn::SumOfLanes(d32, hn::Add(low[h][c], high[h][c])));
    }
  }
}

template <size_t kHeads>
HWY_INLINE void weigh_plane(const CodePlanes::Plane& plane,
                            const int16_t (*columns)[kColumns * kTokens], size_t count,
                            const uint8_t* weights, std::span<const float> factor, size_t head,
                            View<float> sums) {
  int32_t whole[kHeads][kColumns];
  weigh_columns_of<kHeads>(columns, count, weights + head * kWeighBlocks * kTokens, whole);
  for (size_t h = 0; h < kHeads; ++h) {
    float* to = sums.row(head + h).data() + plane.first_column;
    for (size_t c = 0; c < kColumns; ++c) {
      to[c] += factor[head + h] * plane.scale[c] * static_cast<float>(whole[h][c]);
    }
  }
}

void WeighSlabs(const CodePlanes& planes, const CodeBlocks& blocks, const uint8_t* weights,
                std::span<const float> factor, View<float> sums) {
  HWY_ALIGN int16_t columns[kWeighBlocks][kColumns * kTokens];
  for (const CodePlanes::Plane& plane : planes.planes) {
    for (size_t b = 0; b < blocks.count; ++b) {
      expand_plane(planes, plane, blocks.data + b * blocks.stride, columns[b]);
    }
    size_t h = 0;
    for (; h + 2 <= sums.rows; h += 2) {
      weigh_plane<2>(plane, columns, blocks.count, weights, factor, h, sums);
    }
    if (h < sums.rows) weigh_plane<1>(plane, columns, blocks.count, weights, factor, h, sums);
  }
}

#endif  // HWY_TARGET == HWY_SCALAR

}  // namespace HWY_NAMESPACE
}  // namespace mkv
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mkv {
HWY_EXPORT(Encode);
HWY_EXPORT(Expand);
HWY_EXPORT(Tabulate);
HWY_EXPORT(RoundTables);
HWY_EXPORT(ScoreSlabs);
HWY_EXPORT(RoundWeights);
HWY_EXPORT(WeighSlabs);

void encode_slab(const Codebook& codebook, float* residual, size_t stride, uint8_t* codes) {
  HWY_DYNAMIC_DISPATCH(Encode)(codebook, residual, stride, codes);
}
void expand_slab(const Codebook& codebook, const uint8_t* codes, float* rows, size_t stride) {
  HWY_DYNAMIC_DISPATCH(Expand)(codebook, codes, rows, stride);
}
float tabulate_slabs(std::span<const CodeSlab> slabs, const float* query, float* out) {
  return HWY_DYNAMIC_DISPATCH(Tabulate)(slabs, query, out);
}
void round_tables(const float* values, size_t slabs, float factor, int16_t* table, size_t stride) {
  HWY_DYNAMIC_DISPATCH(RoundTables)(values, slabs, factor, table, stride);
}
void score_slabs(const ScoreTables& tables, const CodeBlocks& blocks, View<float> scores) {
  MKV_CHECK(scores.cols == blocks.count * kBlockTokens && tables.unit.size() == scores.rows);
  if (avx512::usable()) return avx512::score_slabs(tables, blocks, scores);
  HWY_DYNAMIC_DISPATCH(ScoreSlabs)(tables, blocks, scores);
}
float round_weights(std::span<const float> values, uint8_t* weights) {
  MKV_CHECK(values.size() % kBlockTokens == 0);
  return HWY_DYNAMIC_DISPATCH(RoundWeights)(values.data(), values.size(), weights);
}
void weigh_slabs(const CodePlanes& planes, const CodeBlocks& blocks, const uint8_t* weights,
                 std::span<const float> factor, View<float> sums) {
  MKV_CHECK(blocks.count <= kWeighBlocks && factor.size() == sums.rows);
  if (avx512::usable()) return avx512::weigh_slabs(planes, blocks, weights, factor, sums);
  HWY_DYNAMIC_DISPATCH(WeighSlabs)(planes, blocks, weights, factor, sums);
}
}  // namespace mkv
#endif  // HWY_ONCE
