// What a training run is at some step: all that is needed to go on to the same losses. Written
// whole or not at all, so that a run may be killed at any moment.
#pragma once

#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "store/json.h"

namespace mkv {

// What must be the same for a checkpoint to be continued: names and values or hashes.
using RunIdentity = std::map<std::string, std::string>;

struct RunState {
  size_t step = 0, tokens = 0;
  double seconds = 0;
  // By name: parameters, Adam's moments, the best parameters. Sizes are the reader's to check.
  std::map<std::string, std::vector<float>> tensors;
  std::vector<double> schedule_weights, schedule_last;  // PrefixSampler's
  std::vector<double> kl_before, kl_best;               // held-out, by budget
  std::vector<double> running_kl;  // of training windows, by the nearest budget; 0: none yet
  double best = 0;
  size_t best_step = 0, without_better = 0;
  std::map<std::string, std::vector<double>> figures;  // what else a kind of run goes on from
  std::vector<std::string> log;                        // lines of JSON
};

Result<void> write_run_state(const std::filesystem::path& path, const RunIdentity& identity,
                             const RunState& state);
// Of a checkpoint's bytes; `name` stands for the path. Errors name it: another run's, or damaged.
Result<RunState> parse_run_state(std::span<const std::byte> bytes, const std::string& name,
                                 const RunIdentity& identity);

}  // namespace mkv
