// What a row of logits says about the next token, and how far two rows are apart. In double over
// the full vocabulary: at 8 bits a value divergences are smaller than a float's rounding.
#pragma once

#include <cstddef>
#include <span>

#include "text/tokenizer.h"

namespace mkv {

// -ln softmax(logits)[target].
double negative_log_likelihood(std::span<const float> logits, TokenId target);

// sum_i p_i (ln p_i - ln q_i), p = softmax(base), q = softmax(logits). Equal rows give exactly 0.
double kl_divergence(std::span<const float> base, std::span<const float> logits);

struct Comparison {
  double kl = 0;
  double nll_base = 0;  // of the target
  double nll = 0;
  bool same_top = false;  // both give the same token the highest probability (ties: lowest id)
};
Comparison compare_logits(std::span<const float> base, std::span<const float> logits,
                          TokenId target);

// Mean, and its standard error sqrt((E[x^2] - E[x]^2) / (n - 1)), as llama.cpp computes it.
struct Average {
  double mean = 0, standard_error = 0;
};
Average average(std::span<const double> values);

}  // namespace mkv
