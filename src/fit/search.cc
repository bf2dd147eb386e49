#include "fit/search.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>

#include "base/stopwatch.h"
#include "fit/search_state.h"

namespace mkv {
namespace {

size_t sum(const Ranks& ranks) { return std::accumulate(ranks.begin(), ranks.end(), size_t{0}); }

class LadderSearch {
 public:
  LadderSearch(const Nest& nest, CutEvaluator& evaluator, const SearchOptions& options,
               SearchIdentity identity, SearchState state)
      : nest_(nest),
        evaluator_(evaluator),
        options_(options),
        identity_(std::move(identity)),
        state_(std::move(state)),
        ranks_(nest.full_ranks()),
        seconds_before_(state_.seconds),
        cuts_before_(state_.cuts.size()),
        cuts_saved_(state_.cuts.size()) {
    const size_t all = sum(ranks_);
    const auto kept = static_cast<size_t>(std::floor(options.floor * static_cast<double>(all)));
    goal_ = (all - kept + options.step - 1) / options.step;
    for (const uint32_t space : state_.cuts) cut(ranks_, space, 1);
    taken_.assign(nest.spaces(), 0);
  }

  Result<SearchReport> run() {
    MKV_ASSIGN(current_, evaluator_.start(ranks_));
    ++state_.evaluations;
    while (!finished()) {
      MKV_TRY(run_round());
      if (stopping()) break;
    }
    MKV_TRY(save());
    SearchReport out;
    if (finished()) out.ladder = whole_ladder();
    out.searched_cuts = state_.cuts.size();
    out.values = state_.values;
    out.evaluations = state_.evaluations;
    out.seconds = state_.seconds;
    return out;
  }

 private:
  bool finished() const { return state_.cuts.size() >= goal_; }
  bool stopping() const {
    return options_.stop_after_cuts != 0 && state_.cuts.size() >= options_.stop_after_cuts;
  }
  // The steps that the next cut of a space takes; 0 when it has none left.
  size_t next_steps(const Ranks& ranks, size_t space) const {
    const size_t left = ranks[space] / options_.step;
    const double share = options_.cut_share * static_cast<double>(left);
    return std::min(left, std::max(size_t{1}, static_cast<size_t>(std::llround(share))));
  }
  void cut(Ranks& ranks, size_t space, size_t steps) const {
    ranks[space] = static_cast<uint16_t>(ranks[space] - steps * options_.step);
  }

  // Measures until the cheapest cut is a fresh one and takes it, cuts_per_round times.
  Result<void> run_round() {
    if (options_.exhaustive) MKV_TRY(measure_all());
    size_t first_layer = nest_.config().shape.layers;
    size_t cuts = 0;
    for (; cuts < options_.cuts_per_round && state_.cuts.size() < goal_; ++cuts) {
      size_t best = cheapest();
      while (best < nest_.spaces() && !fresh(best)) {
        MKV_TRY(measure(best));
        if (cuts == 0) MKV_TRY(save_if_due());
        best = cheapest();
      }
      if (best == nest_.spaces()) break;  // every space was taken once
      const size_t steps = next_steps(ranks_, best);
      taken_[best] = steps;
      cut(ranks_, best, steps);
      for (size_t step = 1; step <= steps; ++step) {
        state_.cuts.push_back(static_cast<uint32_t>(best));
        state_.values.push_back(current_ + state_.costs[best] * static_cast<double>(step));
      }
      first_layer = std::min(first_layer, nest_.unflat(best).layer);
    }
    MKV_ASSIGN(current_, evaluator_.advance(ranks_, first_layer));
    state_.values.back() = current_;  // the effect of all cuts of the round together
    std::fill(taken_.begin(), taken_.end(), 0);
    ++state_.round;
    tell();
    return save_if_due();
  }

  bool fresh(size_t space) const { return state_.measured_in[space] == state_.round; }

  // By the cost of a step as last measured; never measured comes first, then the lowest index.
  size_t cheapest() const {
    size_t best = nest_.spaces();
    double least = std::numeric_limits<double>::infinity();
    for (size_t space = 0; space < nest_.spaces(); ++space) {
      if (taken_[space] != 0 || ranks_[space] < options_.step) continue;
      const double cost = state_.measured_in[space] == 0 ? -std::numeric_limits<double>::infinity()
                                                         : state_.costs[space];
      if (best == nest_.spaces() || cost < least) {
        best = space;
        least = cost;
      }
    }
    return best;
  }

  // One more cut of a space on top of what the rounds before have cut.
  Result<void> measure(size_t space) {
    Ranks ranks = ranks_at_round_start();
    const size_t steps = next_steps(ranks, space);
    cut(ranks, space, steps);
    MKV_ASSIGN(const double value, evaluator_.measure(ranks, nest_.unflat(space).layer));
    if (!std::isfinite(value)) {
      return make_error(ErrorCode::unsupported, "search: a cut of latent space " +
                                                    std::to_string(space) +
                                                    " gives an output that is not finite");
    }
    state_.costs[space] = (value - current_) / static_cast<double>(steps);
    state_.measured_in[space] = state_.round;
    ++state_.evaluations;
    tell();
    return {};
  }

  Result<void> measure_all() {
    for (size_t space = 0; space < nest_.spaces(); ++space) {
      if (ranks_[space] < options_.step || fresh(space)) continue;
      MKV_TRY(measure(space));
      MKV_TRY(save_if_due());
    }
    return {};
  }

  Ranks ranks_at_round_start() const {
    Ranks ranks = ranks_;
    for (size_t space = 0; space < ranks.size(); ++space) {
      ranks[space] = static_cast<uint16_t>(ranks[space] + taken_[space] * options_.step);
    }
    return ranks;
  }

  void tell() {
    state_.seconds = seconds_before_ + watch_.seconds();
    if (!options_.progress) return;
    const size_t now = std::min(state_.cuts.size(), goal_);  // the last cut may go below
    std::string detail = std::to_string(state_.evaluations) + " evaluations, " +
                         std::to_string(std::llround(state_.seconds)) + " s";
    if (now > cuts_before_) {
      const double each = watch_.seconds() / static_cast<double>(now - cuts_before_);
      const double left = each * static_cast<double>(goal_ - now);
      detail += ", about " + std::to_string(std::llround(left)) + " s left";
    }
    detail += ", objective " + std::to_string(current_);
    report(options_.progress, {"search", now, goal_, detail});
  }

  Result<void> save_if_due() {
    const bool due = state_.cuts.size() >= cuts_saved_ + options_.checkpoint_cuts ||
                     since_saved_.seconds() >= options_.checkpoint_seconds;
    return due ? save() : Result<void>();
  }

  Result<void> save() {
    state_.seconds = seconds_before_ + watch_.seconds();
    since_saved_.lap();
    cuts_saved_ = state_.cuts.size();
    if (options_.checkpoint.empty()) return {};
    return write_checkpoint(options_.checkpoint, identity_, state_);
  }

  Ladder whole_ladder() const {
    Ladder ladder{.step = options_.step, .cuts = state_.cuts};
    Ranks ranks = ranks_;
    while (true) {
      const auto fullest = std::ranges::max_element(ranks);
      if (*fullest < options_.step) return ladder;
      ladder.cuts.push_back(static_cast<uint32_t>(fullest - ranks.begin()));
      *fullest = static_cast<uint16_t>(*fullest - options_.step);
    }
  }

  const Nest& nest_;
  CutEvaluator& evaluator_;
  const SearchOptions& options_;
  SearchIdentity identity_;
  SearchState state_;
  Ranks ranks_;
  std::vector<size_t> taken_;  // steps of each space in this round
  double current_ = 0;         // the objective at the start of the round
  double seconds_before_;      // of the runs that this one continues
  size_t cuts_before_, cuts_saved_;
  size_t goal_ = 0;  // cuts to be searched
  Stopwatch watch_, since_saved_;
};

Result<void> check(const Model& model, const Nest& nest, const SearchOptions& options) {
  const auto invalid = [](const std::string& what) {
    return make_error(ErrorCode::invalid_argument, "search: " + what);
  };
  if (!(nest.config().shape == model.config().kv_shape())) {
    return invalid("the nest is not of this model's shape: " + std::to_string(nest.spaces()) +
                   " latent spaces of " + std::to_string(nest.config().shape.layers) +
                   " layers, the model has " + std::to_string(model.config().num_layers));
  }
  if (!(options.floor >= 0.0 && options.floor < 1.0)) {
    return invalid("a floor of " + std::to_string(options.floor) + " is not in 0 ... 1");
  }
  if (!(options.cut_share >= 0.0 && options.cut_share <= 1.0)) {
    return invalid("a cut's share of " + std::to_string(options.cut_share) + " is not in 0 ... 1");
  }
  if (options.cuts_per_round == 0 || options.checkpoint_cuts == 0) {
    return invalid("cuts_per_round (" + std::to_string(options.cuts_per_round) +
                   ") and checkpoint_cuts (" + std::to_string(options.checkpoint_cuts) +
                   ") must be at least 1");
  }
  for (size_t space = 0; space < nest.spaces(); ++space) {
    if (options.step == 0 || nest.slabs_in(space) % options.step != 0) {
      return invalid("a step of " + std::to_string(options.step) + " does not divide the " +
                     std::to_string(nest.slabs_in(space)) + " slabs of latent space " +
                     std::to_string(space));
    }
  }
  return {};
}

}  // namespace

Result<SearchReport> search_ladder(const Model& model, const Nest& nest,
                                   std::span<const std::vector<TokenId>> sequences,
                                   const SearchOptions& options, Workers& workers) {
  MKV_TRY(check(model, nest, options));
  SearchState state;
  state.costs.assign(nest.spaces(), 0.0);
  state.measured_in.assign(nest.spaces(), 0);
  SearchIdentity identity;
  if (!options.checkpoint.empty()) {
    identity = search_identity(model, nest, sequences, options);
    MKV_ASSIGN(std::optional<SearchState> saved,
               read_checkpoint(options.checkpoint, identity, nest));
    if (saved) state = std::move(*saved);
  }
  MKV_ASSIGN(CutEvaluator evaluator,
             CutEvaluator::create(model, nest, sequences, options.objective, workers));
  return LadderSearch(nest, evaluator, options, std::move(identity), std::move(state)).run();
}

}  // namespace mkv
