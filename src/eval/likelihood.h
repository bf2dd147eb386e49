// The log-likelihood of continuations after a context, as lm-evaluation-harness asks for it.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>
#include <vector>

#include "engine/prefill.h"
#include "eval/evaluation.h"

namespace mkv {

// A context and its continuation as one run of tokens, of which those from `first` on are scored.
struct ScoredTokens {
  std::vector<TokenId> tokens;
  size_t first = 1;  // 1 ... tokens.size() - 1
};

// White space at the context's end moves to the continuation; both together are tokenised as one
// text, and the scored tokens are those after as many as the context alone has (BOS in front where
// the model adds it; an empty context is BOS, or else the end-of-text token). What is longer than
// `longest` tokens loses its first ones, as the harness cuts it. Errors: nothing to score, no token
// before it, a continuation longer than `longest`.
Result<ScoredTokens> encode_scored(const Tokenizer& tokenizer, std::string_view context,
                                   std::string_view continuation, size_t longest);

struct Likelihood {
  double sum = 0;       // of ln p of the scored tokens
  size_t tokens = 0;    // scored
  bool greedy = false;  // each of them was the likeliest
};

// Belongs to one thread. Borrows the model, the caches and the workers.
class LikelihoodScorer {
 public:
  LikelihoodScorer(const Model& model, const CacheFactory& caches, Workers& workers)
      : model_(model), caches_(caches), workers_(workers) {}

  // One figure a run of tokens. The tokens that all of them begin with are computed once.
  Result<std::vector<Likelihood>> score(std::span<const ScoredTokens> runs);

  // The share of the shared tokens of all calls that the continuations saw as codes.
  double coded_share() const {
    return shared_ == 0 ? 0.0 : static_cast<double>(coded_) / static_cast<double>(shared_);
  }

 private:
  Result<void> read_rest(std::span<const ScoredTokens> runs, size_t shared, const KvCache& cache);
  Result<Likelihood> score_run(const ScoredTokens& run, size_t shared, size_t first_row);

  const Model& model_;
  const CacheFactory& caches_;
  Workers& workers_;
  PrefillScratch prefill_;
  Matrix<float> rest_, logits_;
  Matrix<float> states_;         // hidden states that foretell the scored tokens of one run
  std::vector<float> boundary_;  // the last shared token's hidden state
  size_t shared_ = 0, coded_ = 0;
};

}  // namespace mkv
