#include <string>

#include "text/tokenizer_data.h"

namespace mkv {

const char* const kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

namespace {

// Llama 3's, with the number of digits that stay together.
std::string llama3_pattern(const std::string& digits) {
  return R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|)" + digits +
         R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
}

PreTokenizerStep digits_apart() {
  PreTokenizerStep step;
  step.kind = PreTokenizerStep::Kind::digits;
  return step;
}

}  // namespace

PreTokenizerStep split_isolated(std::string pattern) {
  PreTokenizerStep step;
  step.pattern = std::move(pattern);
  return step;
}

Result<std::vector<PreTokenizerStep>> pre_tokenizer_named(std::string_view name) {
  using Steps = std::vector<PreTokenizerStep>;
  if (name == "smollm") return Steps{digits_apart(), split_isolated(kGpt2Pattern)};
  if (name == "gpt-2") return Steps{split_isolated(kGpt2Pattern)};
  if (name == "llama-bpe" || name == "llama3" || name == "llama-v3") {
    return Steps{split_isolated(llama3_pattern(R"(\p{N}{1,3})"))};
  }
  if (name == "qwen2" || name == "deepseek-r1-qwen") {
    return Steps{split_isolated(llama3_pattern(R"(\p{N})"))};
  }
  if (name == "default") {
    return Steps{split_isolated(R"([\p{P}\$\+<=>\^~\|]+)"), split_isolated(kGpt2Pattern),
                 split_isolated(R"(\p{N}+)"), split_isolated("[0-9][0-9][0-9]")};
  }
  return make_error(ErrorCode::unsupported,
                    "tokenizer.ggml.pre \"" + std::string(name) +
                        "\": only smollm, gpt-2, llama-bpe, qwen2 and default are known");
}

}  // namespace mkv
