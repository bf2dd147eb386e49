// Matryoshka training of a nest (arXiv:2410.14731 §3.2, §3.3): the model stays as it is, and what
// moves are the rotations of a nest of columns, or the codebooks, scales and bases of a nest of
// codes, so that every prefix works. Nothing here needs LibTorch to be included; a program built
// without it answers with an error.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "base/progress.h"
#include "base/result.h"
#include "base/workers.h"
#include "eval/windows.h"
#include "model/model.h"
#include "nest/nest.h"
#include "train/peer_options.h"
#include "train/schedule.h"

namespace mkv {

enum class TrainPrecision : uint8_t {
  automatic,  // bf16 where the device multiplies it fast, float32 elsewhere
  f32,
  bf16,  // of the products with weights; everything else stays float32
};

struct TrainOptions {
  ScheduleOptions schedule;
  size_t windows_per_step = 2;        // gradients of so many windows are added up for one step
  double learning_rate = 2e-3;        // of Adam, after warm-up; 1e-2 is usual for codes
  size_t warmup_steps = 20;           // linear
  double last_rate = 0.05;            // share of learning_rate at the end of the cosine
  double most_gradient = 1.0;         // a longer gradient is shortened to this (Euclidean norm)
  double kl_weight = 1.0;             // of KL(exact cache || nest)
  double cross_entropy_weight = 0.0;  // of the text's own next token; the paper: 0.25 / 0.75
  // A window's loss is divided by its own divergence, so that the large divergences of small caches
  // do not drown what can be gained at large ones: the sum of logarithms falls, not the sum.
  bool relative_loss = true;
  // The first so many steps are cheaper: each layer's bases learn to give back what its attention
  // adds to the exact hidden states, without the rest of the model.
  size_t layerwise_steps = 0;
  bool train_means = false;
  double basis_rate = 1.0;  // of a coded nest's bases: share of learning_rate; 0: they stay
  TrainPrecision precision = TrainPrecision::automatic;
  std::string device = "cpu";  // as torch names it

  std::vector<std::string> budgets = {"75%", "50%", "25%"};  // of held-out measurements
  size_t steps_per_measurement = 100;
  size_t patience = 0;  // measurements without a better one before it stops early; 0: never

  std::filesystem::path checkpoint;  // empty: none. One of the same run is continued
  double checkpoint_seconds = 60;
  double stop_after_seconds = 0;  // ends early with a checkpoint; 0 = never
  std::filesystem::path log;      // JSON lines, whole at every checkpoint; empty: none
  ProgressSink progress;

  PeerOptions peers;  // the same run on several processes
};

struct TrainReport {
  size_t steps = 0, tokens = 0;            // since the beginning of the run
  bool finished = false;                   // false: stopped by stop_after_seconds
  bool stopped_early = false;              // held-out text stopped getting better
  size_t best_step = 0;                    // whose bases the nest has
  std::vector<double> kl_before, kl_best;  // held-out, by budget, in nats a token
  double tokens_per_second = 0;            // of this call, without measurements
  double seconds = 0;                      // of all calls, with measurements
};

// Trains `nest` on the sequences in their order, once: a step takes the next windows_per_step. On
// return it is the best one seen (by the mean logarithm of held-out divergences), with its ladder
// and without measurements. Bases of columns have the determinant of the start and
// |U^T U - I| < 1e-5.
// Deterministic for any number of workers, and whether or not it was interrupted and continued.
// Of several processes, each calls this and gets the same nest; a step's windows and the held-out
// budgets are shared out, so losses are one process's up to the order of sums, and rank 0 alone
// reads and writes files. A lost peer is an error at all ranks; rank 0 writes a checkpoint first.
// Errors: built without LibTorch (unsupported); too little text; a budget out of
// range; a checkpoint of another run, which names what differs; what torch could not do.
Result<TrainReport> train_nest(const Model& model, std::span<const std::vector<TokenId>> sequences,
                               const Windows& held_out, const TrainOptions& options, Nest& nest,
                               Workers& workers);

// Whether this program can train at all, before any work; the error says how to build one that can.
Result<void> check_training_built();

}  // namespace mkv
