#include "fit/code_ladder.h"

#include <algorithm>

namespace mkv {
namespace {

struct Step {
  double gain = 0;
  uint32_t space = 0;
  size_t slab = 0;
};

// All slabs, the most gain first; within a space in their order.
std::vector<Step> best_first(std::span<const std::vector<double>> gains) {
  std::vector<Step> steps;
  for (size_t space = 0; space < gains.size(); ++space) {
    double least = gains[space].empty() ? 0.0 : gains[space][0];
    for (size_t slab = 0; slab < gains[space].size(); ++slab) {
      least = std::min(least, gains[space][slab]);
      steps.push_back({least, static_cast<uint32_t>(space), slab});
    }
  }
  std::ranges::stable_sort(steps, [](const Step& a, const Step& b) {
    return a.gain != b.gain ? a.gain > b.gain : a.slab < b.slab;
  });
  return steps;
}

}  // namespace

Ladder ladder_from_gains(std::span<const std::vector<double>> gains) {
  const std::vector<Step> steps = best_first(gains);
  Ladder ladder;
  for (auto step = steps.rbegin(); step != steps.rend(); ++step) ladder.cuts.push_back(step->space);
  return ladder;
}

Result<void> keep_best_slabs(std::span<const std::vector<double>> gains, double most_bits,
                             Nest& nest) {
  const std::vector<Step> steps = best_first(gains);
  const auto budget =
      static_cast<size_t>(most_bits * static_cast<double>(nest.config().shape.values_per_token()) /
                          static_cast<double>(nest.slab_bits()));
  std::vector<std::vector<double>> kept(gains.size());
  for (size_t i = 0; i < std::min(budget, steps.size()); ++i) {
    kept[steps[i].space].push_back(steps[i].gain);
  }
  for (size_t space = 0; space < kept.size(); ++space) {
    nest.basis(nest.unflat(space)).slabs.resize(kept[space].size());
  }
  return nest.set_ladder(ladder_from_gains(kept));
}

}  // namespace mkv
