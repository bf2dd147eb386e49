// Sampler: the next token from the logits of the last one.
//
// Steps as in llama.cpp: repetition penalty, top-k, top-p, min-p (both on the probabilities at
// temperature 1), then temperature and the draw. The same options, seed and logits give the same
// tokens on every machine.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "base/rng.h"
#include "text/tokenizer.h"

namespace mkv {

struct SamplingOptions {
  float temperature = 0.8f;         // 0: always the likeliest token (greedy)
  size_t top_k = 40;                // only the k likeliest tokens; 0: all
  float top_p = 0.95f;              // the fewest tokens that hold this probability; 1: all
  float min_p = 0.05f;              // at least this fraction of the likeliest's probability; 0: all
  float repetition_penalty = 1.0f;  // divides positive logits of recent tokens, multiplies negative
                                    // ones (arXiv 1909.05858 §4.1); 1: none
  size_t repetition_window = 64;    // how many of the last tokens are "recent"
  uint64_t seed = 0;

  Result<void> validate() const;
  static SamplingOptions greedy();
  // The model's own distribution: temperature 1, nothing cut.
  static SamplingOptions unbiased(uint64_t seed);
};

// Reuses its memory from call to call; belongs to one thread.
class Sampler {
 public:
  static Result<Sampler> create(const SamplingOptions& options);

  // How far below the largest logit they have to be exact (Model::likely_logits): those further
  // below cannot be drawn. All of them together count for top-p, which takes a fraction of a sum
  // that is off by 1 to 3 % (docs/decisions/0036). Infinity if any may be drawn.
  float exact_within() const;

  // `history`: the tokens so far, prompt included. An error if no logit is a number.
  Result<TokenId> sample(std::span<const float> logits, std::span<const TokenId> history);

 private:
  struct Candidate {
    float logit = 0;
    TokenId token = 0;
  };
  explicit Sampler(const SamplingOptions& options) : options_(options), rng_(options.seed) {}
  bool greedy() const;
  void penalise(std::span<const TokenId> history);
  void keep_top_k();
  void keep_probable();
  TokenId draw();

  SamplingOptions options_;
  Rng rng_;
  std::vector<Candidate> candidates_;
  std::vector<TokenId> recent_;
};

}  // namespace mkv
