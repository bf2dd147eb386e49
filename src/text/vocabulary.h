// Vocabulary: token ids by written form and back, and the bytes that each token stands for.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "text/tokenizer_data.h"

namespace mkv {

// Many short strings one after the other: a std::string for each would be four times the memory.
class StringTable {
 public:
  void assign(std::span<const std::string> strings);
  size_t size() const { return ends_.size(); }
  std::string_view operator[](size_t i) const {
    const size_t begin = i == 0 ? 0 : ends_[i - 1];
    return std::string_view(text_).substr(begin, ends_[i] - begin);
  }

 private:
  std::string text_;
  std::vector<size_t> ends_;
};

class Vocabulary {
 public:
  // Takes tokens and types out of `data`, after checking them.
  static Result<Vocabulary> create(TokenizerData& data);

  size_t size() const { return tokens_.size(); }
  bool contains(TokenId id) const { return id >= 0 && static_cast<size_t>(id) < tokens_.size(); }
  std::string_view written(TokenId id) const { return tokens_[static_cast<size_t>(id)]; }
  std::string_view bytes(TokenId id) const { return bytes_[static_cast<size_t>(id)]; }
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
  // Where the id of `written` stands in ids_, or the free place where it would.
  size_t slot(std::string_view written) const;

  StringTable tokens_, bytes_;
  std::vector<TokenType> types_;
  std::vector<TokenId> ids_;  // by the hash of what is written; a power of two, at most half full
  std::array<TokenId, 256> byte_ids_{};
};

// The value of a token written "<0xXX>".
std::optional<uint8_t> parse_byte_token(std::string_view written);

}  // namespace mkv
