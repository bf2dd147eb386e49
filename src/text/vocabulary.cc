#include "text/vocabulary.h"

#include <algorithm>
#include <bit>
#include <functional>

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

void StringTable::assign(std::span<const std::string> strings) {
  size_t size = 0;
  for (const std::string& s : strings) size += s.size();
  text_.clear();
  text_.reserve(size);
  ends_.clear();
  ends_.reserve(strings.size());
  for (const std::string& s : strings) {
    text_ += s;
    ends_.push_back(text_.size());
  }
}

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
  vocabulary.tokens_.assign(data.tokens);
  data.tokens = {};
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

size_t Vocabulary::slot(std::string_view written) const {
  const size_t mask = ids_.size() - 1;
  const size_t hash = std::hash<std::string_view>()(written);
  for (size_t i = hash & mask;; i = (i + 1) & mask) {
    if (ids_[i] == kNone || this->written(ids_[i]) == written) return i;
  }
}

Result<void> Vocabulary::index_tokens() {
  ids_.assign(std::bit_ceil(2 * tokens_.size() + 1), kNone);
  for (size_t i = 0; i < tokens_.size(); ++i) {
    if (tokens_[i].empty()) continue;
    const auto id = static_cast<TokenId>(i);
    TokenId& entry = ids_[slot(tokens_[i])];
    // Padding of a vocabulary may repeat unused tokens; what can be written must be unique.
    if (entry != kNone && type(id) != TokenType::unused) {
      return make_error(ErrorCode::corrupt, "tokenizer: tokens " + std::to_string(entry) + " and " +
                                                std::to_string(i) + " are written alike, \"" +
                                                std::string(tokens_[i]) + "\"");
    }
    if (entry == kNone) entry = id;
  }
  return {};
}

Result<void> Vocabulary::fill_bytes(TokenizerModel model) {
  byte_ids_.fill(kNone);
  std::vector<std::string> bytes(tokens_.size());
  for (size_t i = 0; i < tokens_.size(); ++i) {
    const auto id = static_cast<TokenId>(i);
    const bool literal = is_special(id) || type(id) == TokenType::user_defined;
    const std::optional<uint8_t> byte =
        model == TokenizerModel::byte_bpe || literal ? std::nullopt : parse_byte_token(tokens_[i]);
    if (byte) {
      bytes[i] = std::string(1, static_cast<char>(*byte));
      byte_ids_[*byte] = id;
      types_[i] = TokenType::byte;
    } else if (type(id) == TokenType::byte) {
      return make_error(ErrorCode::corrupt, "tokenizer: token " + std::to_string(i) + " \"" +
                                                std::string(tokens_[i]) +
                                                "\" is a byte but not <0xXX>");
    } else if (literal) {
      bytes[i] = tokens_[i];
    } else if (model == TokenizerModel::byte_bpe) {
      // A token with a character that stands for no byte cannot come from text: it is itself.
      bytes[i] = chars_to_bytes(tokens_[i]).value_or(std::string(tokens_[i]));
    } else {
      bytes[i] = with_spaces(tokens_[i]);
    }
  }
  bytes_.assign(bytes);
  if (model == TokenizerModel::byte_bpe) {
    for (size_t b = 0; b < 256; ++b) {
      const std::string byte(1, static_cast<char>(static_cast<uint8_t>(b)));
      byte_ids_[b] = find_text(bytes_to_chars(byte)).value_or(kNone);
    }
  }
  return {};
}

std::optional<TokenId> Vocabulary::find(std::string_view written) const {
  const TokenId id = ids_[slot(written)];
  if (id == kNone) return std::nullopt;
  return id;
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
