// Greedy decoding for evaluations: the likeliest token (of equals the lowest), over any cache.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "engine/prefill.h"

namespace mkv {

// Stands behind the last token it read. Belongs to one thread.
class GreedyDecoder {
 public:
  GreedyDecoder(const Model& model, Workers& workers);

  // Appends tokens (at least one) to a cache.
  Result<void> read(std::span<const TokenId> tokens, KvCache& cache);
  // Sum of ln p of tokens that would follow; `cache` reads all but the last, and the decoder is
  // back where it was, so that another cache of the same tokens goes on.
  Result<double> log_likelihood(std::span<const TokenId> tokens, KvCache& cache);
  // At most `count` tokens, the last an end-of-generation token if one came.
  Result<std::vector<TokenId>> generate(size_t count, KvCache& cache);

 private:
  void update_logits();

  const Model& model_;
  Workers& workers_;
  PrefillScratch scratch_;
  std::vector<float> hidden_, logits_;
};

}  // namespace mkv
