// Vocabulary: token ids by written form and back, and the bytes that each token stands for.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "text/tokenizer_data.h"

namespace mkv {

struct StringHash {
  using is_transparent = void;
  size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
};

class Vocabulary {
 public:
  // Takes tokens and types out of `data`, after checking them.
  static Result<Vocabulary> create(TokenizerData& data);

  size_t size() const { return tokens_.size(); }
  bool contains(TokenId id) const { return id >= 0 && static_cast<size_t>(id) < tokens_.size(); }
  const std::string& written(TokenId id) const { return tokens_[static_cast<size_t>(id)]; }
  const std::string& bytes(TokenId id) const { return bytes_[static_cast<size_t>(id)]; }
  TokenType type(TokenId id) const { return types_[static_cast<size_t>(id)]; }
  // Hidden by decode unless asked for.
  bool is_special(TokenId id) const {
    return type(id) == TokenType::control || type(id) == TokenType::unknown;
  }
  std::optional<TokenId> find(std::string_view written) const;
  // As find, but only what ordinary text may become: no control, unknown or byte token.
  std::optional<TokenId> find_text(std::string_view written) const;
  // The token that stands for a byte (its character, or <0xXX>), if there is one.
  std::optional<TokenId> of_byte(uint8_t byte) const;

 private:
  Result<void> index_tokens();
  Result<void> fill_bytes(TokenizerModel model);

  std::vector<std::string> tokens_, bytes_;
  std::vector<TokenType> types_;
  std::unordered_map<std::string, TokenId, StringHash, std::equal_to<>> ids_;
  std::array<TokenId, 256> byte_ids_{};
};

// The value of a token written "<0xXX>".
std::optional<uint8_t> parse_byte_token(std::string_view written);

}  // namespace mkv
