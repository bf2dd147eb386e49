// What a budget costs, measured along the ladder when a nest is made: with it a user may ask for
// "at most 1 % perplexity" instead of a number of bits.
#pragma once

#include <cstddef>

#include "base/progress.h"
#include "base/result.h"
#include "base/workers.h"
#include "eval/evaluation.h"
#include "model/model.h"
#include "nest/nest.h"

namespace mkv {

struct MeasureOptions {
  size_t rungs = 20;  // evenly spaced from full rank down; the empty rung is left out
  EvalOptions eval;   // its progress is told rung by rung
};

// Records KL and the increase of perplexity at some rungs into nest.measurements(), replacing what
// was there. One exact pass serves all of them.
Result<void> measure_ladder(const Model& model, Nest& nest, const Windows& windows,
                            const MeasureOptions& options, Workers& workers);

}  // namespace mkv
