#include "nest/score_bytes.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>

#include "base/check.h"
#include "base/prefetch.h"
#include "nest/kv_cache.h"
#include "nest/slab_reference.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "nest/score_bytes.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.h.
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace mkv {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr size_t kTokens = 64, kHalf = 32, kEntries = kCodebookEntries, kTogether = 2;
static_assert(kTogether * kTokens == kSpreadCodes);

// The sum of a head's ranges is so many units: sums of rounded entries fit 16 bits. A table's shift
// is 0 while 7 bits hold its range in units, 1 up to twice that and so on; from kSplit on it
// becomes two. Its class is kClasses - 1 - shift.
constexpr float kUnits = 32768.0f;
constexpr int kSplit = 4, kBits = 7;
constexpr float kMostEntry = 127.0f;

constexpr int rest_shift(int shift) { return std::max(0, shift - kBits); }

// The least shift with ratio <= 1 << shift.
HWY_INLINE int shift_of(float ratio) {
  const auto bits = std::bit_cast<uint32_t>(ratio);
  const int shift = static_cast<int>((bits + 0x7fffff) >> 23) - 127;  // log2, rounded up
  return std::clamp(shift, 0, static_cast<int>(ByteTables::kClasses) - 1);
}

using Floats = hn::CappedTag<float, kEntries>;
HWY_INLINE void store_entries(hn::Vec<Floats> x, float most, uint8_t* to) {
  const Floats d;
  const hn::Rebind<uint8_t, Floats> d8;
  hn::StoreU(hn::DemoteTo(d8, hn::NearestInt(hn::Min(x, hn::Set(d, most)))), d8, to);
}

// The least value of a slab, and what the largest is above it.
HWY_INLINE void range_of(const float* values, float& least, float& size) {
  float low = values[0], high = values[0];
  for (size_t e = 1; e < kEntries; ++e) {
    low = HWY_MIN(low, values[e]);
    high = HWY_MAX(high, values[e]);
  }
  least = low;
  size = high - low;
}

#if HWY_TARGET == HWY_SCALAR
HWY_INLINE void ranges_of_four(const float* values, float* least, float* size) {
  for (size_t s = 0; s < kFour; ++s) range_of(values + s * kEntries, least[s], size[s]);
}
#else
// Of each 128-bit part: the results of the four vectors' parts. Then of all parts.
template <class V, class Op>
HWY_INLINE hn::Vec<hn::FixedTag<float, 4> > fold(const V (&x)[kFour], const Op& op) {
  const Floats d;
  const hn::Repartition<uint64_t, Floats> pairs;
  const V low = op(hn::InterleaveLower(d, x[0], x[1]), hn::InterleaveUpper(d, x[0], x[1]));
  const V high = op(hn::InterleaveLower(d, x[2], x[3]), hn::InterleaveUpper(d, x[2], x[3]));
  const auto a = hn::BitCast(pairs, low), b = hn::BitCast(pairs, high);
  const V parts = op(hn::BitCast(d, hn::InterleaveLower(pairs, a, b)),
                     hn::BitCast(d, hn::InterleaveUpper(pairs, a, b)));
  const auto halve = [&](auto tag, auto v) HWY_ATTR {
    const hn::Half<decltype(tag)> half;
    return op(hn::LowerHalf(half, v), hn::UpperHalf(half, v));
  };
  if constexpr (hn::MaxLanes(Floats()) == 16) {
    return halve(hn::Half<Floats>(), halve(d, parts));
  } else if constexpr (hn::MaxLanes(Floats()) == 8) {
    return halve(d, parts);
  } else {
    return parts;
  }
}

// The same of four slabs [4][16].
HWY_INLINE void ranges_of_four(const float* values, float* least, float* size) {
  const Floats d;
  const hn::FixedTag<float, 4> four;
  hn::Vec<Floats> low[kFour], high[kFour];
  for (size_t s = 0; s < kFour; ++s, values += kEntries) {
    low[s] = high[s] = hn::LoadU(d, values);
    for (size_t e = hn::Lanes(d); e < kEntries; e += hn::Lanes(d)) {
      const auto x = hn::LoadU(d, values + e);
      low[s] = hn::Min(low[s], x);
      high[s] = hn::Max(high[s], x);
    }
  }
  const auto lowest = fold(low, [](auto a, auto b) HWY_ATTR { return hn::Min(a, b); });
  const auto highest = fold(high, [](auto a, auto b) HWY_ATTR { return hn::Max(a, b); });
  hn::StoreU(lowest, four, least);
  hn::StoreU(hn::Sub(highest, lowest), four, size);
}
#endif

// The same of any number of slabs.
HWY_INLINE void find_ranges(const float* values, size_t slabs, float* least, float* size) {
  size_t s = 0;
  for (; s + kFour <= slabs; s += kFour) ranges_of_four(values + s * kEntries, least + s, size + s);
  for (; s < slabs; ++s) range_of(values + s * kEntries, least[s], size[s]);
}

// (values - least) * factor, at most `most`; if there is `rest`, whole ones, and what that leaves
// times of_rest.
HWY_INLINE void round_table(const float* values, float least, float factor, float most,
                            float of_rest, uint8_t* entries, uint8_t* rest) {
  const Floats d;
  for (size_t e = 0; e < kEntries; e += hn::Lanes(d)) {
    auto x = hn::LoadU(d, values + e);
    x = hn::Mul(hn::Sub(x, hn::Set(d, least)), hn::Set(d, factor));
    if (rest != nullptr) {
      const auto whole = hn::Floor(x);
      store_entries(hn::Mul(hn::Sub(x, whole), hn::Set(d, of_rest)), most, rest + e);
      x = whole;
    }
    store_entries(x, most, entries + e);
  }
}

void RoundPart(const float* values, size_t slabs, ByteTables& out) {
  float least[kPartSlabs], size[kPartSlabs];
  int shifts[kPartSlabs];
  find_ranges(values, slabs, least, size);
  float total = 0.0f;
  out.base = 0.0f;
  for (size_t s = 0; s < slabs; ++s) {
    total += size[s];
    out.base += least[s];
  }
  out.unit = total / kUnits;
  if (!(out.unit > 1e-37f)) slabs = 0;  // a subnormal's reciprocal may be infinite
  float factors[ByteTables::kClasses] = {1.0f / out.unit};  // by shift
  for (size_t i = 1; i < ByteTables::kClasses; ++i) factors[i] = 0.5f * factors[i - 1];
  const float to_ratio = factors[0] / kMostEntry;
  uint16_t next[ByteTables::kClasses] = {};  // by shift: the look-ups' count, then the next's place
  for (size_t s = 0; s < slabs; ++s) {
    const int shift = shifts[s] = shift_of(size[s] * to_ratio);
    ++next[shift];
    if (shift >= kSplit) ++next[rest_shift(shift)];
  }
  uint16_t at = 0;
  for (size_t c = 0; c < ByteTables::kClasses; ++c) {
    const uint16_t count = std::exchange(next[ByteTables::kClasses - 1 - c], at);
    at = out.end[c] = static_cast<uint16_t>(at + count);
  }
  for (size_t s = 0; s < slabs; ++s) {
    const int shift = shifts[s], finer = rest_shift(shift);
    const size_t first = next[shift]++;
    out.codes[first] = static_cast<uint16_t>(s * kSpreadCodes);
    uint8_t* rest = nullptr;
    if (shift >= kSplit) {
      const size_t second = next[finer]++;
      out.codes[second] = out.codes[first];
      rest = out.entries[second];
    }
    round_table(values + s * kEntries, least[s], factors[shift], kMostEntry,
                static_cast<float>(1 << (shift - finer)), out.entries[first], rest);
  }
}

// room [least | size | times][four_count(slabs)][4].
void RoundToFours(const float* values, size_t slabs, float* room, uint8_t* entries, int8_t* factors,
                  float& unit, float& base, float& rest_base) {
  const hn::CappedTag<float, kFour> d;
  using V = hn::Vec<decltype(d)>;
  const size_t n = hn::Lanes(d), fours = four_count(slabs), padded = fours * kFour;
  const size_t singles = single_count(fours) * kFour;  // slabs that share no factor
  float *least = room, *size = least + padded, *times = size + padded;
  std::fill_n(room, 3 * padded, 0.0f);
  find_ranges(values, slabs, least, size);
  // fn(first slab, the least unit of a slab, or of two whose entries may both be rounded up), of
  // neighbouring factors.
  const auto for_factors = [&](const auto& fn) HWY_ATTR {
    for (size_t s = 0; s < singles; s += n) {
      fn(s, hn::Mul(hn::Load(d, size + s), hn::Set(d, 1.0f / 255.0f)));
    }
    for (size_t s = singles; s < padded; s += 2 * kFour) {
      for (size_t i = s; i < s + kFour; i += n) {
        const V both = hn::Add(hn::Load(d, size + i), hn::Load(d, size + i + kFour));
        fn(i, hn::Mul(both, hn::Set(d, 1.0f / 254.0f)));
      }
    }
  };
  constexpr float kMostFactor = 127.0f;
  V most = hn::Zero(d);
  const auto sum_of = [&](size_t begin, size_t end) HWY_ATTR {
    V sum = hn::Zero(d);
    for (size_t s = begin; s < end; s += n) sum = hn::Add(sum, hn::Load(d, least + s));
    return hn::GetLane(hn::SumOfLanes(d, sum));
  };
  for_factors([&](size_t, V step) HWY_ATTR { most = hn::Max(most, step); });
  base = sum_of(0, singles);
  rest_base = sum_of(singles, padded);
  unit = hn::GetLane(hn::MaxOfLanes(d, most)) / kMostFactor;
  const bool none = !(unit > 1e-37f);  // a subnormal's reciprocal may be infinite
  const V inverse = hn::Set(d, none ? 0.0f : 1.0f / unit), one = hn::Set(d, 1.0f);
  for_factors([&](size_t s, V step) HWY_ATTR {
    const V needed = hn::Ceil(hn::Mul(hn::Mul(step, inverse), hn::Set(d, 1.0f - 1e-6f)));
    const V factor = hn::Min(hn::Max(needed, one), hn::Set(d, kMostFactor));
    const hn::Rebind<int32_t, decltype(d)> ints;
    hn::StoreU(hn::DemoteTo(hn::Rebind<int8_t, decltype(d)>(), hn::ConvertTo(ints, factor)),
               hn::Rebind<int8_t, decltype(d)>(), factors);
    factors += n;
    const V of_entries = hn::Div(inverse, factor);
    hn::Store(of_entries, d, times + s);
    if (s >= singles) hn::Store(of_entries, d, times + s + kFour);
  });
  for (size_t s = 0; s < slabs; ++s, values += kEntries, entries += kEntries) {
    round_table(values, least[s], times[s], 255.0f, 0.0f, entries, nullptr);
  }
}

#if HWY_TARGET == HWY_SCALAR

void ScoreBytes(const ScoreTables& tables, Slabs which, const CodeBlocks& blocks,
                const size_t* heads, size_t count, View<float> scores) {
  reference::score_bytes(tables, which, blocks, {heads, count}, scores);
}

#else

// Bytes of which a 128-bit part is looked up at once.
using Bytes = hn::CappedTag<uint8_t, kHalf>;
using Words = hn::Repartition<uint16_t, Bytes>;
using ByteVec = hn::Vec<Bytes>;
using WordVec = hn::Vec<Words>;

// Codes of 64 tokens a slab, one in a byte, in their order.
HWY_INLINE void spread_codes(const uint8_t* codes, size_t slabs, uint8_t* spread) {
  const Bytes d8;
  const Words d16;
  const size_t n = hn::Lanes(d8);
  const ByteVec low_half = hn::Set(d8, 15);
  for (size_t s = 0; s < slabs; ++s, codes += kHalf, spread += kSpreadCodes) {
    for (size_t i = 0; i < kHalf; i += n) {
      const ByteVec both = hn::LoadU(d8, codes + i);
      const ByteVec upper = hn::BitCast(d8, hn::ShiftRight<4>(hn::BitCast(d16, both)));
      hn::StoreU(hn::And(both, low_half), d8, spread + i);
      hn::StoreU(hn::And(upper, low_half), d8, spread + kHalf + i);
    }
  }
}

// Of a vector of tokens: words of neighbours' sums, even + 256 * odd, and the odd part apart.
struct TokenSums {
  HWY_INLINE TokenSums() {}  // an implicit one lacks the target that GCC asks of NEON's vectors
  WordVec both, odd;

  HWY_INLINE void clear() { both = odd = hn::Zero(Words()); }
  HWY_INLINE void add(ByteVec bytes) {
    const WordVec words = hn::BitCast(Words(), bytes);
    both = hn::Add(both, words);
    odd = hn::Add(odd, hn::ShiftRight<8>(words));
  }
  HWY_INLINE void double_times(int times) {
    both = hn::ShiftLeftSame(both, times);
    odd = hn::ShiftLeftSame(odd, times);
  }
};

// Of kVectors vectors of tokens whose spread codes are at `spread`; the base and some more.
template <size_t kVectors>
HWY_INLINE void score_tokens(const ByteTables& tables, const uint8_t* spread, float more,
                             float* scores) {
  const Bytes d8;
  const size_t n = hn::Lanes(d8);
  TokenSums sums[kVectors];
  for (TokenSums& x : sums) x.clear();
  const auto scale_to = [&](int times) {
    if (times == 0) return;
    for (TokenSums& x : sums) x.double_times(times);
  };
  size_t i = 0;
  int scale = 0;
  for (int c = 0; c < static_cast<int>(ByteTables::kClasses); ++c) {
    const size_t end = tables.end[c];
    if (i == end) continue;
    scale_to(c - scale);
    scale = c;
    for (; i + 2 <= end; i += 2) {
      const ByteVec first = hn::LoadDup128(d8, tables.entries[i]);
      const ByteVec second = hn::LoadDup128(d8, tables.entries[i + 1]);
      const uint8_t* a = spread + tables.codes[i];
      const uint8_t* b = spread + tables.codes[i + 1];
      for (size_t v = 0; v < kVectors; ++v) {
        sums[v].add(hn::Add(hn::TableLookupBytes(first, hn::LoadU(d8, a + v * n)),
                            hn::TableLookupBytes(second, hn::LoadU(d8, b + v * n))));
      }
    }
    if (i < end) {
      const ByteVec table = hn::LoadDup128(d8, tables.entries[i]);
      const uint8_t* codes = spread + tables.codes[i++];
      for (size_t v = 0; v < kVectors; ++v) {
        sums[v].add(hn::TableLookupBytes(table, hn::LoadU(d8, codes + v * n)));
      }
    }
  }
  scale_to(static_cast<int>(ByteTables::kClasses) - 1 - scale);

  const Words d16;
  const hn::Repartition<float, Bytes> df;
  const hn::Repartition<int32_t, Bytes> d32;
  const hn::Rebind<uint16_t, decltype(df)> part;
  const auto unit = hn::Set(df, tables.unit), base = hn::Set(df, tables.base + more);
  HWY_ALIGN uint16_t words[kHalf];
  for (size_t v = 0; v < kVectors; ++v, scores += n) {
    const WordVec even = hn::Sub(sums[v].both, hn::ShiftLeft<8>(sums[v].odd));
    hn::StoreInterleaved2(even, sums[v].odd, d16, words);
    for (size_t t = 0; t < n; t += hn::Lanes(df)) {
      const auto sum = hn::ConvertTo(df, hn::PromoteTo(d32, hn::LoadU(part, words + t)));
      const auto before = hn::Add(base, hn::LoadU(df, scores + t));
      hn::StoreU(hn::MulAdd(sum, unit, before), df, scores + t);
    }
  }
}

// Codes of two blocks are spread once for all heads, whose tables are read once for both.
void ScoreBytes(const ScoreTables& tables, Slabs which, const CodeBlocks& blocks,
                const size_t* heads, size_t head_count, View<float> scores) {
  constexpr size_t kVectors = 4, kAtOnce = kVectors * hn::MaxLanes(Bytes());
  HWY_ALIGN uint8_t spread[kPartSlabs * kSpreadCodes];
  const size_t parts = part_count(tables.slabs);
  const auto [first_part, end_part] = parts_of(which, tables.slabs);
  const float sign = which == Slabs::leading ? 1.0f : -1.0f;
  Prefetcher ahead(blocks.ahead, head_count * ((blocks.count + kTogether - 1) / kTogether) *
                                     (end_part - first_part));
  for (size_t p = first_part; p < end_part; ++p) {
    const auto [first, end] = part_slabs(tables.slabs, p);
    for (size_t b = 0; b < blocks.count; b += kTogether) {
      const size_t count = HWY_MIN(kTogether, blocks.count - b);
      for (size_t i = 0; i < count; ++i) {
        spread_codes(blocks.data + (b + i) * blocks.stride + first * kHalf, end - first,
                     spread + i * kTokens);
      }
      for (size_t i = 0; i < head_count; ++i) {
        ahead.step();
        const size_t h = heads[i];
        const ByteTables& of_head = tables.bytes[h * parts + p];
        const float more = p == first_part ? sign * tables.expected[h] : 0.0f;
        float* to = scores.row(h).data() + b * kTokens;
        size_t t = 0;
        for (; t + kAtOnce <= count * kTokens; t += kAtOnce) {
          score_tokens<kVectors>(of_head, spread + t, more, to + t);
        }
        if (t < count * kTokens) score_tokens<kVectors / 2>(of_head, spread + t, more, to + t);
      }
    }
  }
}

#endif  // HWY_TARGET == HWY_SCALAR

}  // namespace HWY_NAMESPACE
}  // namespace mkv
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mkv {
HWY_EXPORT(RoundToFours);
HWY_EXPORT(RoundPart);
HWY_EXPORT(ScoreBytes);

void round_to_fours(const float* values, size_t head, const ScoreTables& to) {
  const size_t padded = four_count(to.slabs) * kFour;
  uint8_t* entries = to.entries + head * padded * kCodebookEntries;
  auto* factors = reinterpret_cast<int8_t*>(to.factors + head * factor_count(to.slabs));
  std::fill(entries + to.slabs * kCodebookEntries, entries + padded * kCodebookEntries, uint8_t{0});
  thread_local Buffer<float> room;
  room.resize(std::max(room.size(), 3 * padded));
  HWY_DYNAMIC_DISPATCH(RoundToFours)
  (values, to.slabs, room.data(), entries, factors, to.unit[head], to.base[head],
   to.rest_base[head]);
}
void round_to_bytes(const float* values, size_t slabs, ByteTables* parts) {
  for (size_t p = 0; p < part_count(slabs); ++p) {
    const auto [begin, end] = part_slabs(slabs, p);
    const float* of_part = values + begin * kCodebookEntries;
    HWY_DYNAMIC_DISPATCH(RoundPart)(of_part, end - begin, parts[p]);
  }
}
void score_bytes(const ScoreTables& tables, Slabs which, const CodeBlocks& blocks,
                 std::span<const size_t> heads, View<float> scores) {
  MKV_CHECK(scores.cols == blocks.count * kBlockTokens);
  HWY_DYNAMIC_DISPATCH(ScoreBytes)(tables, which, blocks, heads.data(), heads.size(), scores);
}
}  // namespace mkv
#endif  // HWY_ONCE
