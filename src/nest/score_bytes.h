// Score tables as bytes.
//
// By eight slabs, for processors that look up 64 bytes at once and add up products of four
// neighbours (decision 0031): what a code adds to a score is rounded to 7 bits, so that two
// look-ups' sum is a byte, in a unit that two slabs share, a factor of 1 to 127 times the head's.
//
// Slab by slab, for processors that look up 16 (decision 0024): rounded to 7 bits in a unit that is
// a power of two times the head's. Two look-ups' sum is a byte, and sums of coarse tables are
// doubled before those of finer ones are added to them. A table for which 7 bits are too few
// becomes two, its high bits and the rest.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/view.h"
#include "nest/code_tables.h"
#include "nest/nest.h"

namespace mkv {

// Slabs are worked on by parts of so many, whose codes stay in the first cache.
inline constexpr size_t kPartSlabs = 128;
inline constexpr size_t part_count(size_t slabs) { return (slabs + kPartSlabs - 1) / kPartSlabs; }

inline constexpr size_t kEight = 8;
inline constexpr size_t eight_count(size_t slabs) { return (slabs + kEight - 1) / kEight; }

// Rounds the tables of slabs, values [slabs][16], to those of `head`.
void round_to_eights(const float* values, size_t head, const ScoreTables& to);

// Codes of a slab, one in a byte, of two blocks.
inline constexpr size_t kSpreadCodes = 128;

// A head's tables of a part's slabs. A token's score is base + unit * the sum over its look-ups of
// 2^(kClasses - 1 - class) * entry.
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

// scores[h][t] += the scores of tables [heads][part_count(slabs)], scores [heads x count * 64].
void score_bytes(const ByteTables* tables, size_t slabs, const CodeBlocks& blocks,
                 View<float> scores);

}  // namespace mkv
