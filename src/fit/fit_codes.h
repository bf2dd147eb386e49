// Fits a nest of code slabs (docs/method.md "Nested code"): one pass for statistics, then bases,
// codebooks and a ladder in closed form or by k-means, without LibTorch.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/progress.h"
#include "base/result.h"
#include "model/model.h"
#include "nest/nest.h"

namespace mkv {

struct CodeFitOptions {
  size_t group_size = 0;  // KV heads that share a basis; 0 = all of a layer
  KeyMean key_mean = KeyMean::position;
  size_t sinks = 4, recent = 128;
  // Most a layer; not given: as many as there are, or none with fewer than two sinks.
  std::optional<size_t> later_sinks;
  size_t context = 8192;             // the longest that the nest is for; the model's limit if less
  size_t draws = 1;                  // of labels a token, for its gradient; each costs a pass
  double ridge = 2e-2;               // of the metric, see fit/metric_basis.h
  double token_weight_floor = 0.15;  // 1: all tokens alike, 0: by their gradients alone
  double key_weight = 1.0;           // of a key's predicted loss against a value's
  size_t correction_windows = 0;     // on which gains are corrected (fit/correct_gains.h); 0: not
  double correction_bits = 2.0;      // a value, where on the ladder
  double most_bits = 5.0;            // a value, on average: how long the slab lists get
  size_t most_per_column = 16;  // slabs on the same columns; fewer leave a floor (decisions/0007)
  size_t iterations = 10;       // of k-means
  size_t joint_rounds = 40;     // of fitting all slabs together (fit/joint_codebooks.h); 0: not
  uint64_t seed = 1;
  std::map<std::string, std::string> origin;
};

// windows: token sequences of equal length.
Result<Nest> fit_code_nest(const Model& model, std::span<const std::vector<TokenId>> windows,
                           const CodeFitOptions& options, const ProgressSink& progress,
                           Workers& workers);

}  // namespace mkv
