// Evaluation windows, cut as llama.cpp's perplexity cuts them, so that figures can be compared.
//
// A text loses one trailing line feed, is tokenised once (BOS where the model adds it, special
// tokens not parsed) and cut into windows of `context` tokens that do not overlap; the tail is
// dropped. Each window starts from an empty cache; where the model adds BOS, it replaces the
// window's first token. Logits at context/2 ... context-2 score the next token, so every scored
// token has seen at least half a window.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "text/tokenizer.h"

namespace mkv {

struct WindowOptions {
  size_t context = 1024;  // tokens a window
  size_t limit = 0;       // most windows; 0 = all
};

struct Windows {
  size_t context = 0;
  std::vector<TokenId> tokens;  // [count() x context]

  size_t count() const { return context == 0 ? 0 : tokens.size() / context; }
  std::span<const TokenId> window(size_t i) const {
    return std::span(tokens).subspan(i * context, context);
  }
  size_t first_scored() const { return context / 2; }  // its logits score the token after it
  size_t scored() const { return context - 1 - context / 2; }  // positions scored in a window
  // The tokens that a window's scored positions foretell.
  std::span<const TokenId> targets(size_t i) const {
    return window(i).subspan(first_scored() + 1, scored());
  }
};

// One text is exactly llama.cpp's procedure. Several (documents, e.g. of a .jsonl file) are each
// tokenised like that, and their tokens joined in order: a window may hold the end of one document
// and the beginning of the next. Less than one window is an error (llama.cpp asks for two).
Result<Windows> make_windows(const Tokenizer& tokenizer, std::span<const std::string> documents,
                             const WindowOptions& options);

// The same from tokens.
Result<Windows> cut_windows(const SpecialTokens& special, std::vector<TokenId> tokens,
                            const WindowOptions& options);

}  // namespace mkv
