// Tokenizer: text to token ids and back, exactly as the model's own.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace mkv {

using TokenId = int32_t;

struct SpecialTokens {
  std::optional<TokenId> bos, eos, eot, unknown, padding;
  std::vector<TokenId> end_of_generation;  // every token that ends an answer (eos, eot, ...)
  bool add_bos = false;  // the model expects BOS in front of a text; refused without a bos
};

struct EncodeOptions {
  bool add_special = true;     // BOS where the model wants it
  bool parse_special = false;  // "<|im_start|>" in the text becomes that token
};

// Immutable after loading: safe from many threads.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  virtual Result<std::vector<TokenId>> encode(std::string_view text,
                                              const EncodeOptions& options) const = 0;
  // The bytes of one token; special tokens give nothing unless `with_special`.
  virtual std::string decode(TokenId token, bool with_special) const = 0;
  virtual size_t vocab_size() const = 0;
  virtual const SpecialTokens& special() const = 0;
  virtual std::optional<TokenId> find(std::string_view token) const = 0;  // by its written form

  // Undoes what encode adds (e.g. SentencePiece's leading space), so that decode(encode(t)) == t.
  virtual std::string decode_all(std::span<const TokenId> tokens, bool with_special) const = 0;
};

}  // namespace mkv
