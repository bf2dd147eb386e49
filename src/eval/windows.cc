#include "eval/windows.h"

#include <algorithm>
#include <string_view>

namespace mkv {
namespace {

constexpr size_t kLeastContext = 4;  // with fewer, BOS would stand where a scored token does

}  // namespace

Result<Windows> cut_windows(const SpecialTokens& special, std::vector<TokenId> tokens,
                            const WindowOptions& options) {
  if (options.context < kLeastContext) {
    return make_error(ErrorCode::invalid_argument,
                      "windows: a context of " + std::to_string(options.context) +
                          " tokens is less than " + std::to_string(kLeastContext));
  }
  if (tokens.size() < options.context) {
    return make_error(ErrorCode::invalid_argument,
                      "windows: the text has " + std::to_string(tokens.size()) +
                          " tokens, one window needs " + std::to_string(options.context));
  }
  Windows windows{.context = options.context, .tokens = std::move(tokens)};
  const size_t all = windows.tokens.size() / options.context;
  const size_t count = options.limit == 0 ? all : std::min(options.limit, all);
  windows.tokens.resize(count * options.context);
  if (special.add_bos) {
    for (size_t i = 0; i < count; ++i) windows.tokens[i * options.context] = *special.bos;
  }
  return windows;
}

Result<Windows> make_windows(const Tokenizer& tokenizer, std::span<const std::string> documents,
                             const WindowOptions& options) {
  std::vector<TokenId> tokens;
  for (const std::string& document : documents) {
    std::string_view text = document;
    if (text.ends_with('\n')) text.remove_suffix(1);
    MKV_ASSIGN(const std::vector<TokenId> encoded,
               tokenizer.encode(text, {.add_special = true, .parse_special = false}));
    tokens.insert(tokens.end(), encoded.begin(), encoded.end());
    if (options.limit != 0 && tokens.size() >= options.limit * options.context) break;
  }
  return cut_windows(tokenizer.special(), std::move(tokens), options);
}

}  // namespace mkv
