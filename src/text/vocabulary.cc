#include "text/vocabulary.h"

#include <algorithm>

#include "text/byte_chars.h"

namespace mkv {
namespace {

constexpr TokenId kNone = -1;
constexpr std::string_view kEscapedSpace = "\xE2\x96\x81";  // U+2581

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

std::string with_spaces(std::string_view written) {
  std::string bytes;
  size_t at = 0;
  for (size_t hit = written.find(kEscapedSpace); hit != std::string_view::npos;
       hit = written.find(kEscapedSpace, at)) {
    bytes += written.substr(at, hit - at);
    bytes += ' ';
    at = hit + kEscapedSpace.size();
  }
  bytes += written.substr(at);
  return bytes;
}

}  // namespace

std::optional<uint8_t> parse_byte_token(std::string_view written) {
  if (written.size() != 6 || !written.starts_with("<0x") || written[5] != '>') return std::nullopt;
  const int high = hex_digit(written[3]), low = hex_digit(written[4]);
  if (high < 0 || low < 0) return std::nullopt;
  return static_cast<uint8_t>(high * 16 + low);
}

Result<Vocabulary> Vocabulary::create(TokenizerData& data) {
  if (data.tokens.empty()) {
    return make_error(ErrorCode::corrupt, "tokenizer: the vocabulary is empty");
  }
  if (data.types.size() != data.tokens.size()) {
    return make_error(ErrorCode::corrupt, "tokenizer: " + std::to_string(data.tokens.size()) +
                                              " tokens, but " + std::to_string(data.types.size()) +
                                              " token types");
  }
  Vocabulary vocabulary;
  vocabulary.tokens_ = std::move(data.tokens);
  vocabulary.types_ = std::move(data.types);
  for (size_t id = 0; id < vocabulary.tokens_.size(); ++id) {
    const auto type = static_cast<unsigned>(vocabulary.types_[id]);
    if (type < 1 || type > 6) {
      return make_error(ErrorCode::corrupt, "tokenizer: token " + std::to_string(id) +
                                                " has the unknown type " + std::to_string(type));
    }
  }
  MKV_TRY(vocabulary.index_tokens());
  MKV_TRY(vocabulary.fill_bytes(data.model));
  return vocabulary;
}

Result<void> Vocabulary::index_tokens() {
  ids_.reserve(tokens_.size());
  for (size_t i = 0; i < tokens_.size(); ++i) {
    if (tokens_[i].empty()) continue;
    const auto id = static_cast<TokenId>(i);
    const auto [entry, fresh] = ids_.emplace(tokens_[i], id);
    // Padding of a vocabulary may repeat unused tokens; what can be written must be unique.
    if (!fresh && type(id) != TokenType::unused) {
      return make_error(ErrorCode::corrupt, "tokenizer: tokens " + std::to_string(entry->second) +
                                                " and " + std::to_string(i) +
                                                " are written alike, \"" + tokens_[i] + "\"");
    }
  }
  return {};
}

Result<void> Vocabulary::fill_bytes(TokenizerModel model) {
  byte_ids_.fill(kNone);
  bytes_.resize(tokens_.size());
  for (size_t i = 0; i < tokens_.size(); ++i) {
    const auto id = static_cast<TokenId>(i);
    const bool literal = is_special(id) || type(id) == TokenType::user_defined;
    const std::optional<uint8_t> byte =
        model == TokenizerModel::byte_bpe || literal ? std::nullopt : parse_byte_token(tokens_[i]);
    if (byte) {
      bytes_[i] = std::string(1, static_cast<char>(*byte));
      byte_ids_[*byte] = id;
      types_[i] = TokenType::byte;
    } else if (type(id) == TokenType::byte) {
      return make_error(ErrorCode::corrupt, "tokenizer: token " + std::to_string(i) + " \"" +
                                                tokens_[i] + "\" is a byte but not <0xXX>");
    } else if (literal) {
      bytes_[i] = tokens_[i];
    } else if (model == TokenizerModel::byte_bpe) {
      // A token with a character that stands for no byte cannot come from text: it is itself.
      bytes_[i] = chars_to_bytes(tokens_[i]).value_or(tokens_[i]);
    } else {
      bytes_[i] = with_spaces(tokens_[i]);
    }
  }
  if (model == TokenizerModel::byte_bpe) {
    for (size_t b = 0; b < 256; ++b) {
      const std::string byte(1, static_cast<char>(static_cast<uint8_t>(b)));
      byte_ids_[b] = find_text(bytes_to_chars(byte)).value_or(kNone);
    }
  }
  return {};
}

std::optional<TokenId> Vocabulary::find(std::string_view written) const {
  const auto found = ids_.find(written);
  if (found == ids_.end()) return std::nullopt;
  return found->second;
}

std::optional<TokenId> Vocabulary::find_text(std::string_view written) const {
  const std::optional<TokenId> id = find(written);
  if (!id || is_special(*id) || type(*id) == TokenType::byte) return std::nullopt;
  return id;
}

std::optional<TokenId> Vocabulary::of_byte(uint8_t byte) const {
  const TokenId id = byte_ids_[byte];
  if (id == kNone) return std::nullopt;
  return id;
}

}  // namespace mkv
