// Zero-shot tasks as lm-evaluation-harness scores them.
//
//   acc         the alternative of the largest log-likelihood is the right one (of equals the
//   first) acc_norm    the same by log-likelihood / characters of the continuation without one
//   space in
//               front
//   perplexity  exp(- mean log-likelihood of a continuation), a figure an example, not a token
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "eval/divergence.h"
#include "eval/evaluation.h"
#include "eval/task_examples.h"

namespace mkv {

struct TaskReport {
  Average acc;                        // a fraction; standard error: sample deviation / sqrt(n)
  std::optional<Average> acc_norm;    // TaskShape::choices
  std::optional<Average> perplexity;  // TaskShape::continuation; standard error by the delta method
  size_t examples = 0;
  double coded_share = 0;  // of the context's tokens, those that were seen as codes
  double seconds = 0;
  // Of each example and alternative.
  std::vector<std::vector<double>> log_likelihoods;
};

// `detail` of the progress is the accuracy so far. Errors name the example.
Result<TaskReport> evaluate_task(const Model& model, const CacheFactory& caches, const Task& task,
                                 const ProgressSink& progress, Workers& workers);

// Characters (code points) of a continuation without one space in front: what acc_norm divides by.
size_t choice_length(std::string_view continuation);

}  // namespace mkv
