#include "train/sft_examples.h"

#include <fstream>
#include <optional>
#include <string>

#include "eval/task_examples.h"
#include "store/json.h"
#include "store/message.h"

namespace mkv {
namespace {

constexpr size_t kNoLimit = static_cast<size_t>(-1);

void keep(ScoredTokens example, size_t longest, SftExamples& out) {
  if (example.tokens.size() > longest) {
    ++out.too_long;
  } else {
    out.examples.push_back(std::move(example));
  }
}

Result<ScoredTokens> encode_answer(const Json& line, const Tokenizer& tokenizer) {
  MKV_ASSIGN(const std::string prompt, get_string(line, "prompt"));
  MKV_ASSIGN(const std::string text, get_string(line, "text"));
  if (!text.starts_with(prompt)) {
    return make_error(ErrorCode::corrupt, "text does not begin with prompt");
  }
  MKV_ASSIGN(ScoredTokens example,
             encode_scored(tokenizer, prompt, text.substr(prompt.size()), kNoLimit));
  const SpecialTokens& special = tokenizer.special();
  const std::optional<TokenId> end = special.eot ? special.eot : special.eos;
  if (end) example.tokens.push_back(*end);
  return example;
}

Result<bool> has_prompts(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return make_error(ErrorCode::not_found, path.string() + ": cannot open");
  std::string line;
  getline(file, line);
  MKV_ASSIGN(const Json json, parse_json(line, concat(path.string(), ":1")));
  return json.contains("prompt");
}

Result<void> read_prompts(const std::filesystem::path& path, const Tokenizer& tokenizer,
                          size_t longest, SftExamples& out) {
  std::ifstream file(path, std::ios::binary);
  size_t number = 0;
  for (std::string line; getline(file, line);) {
    const std::string where = concat(path.string(), ":", ++number);
    if (line.empty()) continue;
    MKV_ASSIGN(const Json json, parse_json(line, where));
    auto example = encode_answer(json, tokenizer);
    if (!example) return in_context(where, std::move(example).error());
    keep(std::move(*example), longest, out);
  }
  return {};
}

}  // namespace

Result<void> read_sft_examples(const std::filesystem::path& path, const Tokenizer& tokenizer,
                               size_t longest, SftExamples& out) {
  MKV_ASSIGN(const bool prompts, has_prompts(path));
  if (prompts) return read_prompts(path, tokenizer, longest, out);
  MKV_ASSIGN(const Task task, read_task(path, 0));
  for (size_t i = 0; i < task.examples.size(); ++i) {
    const auto& [context, answer] = task.examples[i].alternatives[task.examples[i].label];
    auto example = encode_scored(tokenizer, context, answer, kNoLimit);
    if (!example) {
      return in_context(concat(path.string(), ", example ", i + 1), std::move(example).error());
    }
    keep(std::move(*example), longest, out);
  }
  return {};
}

}  // namespace mkv
