#include "train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/rng.h"

namespace mkv {
namespace {

// Of the weights of `automatic`: no budget is drawn less than this often, relative to equal shares.
constexpr double kLeastShare = 0.25;

// Of `scattered`: how far a space's share of its slabs may be from the rung's.
constexpr double kScatter = 0.25;

// Each space by itself, within kScatter of what `ranks` keeps of it and not below the floor.
Ranks scatter(const Nest& nest, double floor, Ranks ranks, Rng& rng) {
  const size_t step = nest.ladder().step;
  const Ranks full = nest.full_ranks();
  for (size_t s = 0; s < ranks.size(); ++s) {
    const double all = static_cast<double>(full[s]) / static_cast<double>(step);
    const double share = ranks[s] / static_cast<double>(step) / all;
    const auto least = static_cast<size_t>(std::ceil(std::max(floor, share - kScatter) * all));
    const auto most = static_cast<size_t>(std::min(1.0, share + kScatter) * all);
    ranks[s] = static_cast<uint16_t>(step * (least + rng.below(std::max(least, most) - least + 1)));
  }
  return ranks;
}

Ranks independent_ranks(const Nest& nest, double floor, Rng& rng) {
  const size_t step = nest.ladder().step;
  Ranks ranks = nest.full_ranks();
  for (uint16_t& rank : ranks) {
    const size_t most = rank / step;
    const auto least = static_cast<size_t>(std::ceil(floor * static_cast<double>(most)));
    rank = static_cast<uint16_t>(step * (least + rng.below(most - least + 1)));
  }
  return ranks;
}

}  // namespace

PrefixSampler::PrefixSampler(const Nest& nest, const ScheduleOptions& options,
                             std::vector<size_t> budgets, size_t steps)
    : nest_(&nest),
      options_(options),
      budgets_(std::move(budgets)),
      steps_(steps),
      weights_(budgets_.size(),
               budgets_.empty() ? 0.0 : 1.0 / static_cast<double>(budgets_.size())) {
  floor_rung_ = std::min(rung_at(options.floor), nest.ladder().rungs() - 1);
}

size_t PrefixSampler::rung_at(double share) const {
  const Ranks full = nest_->full_ranks();
  const double total = static_cast<double>(std::accumulate(full.begin(), full.end(), size_t{0}));
  const double cuts = (1.0 - share) * total / static_cast<double>(nest_->ladder().step);
  return static_cast<size_t>(std::max(0.0, std::ceil(cuts - 1e-9)));
}

Result<PrefixSampler> PrefixSampler::create(const Nest& nest, const ScheduleOptions& options,
                                            std::vector<size_t> budgets, size_t steps) {
  const auto invalid = [](const std::string& message) {
    return make_error(ErrorCode::invalid_argument, "schedule: " + message);
  };
  if (!(options.floor > 0.0 && options.floor < 1.0)) {
    return invalid("a floor of " + std::to_string(options.floor) + ", expected between 0 and 1");
  }
  if (nest.ladder().rungs() < 2) return invalid("the nest's ladder has no cut");
  if (options.schedule == PrefixSchedule::automatic && budgets.empty()) {
    return invalid("automatic follows held-out budgets, and there are none");
  }
  PrefixSampler sampler(nest, options, std::move(budgets), steps);
  if (sampler.floor_rung_ == 0) {
    return invalid("no rung of the nest's ladder between full size and a floor of " +
                   std::to_string(options.floor));
  }
  return sampler;
}

Ranks PrefixSampler::sample(size_t step, size_t window) const {
  Rng rng(options_.seed * 0x2545f4914f6cdd1du + step * 4099 + window);
  const auto along_ladder = [&](size_t deepest) {
    return nest_->ranks_at(1 + rng.below(std::max<size_t>(1, deepest)));
  };
  switch (options_.schedule) {
    case PrefixSchedule::independent:
      return independent_ranks(*nest_, options_.floor, rng);
    case PrefixSchedule::sandwich: {
      const size_t turn = (step + window) % 3;
      if (turn == 0) return nest_->ranks_at(floor_rung_);
      if (turn == 1) return nest_->ranks_at(std::min(floor_rung_, nest_->spaces()));
      return independent_ranks(*nest_, options_.floor, rng);
    }
    case PrefixSchedule::ladder:
      return along_ladder(floor_rung_);
    case PrefixSchedule::curriculum: {
      const double done = static_cast<double>(step) / (0.5 * static_cast<double>(steps_) + 1.0);
      return along_ladder(static_cast<size_t>(
          std::ceil(std::min(1.0, done + 0.05) * static_cast<double>(floor_rung_))));
    }
    case PrefixSchedule::scattered: {
      Ranks ranks = along_ladder(floor_rung_);
      const bool together = (step + window) % 2 == 0;
      return together ? ranks : scatter(*nest_, options_.floor, std::move(ranks), rng);
    }
    case PrefixSchedule::automatic: {
      double left = rng.uniform();
      size_t i = 0;
      while (i + 1 < weights_.size() && (left -= weights_[i]) >= 0.0) ++i;
      // Half a neighbour's distance to either side, so that no size between budgets is left out.
      const size_t width = std::max<size_t>(1, floor_rung_ / (2 * budgets_.size()));
      const size_t low = budgets_[i] > width ? budgets_[i] - width : 1;
      return nest_->ranks_at(std::min(nest_->ladder().rungs() - 1, low + rng.below(2 * width + 1)));
    }
  }
  return nest_->ranks_at(floor_rung_);
}

void PrefixSampler::observe(std::span<const double> kl) {
  MKV_CHECK(kl.size() == budgets_.size());
  if (!last_.empty()) {
    // Weight by the relative fall since the last look.
    double sum = 0.0;
    for (size_t i = 0; i < kl.size(); ++i) {
      weights_[i] = last_[i] > 0.0 ? std::max(0.0, 1.0 - kl[i] / last_[i]) : 0.0;
      sum += weights_[i];
    }
    const double equal = 1.0 / static_cast<double>(kl.size());
    for (double& w : weights_) {
      w = kLeastShare * equal + (1.0 - kLeastShare) * (sum > 0.0 ? w / sum : equal);
    }
  }
  last_.assign(kl.begin(), kl.end());
}

void PrefixSampler::restore(std::vector<double> weights, std::vector<double> last) {
  MKV_CHECK(weights.size() == budgets_.size());
  MKV_CHECK(last.empty() || last.size() == budgets_.size());
  weights_ = std::move(weights);
  last_ = std::move(last);
}

}  // namespace mkv
