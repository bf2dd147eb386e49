// Runs a long text through the model piece by piece, so that activations stay small.
#pragma once

#include <cstddef>
#include <span>

#include "model/model.h"

namespace mkv {

// Tokens at a time. What the cache holds is decoded once for all of them.
inline constexpr size_t kPrefillChunk = 512;

// Reused from call to call; one a thread that calls.
struct PrefillScratch {
  Scratch model;
  Matrix<float> hidden;
};

// Appends the slice's tokens (at least one) to its cache; last_hidden [hidden_size] is the last
// one's, after the last norm: Model::logits of it foretells the next token. A token out of the
// vocabulary or a text that does not fit is an error before work starts.
Result<void> prefill(const Model& model, SequenceSlice slice, std::span<float> last_hidden,
                     PrefillScratch& scratch, Workers& workers);

}  // namespace mkv
