// The training run: steps, held-out measurements, checkpoints, the log.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "eval/kl.h"
#include "train/run_state.h"
#include "train/torch/adam.h"
#include "train/torch/peers.h"
#include "train/torch/step.h"
#include "train/train.h"

namespace mkv::training {

struct TrainerInputs {
  const Model& model;
  std::span<const std::vector<TokenId>> sequences;
  const Windows& held_out;
  const TrainOptions& options;
  Workers& workers;
};

// Of all that defines a nest's codes and order of cuts.
std::string hash_of(const Nest& nest);
TwinOptions twin_options(TrainPrecision precision, const std::string& device);

class Trainer {
 public:
  // Everything that can be refused is refused here, before any work. Throws what torch throws.
  static Result<Trainer> create(const TrainerInputs& inputs, Nest& nest);
  Result<TrainReport> run();

 private:
  using Clock = std::chrono::steady_clock;
  Trainer(const TrainerInputs& inputs, Nest& nest, PrefixSampler sampler, std::vector<size_t> rungs,
          size_t steps, Peers peers);

  Result<void> measure();  // held-out divergences of the bases as they are
  Result<void> advance();  // a step, and a measurement where one is due
  void judge(const std::vector<double>& kl);
  Result<void> resume();
  Result<void> save();
  Result<void> take_step();
  // From this rank's windows to all of the step's, and `stop_` to rank 0's word.
  Result<void> combine(StepResult& result, size_t windows);
  void log_step(const StepResult& result, const std::vector<StepWindow>& windows);
  Objective objective() const {
    return state_.step < in_.options.layerwise_steps ? Objective::layerwise : Objective::end_to_end;
  }
  double kept(const Ranks& ranks) const { return working_.coded_bits_per_value(ranks) / full_; }
  size_t nearest_budget(double kept) const;
  void report_progress() const;
  bool measurement_due() const;
  double since(Clock::time_point start) const;
  RunIdentity identity() const;
  std::vector<std::pair<std::string, Tensor>> named_tensors();
  Result<TrainReport> finish(bool finished);

  TrainerInputs in_;
  Peers peers_;
  Nest* nest_;
  Nest working_;  // what is measured
  PrefixSampler sampler_;
  std::vector<size_t> rungs_;  // of the held-out budgets
  double full_;                // coded bits a value at full size
  size_t steps_;
  RunIdentity identity_;
  Twin twin_;
  std::unique_ptr<Parameters> parameters_;
  Adam adam_;
  std::vector<Tensor> best_;  // as Parameters::moved()
  RunState state_;
  std::vector<double> last_kl_;
  std::optional<BaseHidden> base_;
  size_t first_step_ = 0;  // of this call
  double step_seconds_ = 0;
  bool stopped_early_ = false, stop_ = false;  // stop_: out of time
  Clock::time_point start_ = Clock::now(), saved_ = Clock::now();
  double seconds_before_ = 0;
};

}  // namespace mkv::training
