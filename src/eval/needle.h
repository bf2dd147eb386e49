// Needle retrieval: a sentence with a number is put into a long text, at a depth, and asked for at
// its end. Prompts have exactly the length asked for, in tokens.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "eval/evaluation.h"

namespace mkv {

struct NeedleOptions {
  std::vector<size_t> lengths{1024, 2048, 4096};      // tokens of a prompt
  std::vector<double> depths{0, 0.25, 0.5, 0.75, 1};  // 0: at the beginning, 1: at the end
  size_t samples = 2;     // needles of each length and depth, in different stretches of the text
  size_t answer = 8;      // tokens that may be generated
  uint64_t seed = 1;      // of places, keys and stretches
  ProgressSink progress;  // may be empty
};

// BOS where the model adds it, text, needle, text, question: tokens.size() is the length asked for.
struct NeedlePrompt {
  size_t length = 0;
  double depth = 0;      // asked for
  size_t needle_at = 0;  // the needle's first token
  std::string key;       // digits
  std::vector<TokenId> tokens;
  std::vector<TokenId> key_tokens;  // how the key goes on after the prompt, for its likelihood
};

// A needle stands between two sentences of the filler, the nearest place to its depth where it also
// goes with single spaces. Errors: a depth outside 0 ... 1, a filler shorter than the longest
// prompt, a length that does not hold the needle and the question, or that leaves the model's
// context no room for the answer.
Result<std::vector<NeedlePrompt>> make_needles(const Model& model, std::string_view filler,
                                               const NeedleOptions& options);

struct NeedleCell {
  size_t length = 0;
  double depth = 0;
  size_t samples = 0, found = 0;  // the greedy answer contains the key
  double key_log_likelihood = 0;  // mean, of the key's tokens right after the prompt
};

struct NeedleReport {
  std::vector<NeedleCell> cells;  // by length, then depth
  double found = 0;               // fraction of all prompts
  double key_log_likelihood = 0;  // mean over all prompts
  KvFigures kv;                   // at the end of the longest prompt
  double seconds = 0;
};

Result<NeedleReport> evaluate_needles(const Model& model, const CacheFactory& caches,
                                      std::span<const NeedlePrompt> prompts,
                                      const NeedleOptions& options, Workers& workers);

}  // namespace mkv
