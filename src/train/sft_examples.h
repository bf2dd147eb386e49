// Instruction/answer data for fine-tuning, from .jsonl files in two shapes:
//
//   {"prompt": P, "text": P + answer}      the answer ends with the model's end of an answer
//   a zero-shot task's (eval/task_examples.h): the right alternative's continuation is the answer,
//   tokenised as the task is scored, so that what is trained is what is asked
#pragma once

#include <filesystem>
#include <vector>

#include "base/result.h"
#include "eval/likelihood.h"

namespace mkv {

struct SftExamples {
  std::vector<ScoredTokens> examples;
  size_t too_long = 0;  // left out: more tokens than `longest`
};

// Adds a file's examples. Errors name the file and the line.
Result<void> read_sft_examples(const std::filesystem::path& path, const Tokenizer& tokenizer,
                               size_t longest, SftExamples& out);

}  // namespace mkv
