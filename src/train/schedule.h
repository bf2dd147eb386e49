// Which prefix of every latent space a training window sees (arXiv:2410.14731 §3.2: each layer,
// head and side draws its own). A nest works at a size only if it was trained near it, so how sizes
// are drawn is a choice with consequences; all of them are here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "nest/nest.h"

namespace mkv {

enum class PrefixSchedule : uint8_t {
  independent,  // the paper's: every space uniform, by itself
  sandwich,     // by turns: the smallest, the largest below full, independent ones
  ladder,       // a rung of the nest's ladder, uniform: all spaces shrink together
  curriculum,   // ladder, whose smallest size falls from full to the floor over the first half
  automatic,    // one of the held-out budgets, more often the more its divergence still falls
  scattered,    // by turns: ladder, and every space by itself in a band around a ladder's rung
};

struct ScheduleOptions {
  PrefixSchedule schedule = PrefixSchedule::ladder;
  double floor = 0.2;  // smallest share of the slabs, in (0, 1)
  uint64_t seed = 0;
};

// Draws depend on the seed, the step, the window and what observe() was told, on nothing else.
class PrefixSampler {
 public:
  // `budgets`: those that observe() reports, as rungs of the nest's ladder. `steps`: of the run.
  // The nest outlives the sampler. Errors: a floor out of range, no rung between it and full size.
  static Result<PrefixSampler> create(const Nest& nest, const ScheduleOptions& options,
                                      std::vector<size_t> budgets, size_t steps);

  // Slabs kept of every space, for one window of a step; never all of all spaces.
  Ranks sample(size_t step, size_t window) const;

  // Divergences on held-out text, by budget. Moves the weights of `automatic`.
  void observe(std::span<const double> kl);
  const std::vector<double>& weights() const { return weights_; }  // of the budgets; sum 1
  std::span<const double> last_seen() const { return last_; }
  // Continues where another sampler of the same options was.
  void restore(std::vector<double> weights, std::vector<double> last);

 private:
  PrefixSampler(const Nest& nest, const ScheduleOptions& options, std::vector<size_t> budgets,
                size_t steps);
  size_t rung_at(double share) const;  // first rung that keeps at most this share of the slabs

  const Nest* nest_;
  ScheduleOptions options_;
  std::vector<size_t> budgets_;  // rungs
  size_t steps_;
  size_t floor_rung_ = 0;
  std::vector<double> weights_, last_;
};

}  // namespace mkv
