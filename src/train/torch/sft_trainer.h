// The run of supervised fine-tuning: two stages of steps, held-out measurements and checkpoints.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/stopwatch.h"
#include "train/run_state.h"
#include "train/sft.h"
#include "train/torch/adam.h"
#include "train/torch/peers.h"
#include "train/torch/sft_step.h"

namespace mkv::training {

struct SftInputs {
  const Model& model;
  std::span<const ScoredTokens> examples, held_out;
  const SftOptions& options;
  Workers& workers;
};

class SftTrainer {
 public:
  // Everything that can be refused is refused here, before any work. Throws what torch throws.
  static Result<SftTrainer> create(const SftInputs& inputs, Nest* nest);
  Result<SftReport> run();

 private:
  SftTrainer(const SftInputs& inputs, Nest* nest, Lora lora, Peers peers);

  bool joint() const { return stage_ == 1; }
  size_t stage_steps() const { return joint() ? in_.options.joint_steps : in_.options.lora_steps; }
  SftModel model() { return {twin_, lora_, joint() ? &*bases_ : nullptr}; }
  Result<void> run_stage();  // until its end, or until stop_
  void begin_stage();        // its optimisers
  Result<void> take_step();
  Result<void> combine(SftSums& sums, size_t examples);
  void log_step(const SftSums& sums, const std::vector<SftExample>& examples, double norm);
  Result<void> measure();
  const ScoredTokens& example_at(size_t index);  // of the whole run
  std::vector<Tensor> moving();                  // LoRA's and, if there are bases, turns
  std::vector<std::pair<std::string, std::vector<Tensor>>> named_tensors();
  Result<void> save();
  Result<void> resume();
  RunIdentity identity() const;
  void report_progress() const;
  SftReport finish(bool finished);

  SftInputs in_;
  Nest* nest_;  // may be null
  Peers peers_;
  Twin twin_;
  Lora lora_;
  std::optional<Bases> bases_;
  std::optional<PrefixSampler> sampler_;
  std::vector<size_t> rungs_;  // of the budgets
  RunIdentity identity_;

  // The stage that runs, and both stages' reports so far. state_.step is the stage's.
  size_t stage_ = 0;
  SftStageReport reports_[2];
  std::optional<Adam> lora_adam_, basis_adam_;
  std::vector<Tensor> best_;
  RunState state_;
  size_t examples_seen_ = 0;
  bool stop_ = false;
  std::vector<size_t> order_;  // of the examples, in epoch `epoch_`
  size_t epoch_ = static_cast<size_t>(-1);
  Stopwatch watch_, since_save_;
  double seconds_before_ = 0, step_seconds_ = 0;
  size_t step_tokens_ = 0;  // of this call
};

}  // namespace mkv::training
