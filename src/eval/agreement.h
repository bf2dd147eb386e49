// How long greedy output stays what the full cache gives: the first token that differs.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "eval/evaluation.h"

namespace mkv {

struct AgreementOptions {
  size_t prompts = 16;    // taken at even distances from the text
  size_t prompt = 512;    // tokens each, BOS in front where the model adds it
  size_t tokens = 64;     // generated after each
  ProgressSink progress;  // may be empty
};

// Errors: an option of 0, a text too short for one prompt, more tokens than the model's context.
// Prompts may overlap when the text is short.
Result<std::vector<std::vector<TokenId>>> cut_prompts(const Model& model,
                                                      std::span<const std::string> documents,
                                                      const AgreementOptions& options);

// The full cache's greedy answers, one a prompt.
Result<std::vector<std::vector<TokenId>>> greedy_answers(
    const Model& model, const CacheFactory& caches, std::span<const std::vector<TokenId>> prompts,
    const AgreementOptions& options, Workers& workers);

struct AgreementReport {
  // Of each prompt: index of the first token that differs; the number of tokens when none does.
  std::vector<size_t> first_difference;
  double identical = 0;    // fraction of the prompts whose answers are the same to the end
  double mean_agreed = 0;  // tokens before the first difference, mean and median
  double median_agreed = 0;
  double seconds = 0;
};

// `base`: greedy_answers of the cache to compare with, on the same prompts and options.
Result<AgreementReport> evaluate_agreement(const Model& model, const CacheFactory& caches,
                                           std::span<const std::vector<TokenId>> prompts,
                                           std::span<const std::vector<TokenId>> base,
                                           const AgreementOptions& options, Workers& workers);

}  // namespace mkv
