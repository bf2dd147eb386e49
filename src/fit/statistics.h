// Streaming statistics of the keys and values that a nest will code: means, and second moments of
// what is left when the mean is taken away. Memory does not depend on the amount of text.
//
// For every layer, group of KV heads and side, over all tokens but the sinks:
//   values: C = E[(v - mu)(v - mu)^T]
//   keys:   C = E[(k_t - R_t mu)(k_t - R_t mu)^T], k_t after RoPE and mu = E[R_-t k_t], or with one
//           mean of the keys after RoPE, or raw (KeyMean).
// R_t mu is not constant, so mu has to be known before C: two passes, the first over little text.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "base/buffer.h"
#include "base/progress.h"
#include "base/result.h"
#include "base/workers.h"
#include "fit/calibration.h"
#include "model/model.h"
#include "nest/nest.h"

namespace mkv {

struct StatisticsOptions {
  size_t group_size = 1;  // KV heads that share a space
  KeyMean key_mean = KeyMean::position;
  size_t sinks = 4;           // leading tokens of a sequence, left out: the cache keeps them exact
  size_t mean_tokens = 8192;  // of the first pass, at least; whole sequences
};

// Call add_to_means for some text, fix_means once, then add for all of it. One thread at a time.
class Statistics {
 public:
  Statistics(const ModelConfig& config, const StatisticsOptions& options);

  void add_to_means(const LayerObservation& seen);
  void fix_means();
  void add(const LayerObservation& seen, Workers& workers);

  size_t spaces() const { return spaces_.size(); }
  size_t dims() const { return dims_; }
  // By flat index, in the order of Nest::flat.
  size_t tokens(size_t space) const { return spaces_[space].tokens; }
  std::span<const float> mean(size_t space) const { return spaces_[space].mean; }
  Matrix<double> covariance(size_t space) const;  // [dims x dims]

 private:
  struct Space {
    std::vector<double> sum;  // [dims]
    std::vector<float> mean;  // [dims]
    Matrix<double> moment;    // [dims x dims], sum over tokens
    size_t mean_tokens = 0, tokens = 0;
  };
  struct WorkerScratch {
    Matrix<float> columns;  // [dims x tokens]
    Matrix<float> product;  // [dims x dims]
  };
  void extend_angles(size_t layer, size_t positions);
  // columns[dims x tokens] = what is coded of rows first ... of one space.
  void centre(const LayerObservation& seen, size_t index, size_t first,
              Matrix<float>& columns) const;
  Space& space(size_t layer, size_t group, Side side);

  StatisticsOptions options_;
  KvShape shape_;
  LayerTypes layer_types_;
  size_t dims_, groups_;
  std::vector<Angles> angles_;  // by layer type, [positions x pairs]
  std::vector<Space> spaces_;
  std::vector<WorkerScratch> scratch_;  // by worker
};

// Both passes over the sequences with an exact cache.
Result<Statistics> gather_statistics(const Model& model,
                                     std::span<const std::vector<TokenId>> sequences,
                                     const StatisticsOptions& options, const ProgressSink& progress,
                                     Workers& workers);

}  // namespace mkv
