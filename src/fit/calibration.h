// Calibration text: which tokens the statistics, the search and the measurements look at.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "text/tokenizer.h"

namespace mkv {

using Sequences = std::vector<std::vector<TokenId>>;  // each starts at position 0 of its own cache

struct CalibrationOptions {
  size_t window = 1024;   // most tokens a sequence
  size_t tokens = 65536;  // stop when there are this many; the last sequence is cut to fit
  size_t least = 128;     // shorter remains of a document are left out
  uint64_t seed = 0;      // of the order of the documents
};

// Each document is tokenised alone (BOS where the model adds it) and cut into windows. Documents
// are visited in a seeded order, one window of each a round, so that neither the first file nor one
// long book fills a small budget. No usable window at all is an error.
Result<Sequences> calibration_sequences(const Tokenizer& tokenizer,
                                        std::span<const std::string> documents,
                                        const CalibrationOptions& options);

size_t count_tokens(std::span<const std::vector<TokenId>> sequences);

}  // namespace mkv
