#include "pilot/autopilot.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "eval/divergence.h"
#include "store/message.h"

namespace mkv {
namespace {

constexpr double kLeastSpread = 0.1;  // of ln s: requests that are all alike are no reason to alarm

Error invalid(const std::string& message) {
  return make_error(ErrorCode::invalid_argument, "autopilot: " + message);
}

Result<void> check(const std::vector<AutopilotLevel>& levels, const AutopilotOptions& options) {
  if (levels.empty()) return invalid("0 levels were given, 1 is the least");
  double least = 0;
  for (const AutopilotLevel& level : levels) {
    if (level.kl > least || (level.kl == least && least > 0)) {
      least = level.kl;
      continue;
    }
    return invalid("KL " + std::to_string(level.kl) + " at rung " + std::to_string(level.rung) +
                   ": expected more than 0, and no less than " + std::to_string(least));
  }
  if (!(options.tolerance > 0)) return invalid("the tolerance must be above 0");
  if (!(options.shadow_share > 0 && options.shadow_share <= 1)) {
    return invalid("share of requests " + std::to_string(options.shadow_share) +
                   ": expected more than 0, at most 1");
  }
  if (!(options.margin >= 0 && options.margin < 1)) {
    return invalid("margin " + std::to_string(options.margin) + ": expected 0 to 1");
  }
  if (options.window < 2 || options.reference < 2) {
    return invalid(concat("a window of ", options.window, " and a reference of ", options.reference,
                          " requests: 2 are the least"));
  }
  return {};
}

}  // namespace

Result<std::vector<AutopilotLevel>> autopilot_levels(const Nest& nest) {
  std::vector<RungMeasurement> measured = nest.measurements();
  std::ranges::sort(measured, {}, &RungMeasurement::rung);
  std::vector<AutopilotLevel> levels;
  for (const RungMeasurement& each : measured) {
    if (!(each.kl > (levels.empty() ? 0.0 : levels.back().kl))) continue;
    levels.push_back({each.rung, each.bits_per_value, each.kl});
  }
  if (levels.size() < 2) {
    return invalid(concat("the nest has ", levels.size(),
                          " measured sizes, 2 are the least: make it with --measure"));
  }
  return levels;
}

Result<Autopilot> Autopilot::create(std::vector<AutopilotLevel> levels,
                                    const AutopilotOptions& options) {
  MKV_TRY(check(levels, options));
  return Autopilot(std::move(levels), options);
}

Autopilot::Autopilot(std::vector<AutopilotLevel> levels, const AutopilotOptions& options)
    : levels_(std::move(levels)), options_(options), rng_(options.seed), level_(level_within(1)) {
  next_shadow_ = rng_.uniform() / options_.shadow_share;
}

bool Autopilot::wants_shadow() {
  ++requests_;
  const bool due = static_cast<double>(requests_) > next_shadow_;
  if (due) {
    next_shadow_ = (static_cast<double>(++stretches_) + rng_.uniform()) / options_.shadow_share;
  }
  return due || in_doubt();
}

size_t Autopilot::level_within(double factor) const {
  const double most = options_.tolerance * (1 - options_.margin);
  size_t level = 0;
  while (level + 1 < levels_.size() && factor * levels_[level + 1].kl <= most) ++level;
  return level;
}

// Student's quantile from the normal one; within 10 % from 2 degrees of freedom on.
Autopilot::Estimate Autopilot::estimate() const {
  Estimate out;
  if (factors_.empty()) return out;
  const Average factors = average(factors_);
  out.mean = factors.mean;
  if (factors_.size() < 2) return {out.mean, 2 * out.mean};
  const double freedom = static_cast<double>(factors_.size() - 1);
  out.upper = out.mean + options_.confident_errors * (1 + 1.2 / freedom) * factors.standard_error;
  return out;
}

double Autopilot::latest(size_t count) const {
  return average(std::span(factors_).last(std::min(count, factors_.size()))).mean;
}

void Autopilot::watch(double factor, AutopilotDecision& decision) {
  const double logarithm = std::log(std::max(factor, 1e-9));
  if (first_.size() < options_.reference) {
    first_.push_back(logarithm);
    return;
  }
  const Average first = average(first_);
  if (!beginning_) beginning_ = first.mean;
  const double spread = first.standard_error * std::sqrt(static_cast<double>(first_.size()));
  const double away = (logarithm - first.mean) / std::max(spread, kLeastSpread);
  // The reference is a sample too: what its mean may be off by is no drift.
  const double slack = options_.drift_slack +
                       options_.confident_errors / std::sqrt(static_cast<double>(first_.size()));
  high_ = std::max(0.0, high_ + away - slack);
  low_ = std::max(0.0, low_ - away - slack);
  high_run_ = high_ > 0 ? high_run_ + 1 : 0;
  low_run_ = low_ > 0 ? low_run_ + 1 : 0;
  if (high_run_ == 0) high_since_ = requests_;
  if (low_run_ == 0) low_since_ = requests_;
  decision.alert = high_ > options_.alert;
  if (std::max(high_, low_) <= options_.drift_alarm) return;
  // The change was where the sum last left 0.
  const bool worse = high_ > low_;
  const size_t since = std::min(worse ? high_run_ : low_run_, factors_.size());
  decision.drift_requests = requests_ - (worse ? high_since_ : low_since_);
  factors_.erase(factors_.begin(), factors_.end() - static_cast<std::ptrdiff_t>(since));
  std::vector<double> logarithms;
  for (const double each : factors_) logarithms.push_back(std::log(std::max(each, 1e-9)));
  decision.drift = true;
  decision.drift_factor = std::exp(average(logarithms).mean - *beginning_);
  decision.refit = decision.drift_factor >= options_.refit_factor;
  first_.clear();  // not those: they were picked by the alarm
  high_ = low_ = 0;
  high_run_ = low_run_ = 0;
  high_since_ = low_since_ = requests_;
  since_move_ = 0;
}

AutopilotMove Autopilot::move(const Estimate& now) {
  const size_t before = level_;
  double factor = factors_.size() >= 2 ? now.upper : 0;
  if (high_ > options_.alert) factor = std::max(factor, latest(high_run_));
  if (factor * levels_[level_].kl > options_.tolerance) {
    level_ = std::min(level_, level_within(factor));
  } else if (since_move_ >= options_.settle && high_ == 0 && level_within(now.upper) > level_) {
    ++level_;
  }
  if (level_ == before) return AutopilotMove::stay;
  since_move_ = 0;
  return level_ < before ? AutopilotMove::more_bits : AutopilotMove::fewer_bits;
}

AutopilotDecision Autopilot::observe(double kl) {
  AutopilotDecision decision;
  const double factor = std::max(kl, 0.0) / levels_[level_].kl;
  factors_.push_back(factor);
  if (factors_.size() > options_.window) factors_.erase(factors_.begin());
  ++since_move_;
  watch(factor, decision);
  const Estimate now = estimate();
  decision.move = move(now);
  decision.kl = now.mean * levels_[level_].kl;
  decision.kl_upper = now.upper * levels_[level_].kl;
  return decision;
}

}  // namespace mkv
