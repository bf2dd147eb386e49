#include <hwy/base.h>

#include <algorithm>

#include "base/check.h"
#include "base/prefetch.h"
#include "nest/avx512.h"
#include "nest/kv_cache.h"
#include "nest/score_bytes.h"
#include "ops/instruction_set.h"

#if HWY_ARCH_X86_64
// GCC 12 takes what its own header leaves undefined on purpose for a mistake (its bug 105593).
#if HWY_COMPILER_GCC && !HWY_COMPILER_CLANG
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

HWY_PUSH_ATTRIBUTES("avx,avx2,fma,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")
#include "nest/avx512-inl.h"
namespace mkv::avx512 {
namespace {

constexpr size_t kLine = 64, kHalf = 32, kLanes = 16;
static_assert(kFour * kCodebookEntries == kLine);
// Of 64 tokens and four slabs: registers of 16 tokens, whose bytes are the codes' places in a
// table.
constexpr size_t kParts = kBlockTokens / kLanes, kSpread = kParts * kLine;
constexpr size_t kPartFours = kPartSlabs / kFour;  // whose places stay in the first cache

// Of bytes [first slab | second], then [third | fourth], of 32 tokens each: those of 16 tokens from
// `token` on, four slabs' together.
HWY_INLINE __m512i order_from(size_t token) {
  alignas(kLine) uint8_t order[kLine];
  for (size_t i = 0; i < kLine; ++i) {
    order[i] = static_cast<uint8_t>(i % kFour * kHalf + token + i / kFour);
  }
  return _mm512_load_si512(order);
}

HWY_INLINE __m512i load_bytes(const uint8_t* from, size_t count) {
  const uint64_t kept = count >= kLine ? ~uint64_t{0} : (uint64_t{1} << count) - 1;
  return _mm512_maskz_loadu_epi8(kept, from);
}

// Places of the codes of `slabs` slabs [slab][32] of a block: out [four][kSpread].
HWY_INLINE void spread_codes(const uint8_t* codes, size_t slabs, uint8_t* out) {
  const __m512i order[2] = {order_from(0), order_from(kLanes)};
  const __m512i code = _mm512_set1_epi8(kCodebookEntries - 1);
  const __m512i slab = _mm512_set1_epi32(0x30201000);  // where the table of each begins
  const auto spread = [&](__m512i low, __m512i high) {
    constexpr int kAndOr = 0xea;  // (a & b) | c
    for (size_t i = 0; i < 2; ++i) {
      const __m512i both = _mm512_permutex2var_epi8(low, order[i], high);
      const __m512i upper = _mm512_srli_epi16(both, 4);
      _mm512_store_si512(out + i * kLine, _mm512_ternarylogic_epi32(both, code, slab, kAndOr));
      _mm512_store_si512(out + (i + 2) * kLine,
                         _mm512_ternarylogic_epi32(upper, code, slab, kAndOr));
    }
    codes += 2 * kLine;
    out += kSpread;
  };
  size_t first = 0;
  for (; first + kFour <= slabs; first += kFour) {
    spread(_mm512_loadu_si512(codes), _mm512_loadu_si512(codes + kLine));
  }
  if (first < slabs) {
    const size_t bytes = (slabs - first) * kHalf;
    spread(load_bytes(codes, bytes), load_bytes(codes + kLine, std::max(bytes, kLine) - kLine));
  }
}

// What is worked on at once: some fours by themselves, then some twos, whose entries and factors
// follow each other from the first ones on.
struct Part {
  size_t first_four = 0, first_factor = 0;
  size_t singles = 0, twos = 0;
  bool first = false;  // of the leading slabs, or of the rest

  float base(const ScoreTables& tables, size_t head) const {
    return first_four == 0 ? tables.base[head] + tables.expected[head]
                           : tables.rest_base[head] - tables.expected[head];
  }
};

// Adds the scores of kHeads heads, and their bases with the first part, of a block whose spread
// codes of the part are at `spread`.
template <size_t kHeads>
HWY_INLINE void score_tile(const ScoreTables& tables, const uint8_t* spread, const Part& of,
                           const size_t* heads, Prefetcher& ahead, View<float> scores) {
  const size_t fours = four_count(tables.slabs), all_factors = factor_count(tables.slabs);
  const uint8_t* entries = tables.entries + of.first_four * kLine;
  const int32_t* factors = tables.factors + of.first_factor;
  size_t first_entry[kHeads], first_factor[kHeads];
  unrolled<kHeads>(MKV_UNROLLED(h) {
    first_entry[h] = heads[h] * fours * kLine;
    first_factor[h] = heads[h] * all_factors;
  });
  constexpr size_t kAll = kParts * kHeads;
  __m512i sums[kAll];  // [part of the tokens][head]
  unrolled<kAll>(MKV_UNROLLED(i) { sums[i] = _mm512_setzero_si512(); });
  for (size_t n = 0; n < of.singles; ++n, spread += kSpread, entries += kLine, ++factors) {
    ahead.step();
    __m512i table[kHeads], factor[kHeads];
    unrolled<kHeads>(MKV_UNROLLED(h) {
      table[h] = _mm512_loadu_si512(entries + first_entry[h]);
      factor[h] = _mm512_set1_epi32(factors[first_factor[h]]);
    });
    unrolled<kParts>(MKV_UNROLLED(part) {
      __m512i places = _mm512_load_si512(spread + part * kLine);
      keep_in_register(places);
      unrolled<kHeads>(MKV_UNROLLED(h) {
        add_byte_products(sums[part * kHeads + h], _mm512_permutexvar_epi8(places, table[h]),
                          factor[h]);
      });
    });
  }
  for (size_t n = 0; n < of.twos; ++n, spread += 2 * kSpread, entries += 2 * kLine, ++factors) {
    ahead.step();
    __m512i first_table[kHeads], second_table[kHeads], factor[kHeads];
    unrolled<kHeads>(MKV_UNROLLED(h) {
      first_table[h] = _mm512_loadu_si512(entries + first_entry[h]);
      second_table[h] = _mm512_loadu_si512(entries + first_entry[h] + kLine);
      factor[h] = _mm512_set1_epi32(factors[first_factor[h]]);
    });
    unrolled<kParts>(MKV_UNROLLED(part) {
      __m512i first = _mm512_load_si512(spread + part * kLine);
      __m512i second = _mm512_load_si512(spread + kSpread + part * kLine);
      keep_in_register(first);
      keep_in_register(second);
      unrolled<kHeads>(MKV_UNROLLED(h) {
        const __m512i both = _mm512_add_epi8(_mm512_permutexvar_epi8(first, first_table[h]),
                                             _mm512_permutexvar_epi8(second, second_table[h]));
        add_byte_products(sums[part * kHeads + h], both, factor[h]);
      });
    });
  }
  unrolled<kAll>(MKV_UNROLLED(i) {
    const size_t h = heads[i % kHeads];
    const __m512 unit = _mm512_set1_ps(tables.unit[h]);
    const __m512 base = _mm512_set1_ps(of.first ? of.base(tables, h) : 0.0f);
    float* to = scores.row(h).data() + i / kHeads * kLanes;
    const __m512 before = _mm512_add_ps(base, _mm512_loadu_ps(to));
    _mm512_storeu_ps(to, _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[i]), unit, before));
  });
}

// The leading of some heads in tiles of kHeads; returns those left over.
template <size_t kHeads>
HWY_INLINE std::span<const size_t> score_tiles(const ScoreTables& tables, const uint8_t* spread,
                                               const Part& of, std::span<const size_t> heads,
                                               Prefetcher& ahead, View<float> scores) {
  for (; heads.size() >= kHeads; heads = heads.subspan(kHeads)) {
    score_tile<kHeads>(tables, spread, of, heads.data(), ahead, scores);
  }
  return heads;
}

// The part from a four on, of those before `end`; twos stay together.
Part part_from(size_t four, size_t end, size_t slabs) {
  const size_t singles = single_count(four_count(slabs));
  Part part{.first_four = four, .first_factor = four};
  const size_t most = std::min(kPartFours, end - four);
  if (four > singles) part.first_factor = singles + (four - singles) / 2;
  part.singles = std::min(most, std::max(singles, four) - four);
  part.twos = (most - part.singles) / 2;
  return part;
}

}  // namespace

bool scores_fours() { return has_vnni() && __builtin_cpu_supports("avx512vbmi") != 0; }

void score_slabs(const ScoreTables& tables, Slabs which, const CodeBlocks& blocks,
                 std::span<const size_t> heads, View<float> scores) {
  alignas(kLine) uint8_t spread[kPartFours * kSpread];
  const size_t fours = four_count(tables.slabs), singles = single_count(fours);
  const bool leading = which == Slabs::leading;
  const size_t factors = leading ? singles : (fours - singles) / 2, end = leading ? singles : fours;
  const size_t tiles = heads.size() / 3 + (heads.size() % 3 == 0 ? 0 : 1);
  Prefetcher ahead(blocks.ahead, factors * blocks.count * tiles);
  for (size_t first = leading ? 0 : singles; first < end;) {
    Part part = part_from(first, end, tables.slabs);
    part.first = first == (leading ? 0 : singles);
    const size_t next = first + part.singles + 2 * part.twos;
    const size_t slabs = std::min(next * kFour, tables.slabs) - first * kFour;
    for (size_t b = 0; b < blocks.count; ++b) {
      spread_codes(blocks.data + b * blocks.stride + first * kFour * kHalf, slabs, spread);
      const View<float> of_block(scores.data + b * kBlockTokens, scores.rows, kBlockTokens,
                                 scores.stride);
      auto rest = score_tiles<3>(tables, spread, part, heads, ahead, of_block);
      rest = score_tiles<2>(tables, spread, part, rest, ahead, of_block);
      score_tiles<1>(tables, spread, part, rest, ahead, of_block);
    }
    first = next;
  }
}

}  // namespace mkv::avx512
HWY_POP_ATTRIBUTES

#else

namespace mkv::avx512 {
bool scores_fours() { return false; }
void score_slabs(const ScoreTables&, Slabs, const CodeBlocks&, std::span<const size_t>,
                 View<float>) {
  MKV_CHECK(false);
}
}  // namespace mkv::avx512

#endif
