// Autopilot: keeps the mean KL divergence of what is served within a tolerance, by moving along the
// ladder. A share of the requests is shadowed: computed with the exact cache as well, which gives
// their KL. It only decides; who serves measures and cuts caches.
//
// The estimate. When the nest was made its KL at each level was measured: K_l. A shadowed request
// at level l with KL x says how much worse than that text this one is: s = x / K_l. Such factors
// can be averaged across moves, and s K_m foretells the KL at a level m that was not tried. Moves
// look at the upper end of a confidence interval of the mean s.
//
// Drift. The logarithm of s is watched by a two-sided cumulative sum (Page 1954) against the mean
// and spread of its first values. An alarm forgets what was seen before the change, and new first
// values are taken.
//
// Doubt. While the sum says that text may have got worse, or few values are known, every request is
// shadowed; and long before an alarm it moves to what the latest values alone ask for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "base/result.h"
#include "base/rng.h"
#include "nest/nest.h"

namespace mkv {

// A place on the ladder, and what it cost when the nest was made.
struct AutopilotLevel {
  size_t rung = 0;
  double bits_per_value = 0;
  double kl = 0;  // nats a token
};

// The nest's measurements from the largest size down, as far as KL grows. Errors: fewer than two.
Result<std::vector<AutopilotLevel>> autopilot_levels(const Nest& nest);

struct AutopilotOptions {
  double tolerance = 0.01;          // most mean KL, nats a token
  double shadow_share = 0.2;        // of the requests
  double confident_errors = 1.645;  // standard errors up to the upper end: 95 %, one-sided
  double margin = 0.15;   // moves go to where the upper end is this share below the tolerance, so
                          // that the next request does not undo them
  size_t window = 40;     // shadowed requests that the mean looks back on, at most
  size_t settle = 6;      // shadowed requests from a move or an alarm to a move to fewer bits
  size_t reference = 20;  // shadowed requests that drift is held against
  double drift_slack = 0.75;  // in standard deviations: smaller changes are no drift
  double alert = 3;           // height of the cumulative sum from which moves look at the values
                              // since it left 0 alone
  double drift_alarm = 8;     // height of the cumulative sum, in the same unit
  double refit_factor = 1.5;  // texts this much worse than in the very beginning: a refit is due
  uint64_t seed = 1;
};

enum class AutopilotMove : uint8_t { stay, more_bits, fewer_bits };

// What a shadowed request led to.
struct AutopilotDecision {
  AutopilotMove move = AutopilotMove::stay;
  bool alert = false;           // the latest values are unlike the ones before, worse
  bool drift = false;           // an alarm
  size_t drift_requests = 0;    // ... since the text changed, this one included, shadowed or not
  double drift_factor = 1;      // at an alarm: KL of texts now against those in the beginning
  bool refit = false;           // ... and a nest of such texts is recommended
  double kl = 0, kl_upper = 0;  // estimates at the level of the next request
};

// Belongs to one thread. The same options and observations give the same decisions.
class Autopilot {
 public:
  // Begins at the smallest size that the nest's own measurements allow within the margin, else the
  // largest. Errors: no levels, KL that is not positive or falls, an option out of range.
  static Result<Autopilot> create(std::vector<AutopilotLevel> levels,
                                  const AutopilotOptions& options);

  // One with the same options that begins anew with other levels: those of another nest.
  Result<Autopilot> with_levels(std::vector<AutopilotLevel> levels) const {
    return create(std::move(levels), options_);
  }

  // Asked once a request: whether to shadow it. One of each stretch of 1 / shadow_share requests at
  // a random place, and all while in doubt.
  bool wants_shadow();
  // The mean KL of a shadowed request that was served at level().
  AutopilotDecision observe(double kl);

  const AutopilotLevel& level() const { return levels_[level_]; }
  const std::vector<AutopilotLevel>& levels() const { return levels_; }

 private:
  struct Estimate {
    double mean = 1, upper = 1;  // of s
  };

  Autopilot(std::vector<AutopilotLevel> levels, const AutopilotOptions& options);
  Estimate estimate() const;
  bool in_doubt() const { return high_ > 0 || factors_.size() < options_.settle; }
  // Mean of the last `count` factors.
  double latest(size_t count) const;
  // The smallest size with factor * K_l within the margin of the tolerance; else the largest.
  size_t level_within(double factor) const;
  void watch(double factor, AutopilotDecision& decision);
  AutopilotMove move(const Estimate& now);

  std::vector<AutopilotLevel> levels_;
  AutopilotOptions options_;
  Rng rng_;
  size_t requests_ = 0;     // asked about
  size_t stretches_ = 0;    // of 1 / shadow_share requests
  double next_shadow_ = 0;  // requests from the beginning
  size_t level_ = 0;
  size_t since_move_ = 0;                  // shadowed requests
  std::vector<double> factors_;            // the latest s, at most options_.window
  std::vector<double> first_;              // ln s of the reference
  std::optional<double> beginning_;        // mean of the first of all references
  double high_ = 0, low_ = 0;              // cumulative sums
  size_t high_run_ = 0, low_run_ = 0;      // shadowed requests since each was 0
  size_t high_since_ = 0, low_since_ = 0;  // requests_ when each was 0 for the last time
};

}  // namespace mkv
