// Ladders from predicted gains: which slab of which space the next bits are best spent on.
#pragma once

#include <span>
#include <vector>

#include "base/result.h"
#include "nest/nest.h"

namespace mkv {

// gains[space][slab]: how much the slab, on top of those before it, lowers the loss.
// costs[space]: what its slabs cost, e.g. the tokens for which the layer holds them; by proportion.
struct SlabWorth {
  std::span<const std::vector<double>> gains;
  std::span<const double> costs;
};

// Trims the nest's slab lists to the best that `most_bits` a value pay for and sets the ladder that
// gives up the least gain for its cost first. A slab is never kept without those before it: gains
// count as non-increasing.
Result<void> keep_best_slabs(const SlabWorth& worth, double most_bits, Nest& nest);

// The ladder alone, for gains of exactly the nest's slabs.
Ladder ladder_from_gains(const SlabWorth& worth);

}  // namespace mkv
