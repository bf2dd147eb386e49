// A refit of a nest, as the autopilot wants it (pilot/refit.h).
#pragma once

#include <cstddef>
#include <functional>
#include <vector>

#include "base/result.h"
#include "model/model.h"
#include "nest/nest.h"

namespace mkv::cli {

// Makes a nest like `like` of texts of `context` tokens each: of every fifth text its figures are
// measured, the others it is fitted to. With Workers of its own; borrows the model.
// Errors: a nest of columns, whose fit has another function. The function's: fewer than two texts,
// what the fit refuses.
Result<std::function<Result<Nest>(std::vector<std::vector<TokenId>>)>> make_refit(
    const Model& model, const Nest& like, size_t context, size_t threads);

}  // namespace mkv::cli
