// One step of supervised fine-tuning: some examples are one pass, passes are independent, so each
// runs on a worker of its own with torch on one thread, and gradients are added in order, as in
// step.h.
#pragma once

#include <span>
#include <vector>

#include "base/workers.h"
#include "eval/likelihood.h"
#include "train/torch/bases.h"
#include "train/torch/lora.h"
#include "train/torch/loss.h"

namespace mkv::training {

struct SftExample {
  const ScoredTokens* tokens = nullptr;
  Ranks ranks;  // empty: the exact cache
};

struct SftModel {
  const Twin& twin;
  Lora& lora;
  Bases* bases;  // null: all caches are exact
};

// Sums over examples; the means are over answers' tokens of as many as the caller has in all.
struct SftSums {
  std::vector<double> kl, cross_entropy;  // by example, nats an answer's token
  std::vector<Tensor> lora;               // gradients by Lora::tensors()
  std::vector<Tensor> turns;              // one, by Bases::turns(); none without bases
};

// Throws what torch throws (from the calling thread). `answer_tokens`: what sums are divided by.
SftSums sft_gradients(const SftModel& model, std::span<const SftExample> examples,
                      const LossWeights& weights, size_t answer_tokens, Workers& workers);

// Cross-entropy of the examples' answers, in nats, summed over their tokens.
double answer_nats(const SftModel& model, std::span<const ScoredTokens> examples,
                   const Ranks& ranks, Workers& workers);

inline size_t answer_tokens(const ScoredTokens& example) {
  return example.tokens.size() - example.first;
}

}  // namespace mkv::training
