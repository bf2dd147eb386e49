// How fast the engine decodes and reads with each of some caches, at several depths.
#pragma once

#include <string>
#include <vector>

#include "base/progress.h"
#include "eval/speed.h"

namespace mkv {

struct NamedCache {
  std::string budget;
  MakeCache make;
};

struct SpeedSeries {
  std::string budget;
  std::vector<DepthSpeed> depths;
};

struct SpeedOptions {
  std::vector<size_t> depths = {0, 2048, 4096,
                                7680};  // those beyond the model's limit are left out
  BenchLengths lengths = {.prefill = 256, .decode = 48};
  size_t repetitions = 2;
  ProgressSink progress;  // may be empty
};

// Repetitions go by turns, after one that is not counted. Errors: what a forward pass refuses.
Result<std::vector<SpeedSeries>> measure_speed(const Model& model,
                                               const std::vector<NamedCache>& caches,
                                               const SpeedOptions& options, Workers& workers);

}  // namespace mkv
