// Score tables as bytes.
//
// By four slabs, for processors that look up 64 bytes at once and add up products of four
// neighbours (decision 0031): what codes of four slabs add to a score is rounded to bytes, each in
// a unit of its slab's own, a factor of 1 to 127 times the head's. The leading fours, which have
// most of the range, have 8 bits; the others go by twos, whose sums are bytes and have one factor.
//
// Slab by slab, for processors that look up 16 (decision 0024): rounded to 7 bits in a unit that is
// a power of two times the head's. Two look-ups' sum is a byte, and sums of coarse tables are
// doubled before those of finer ones are added to them. A table for which 7 bits are too few
// becomes two, its high bits and the rest.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/view.h"
#include "nest/code_tables.h"
#include "nest/nest.h"

namespace mkv {

inline constexpr size_t kFour = 4;
inline constexpr size_t four_count(size_t slabs) { return (slabs + kFour - 1) / kFour; }
// Fours by themselves: a quarter of them, and one more if the others were odd; both of two.
inline constexpr size_t single_count(size_t fours) {
  return fours == 2 ? 2 : fours / 4 + (fours - fours / 4) % 2;
}
// Fours by themselves and twos.
inline constexpr size_t factor_count(size_t slabs) {
  const size_t fours = four_count(slabs), singles = single_count(fours);
  return singles + (fours - singles) / 2;
}

// Slabs whose scores come first: the fours by themselves. The others are left to what is expected
// of them where that is enough (decision 0035).
inline constexpr size_t leading_slabs(size_t slabs) {
  return std::min(slabs, single_count(four_count(slabs)) * kFour);
}

// Slabs are worked on by parts of so many at most, whose codes stay in the first cache: some of the
// leading ones, then some of the rest.
inline constexpr size_t kPartSlabs = 128;
struct SlabRange {
  size_t begin = 0, end = 0;
};
inline constexpr size_t parts_for(size_t slabs) { return (slabs + kPartSlabs - 1) / kPartSlabs; }
inline constexpr size_t part_count(size_t slabs) {
  const size_t leading = leading_slabs(slabs);
  return parts_for(leading) + parts_for(slabs - leading);
}
// The parts of some slabs.
inline constexpr SlabRange parts_of(Slabs which, size_t slabs) {
  const size_t leading = parts_for(leading_slabs(slabs));
  return which == Slabs::leading ? SlabRange{0, leading} : SlabRange{leading, part_count(slabs)};
}
inline constexpr SlabRange part_slabs(size_t slabs, size_t part) {
  const size_t leading = leading_slabs(slabs), parts = parts_for(leading);
  const bool is_leading = part < parts;
  const size_t begin = is_leading ? part * kPartSlabs : leading + (part - parts) * kPartSlabs;
  return {begin, std::min(is_leading ? leading : slabs, begin + kPartSlabs)};
}

// Rounds the tables of slabs, values [slabs][16], to those of `head`.
void round_to_fours(const float* values, size_t head, const ScoreTables& to);

// Codes of a slab, one in a byte, of two blocks.
inline constexpr size_t kSpreadCodes = 128;

// A head's tables of a part's slabs. What they add to a score is base + unit * the sum over its
// look-ups of 2^(kClasses - 1 - class) * entry.
struct ByteTables {
  static constexpr size_t kMost = 2 * kPartSlabs, kClasses = 10;
  float unit = 0.0f, base = 0.0f;
  uint16_t end[kClasses] = {};  // of each class's look-ups, from the coarsest class on
  // Where the codes of each look-up's slab are: kSpreadCodes times its index in the part.
  uint16_t codes[kMost] = {};
  alignas(kCodebookEntries) uint8_t entries[kMost][kCodebookEntries] = {};  // at most 127
};

// Rounds the tables of slabs, values [slabs][16], to parts [part_count(slabs)].
void round_to_bytes(const float* values, size_t slabs, ByteTables* parts);

// As score_slabs (nest/slab_kernels.h), by tables.bytes.
void score_bytes(const ScoreTables& tables, Slabs which, const CodeBlocks& blocks,
                 std::span<const size_t> heads, View<float> scores);

}  // namespace mkv
