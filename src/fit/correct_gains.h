// Predicted gains against measured ones: the prediction is of second order and knows nothing of how
// errors in different layers meet, so some spaces are worth more than it says and some less.
#pragma once

#include <span>
#include <vector>

#include "base/progress.h"
#include "base/result.h"
#include "base/workers.h"
#include "model/model.h"
#include "nest/nest.h"

namespace mkv {

// By flat space index: what to multiply a space's gains with. At `ranks`, each space in turn gives
// up and gets a quarter of its slabs, and the KL divergence between the two on `sequences` is
// compared with the sum of the gains in between. Factors say how a space's share of all that was
// measured differs from its share of what was predicted, shrink towards 1 where little is at stake,
// and are kept within [1/4, 4]: one measurement is a noisy judge.
// gains[space][slab] are of at least the nest's slabs.
Result<std::vector<double>> measured_gain_factors(const Model& model, const Nest& nest,
                                                  const Ranks& ranks,
                                                  std::span<const std::vector<double>> gains,
                                                  std::span<const std::vector<TokenId>> sequences,
                                                  const ProgressSink& progress, Workers& workers);

}  // namespace mkv
