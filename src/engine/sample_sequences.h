// The model writes text itself: material for calibration where no data set is at hand.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/progress.h"
#include "model/model.h"

namespace mkv {

struct SequenceOptions {
  size_t sequences = 64;             // generated together, one slice each
  size_t tokens_per_sequence = 512;  // the first included
  uint64_t seed = 0;
};

// Sequences drawn from the model's own distribution (temperature 1, nothing cut), each beginning
// with BOS, or with an end-of-generation token as a boundary between documents (token 0 in a model
// that has neither). They are not ended by end-of-generation tokens: to the model these are
// boundaries, and what follows is as likely as the rest. An exact cache of tokens_per_sequence
// tokens is held for each sequence.
Result<std::vector<std::vector<TokenId>>> sample_sequences(const Model& model,
                                                           const SequenceOptions& options,
                                                           Workers& workers,
                                                           const ProgressSink& progress = {});

}  // namespace mkv
