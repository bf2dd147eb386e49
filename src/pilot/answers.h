// Greedy answers to the same prompts with each of some caches, side by side.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "eval/evaluation.h"

namespace mkv {

struct NamedFactory {
  std::string budget;
  CacheFactory caches;
};

struct Answer {
  std::string budget;
  // The answer's text, up to the first token that is not the first cache's, and from there on.
  std::string agreed, differs;
  size_t agreed_tokens = 0, tokens = 0;
};

struct AnswerSet {
  std::string question;         // empty: the model just continues the text
  std::string excerpt;          // what it was asked about
  std::vector<Answer> answers;  // in the order of the caches; the first is what others are held to
};

struct AnswerOptions {
  size_t prompts = 3;           // at even distances of the text
  size_t excerpt_tokens = 640;  // enough that most of it is coded when the answer begins
  size_t tokens = 64;           // of an answer, at most
  ProgressSink progress;        // may be empty
};

// A model with a chat template is asked about an excerpt, another one continues it. A text that is
// too short for an excerpt gives no answers. Errors: no cache, what a forward pass refuses.
Result<std::vector<AnswerSet>> collect_answers(const Model& model,
                                               std::span<const NamedFactory> caches,
                                               std::span<const std::string> documents,
                                               const AnswerOptions& options, Workers& workers);

}  // namespace mkv
