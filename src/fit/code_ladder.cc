#include "fit/code_ladder.h"

#include <algorithm>

#include "base/check.h"

namespace mkv {
namespace {

struct Step {
  double gain = 0;  // for its cost
  uint32_t space = 0;
  size_t slab = 0;
};

// All slabs, the most gain for their cost first; within a space in their order.
std::vector<Step> best_first(const SlabWorth& worth) {
  const auto& [gains, costs] = worth;
  MKV_CHECK(gains.size() == costs.size());
  std::vector<Step> steps;
  for (size_t space = 0; space < gains.size(); ++space) {
    double least = gains[space].empty() ? 0.0 : gains[space][0];
    for (size_t slab = 0; slab < gains[space].size(); ++slab) {
      least = std::min(least, gains[space][slab]);
      steps.push_back({least / costs[space], static_cast<uint32_t>(space), slab});
    }
  }
  std::ranges::stable_sort(steps, [](const Step& a, const Step& b) {
    return a.gain != b.gain ? a.gain > b.gain : a.slab < b.slab;
  });
  return steps;
}

}  // namespace

Ladder ladder_from_gains(const SlabWorth& worth) {
  const std::vector<Step> steps = best_first(worth);
  Ladder ladder;
  for (auto step = steps.rbegin(); step != steps.rend(); ++step) ladder.cuts.push_back(step->space);
  return ladder;
}

Result<void> keep_best_slabs(const SlabWorth& worth, double most_bits, Nest& nest) {
  const std::vector<Step> steps = best_first(worth);
  const auto budget =
      static_cast<size_t>(most_bits * static_cast<double>(nest.config().shape.values_per_token()) /
                          static_cast<double>(nest.slab_bits()));
  std::vector<std::vector<double>> kept(worth.gains.size());
  for (size_t i = 0; i < std::min(budget, steps.size()); ++i) {
    kept[steps[i].space].push_back(steps[i].gain);
  }
  for (size_t space = 0; space < kept.size(); ++space) {
    nest.basis(nest.unflat(space)).slabs.resize(kept[space].size());
  }
  const std::vector<double> alike(kept.size(), 1.0);  // kept are gains for their cost already
  return nest.set_ladder(ladder_from_gains({kept, alike}));
}

}  // namespace mkv
