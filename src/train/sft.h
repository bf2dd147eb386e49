// Supervised fine-tuning for a nest's sizes, in the paper's two stages (arXiv:2410.14731 §4.3):
// LoRA on the exact cache first, then LoRA and the nest's rotations together, each example at sizes
// of its own. The loss is of the answers alone. Nothing here needs LibTorch to be included.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "base/progress.h"
#include "base/result.h"
#include "base/workers.h"
#include "eval/likelihood.h"
#include "model/model.h"
#include "model/weight_change.h"
#include "nest/nest.h"
#include "train/train.h"

namespace mkv {

struct SftOptions {
  size_t lora_rank = 8;
  double lora_alpha = 16;  // the addition is alpha / rank times its factors' product
  std::vector<std::string> projections = {"q_proj",    "k_proj",  "v_proj",   "o_proj",
                                          "gate_proj", "up_proj", "down_proj"};
  size_t lora_steps = 200, joint_steps = 100;  // at most, of each stage
  size_t examples_per_step = 16;
  double lora_rate = 1e-3, joint_lora_rate = 3e-4, basis_rate = 2e-3;  // of Adam, after warm-up
  size_t warmup_steps = 10;                                            // linear, in each stage
  double last_rate = 0.05;     // share of a rate at the end of its stage's cosine
  double most_gradient = 1.0;  // of each kind of parameter; longer ones are shortened; 0: never
  // Of the joint stage: KL(exact cache || nest), both with the adapters, and of the answers.
  double kl_weight = 0.25, cross_entropy_weight = 0.75;
  ScheduleOptions schedule;
  std::vector<std::string> budgets = {"50%", "25%"};  // of the joint stage's measurements
  size_t steps_per_measurement = 25;
  size_t patience = 3;  // measurements without a better one that end a stage; 0: never

  TrainPrecision precision = TrainPrecision::automatic;
  std::string device = "cpu";
  std::filesystem::path checkpoint, log;  // as TrainOptions has them
  double checkpoint_seconds = 60;
  double stop_after_seconds = 0;
  ProgressSink progress;
  PeerOptions peers;
};

// Held-out cross-entropies, nats an answer's token: with the exact cache, and in the joint stage
// also at every budget.
struct SftStageReport {
  size_t steps = 0, best_step = 0;
  bool stopped_early = false;
  std::vector<double> before, best;
};

struct SftReport {
  SftStageReport lora, joint;
  bool finished = false;  // false: stopped by stop_after_seconds
  size_t tokens = 0;      // of examples seen, questions too
  double tokens_per_second = 0, seconds = 0;
  WeightChanges changes;  // the best ones: of the last stage that was run
};

// `examples` are drawn in an order that depends on the seed, again and again; a stage keeps what
// held-out examples liked best. `nest`, of columns, is needed for a joint stage; on return it has
// the best rotations. Errors: as train_nest has them; no projection of a name.
Result<SftReport> fine_tune(const Model& model, std::span<const ScoredTokens> examples,
                            std::span<const ScoredTokens> held_out, const SftOptions& options,
                            Nest* nest, Workers& workers);

}  // namespace mkv
