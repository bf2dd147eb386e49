// Tokenizers from hostile files, and hostile texts. The first byte chooses:
//   0  the rest is a tokenizer.json      1  the rest is a GGUF file
//   else a text for a byte-level and a SentencePiece tokenizer, which must give it back.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "base/check.h"
#include "text/byte_chars.h"
#include "text/tokenizer_loading.h"
#include "text/utf8.h"

namespace {

using mkv::TokenizerData;
using mkv::TokenizerModel;
using mkv::TokenType;

TokenizerData byte_level() {
  TokenizerData data;
  for (int byte = 0; byte < 256; ++byte) {
    data.tokens.push_back(mkv::bytes_to_chars(std::string(1, static_cast<char>(byte))));
  }
  data.merges = {{"a", "a"}, {"a", "b"}, {"aa", "aa"}};
  for (const auto& [left, right] : data.merges) data.tokens.push_back(left + right);
  data.types.assign(data.tokens.size(), TokenType::normal);
  data.pre_tokenizer = mkv::pre_tokenizer_named("llama-bpe").value();
  return data;
}

TokenizerData sentencepiece() {
  TokenizerData data;
  data.model = TokenizerModel::sentencepiece;
  data.add_space_prefix = true;
  for (const char* token : {"<unk>", "<s>", "</s>"}) {
    data.tokens.emplace_back(token);
    data.types.push_back(TokenType::control);
  }
  for (int byte = 0; byte < 256; ++byte) {
    constexpr char kDigits[] = "0123456789ABCDEF";
    data.tokens.push_back(std::string("<0x") + kDigits[byte / 16] + kDigits[byte % 16] + ">");
    data.types.push_back(TokenType::byte);
  }
  for (const char* token : {"a", "b", "aa", "ab", "\xE2\x96\x81",
                            "\xE2\x96\x81"
                            "a"}) {
    data.tokens.emplace_back(token);
    data.types.push_back(TokenType::normal);
  }
  for (size_t i = 0; i < data.tokens.size(); ++i) data.scores.push_back(-static_cast<float>(i));
  return data;
}

void round_trip(const mkv::Tokenizer& tokenizer, const std::string& text, bool exact) {
  const auto ids = tokenizer.encode(text, {.add_special = true, .parse_special = true});
  if (!ids) return;
  const std::string back = tokenizer.decode_all(*ids, true);
  if (exact) MKV_CHECK(back == text);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  static const auto byte_tokenizer = mkv::make_tokenizer(byte_level()).value();
  static const auto spm_tokenizer = mkv::make_tokenizer(sentencepiece()).value();
  if (size == 0) return 0;
  const std::string rest(reinterpret_cast<const char*>(bytes) + 1, size - 1);
  if (bytes[0] > 1) {
    round_trip(*byte_tokenizer, rest, true);
    // U+2581 stands for the space in SentencePiece's vocabulary.
    round_trip(*spm_tokenizer, rest, rest.find("\xE2\x96\x81") == std::string::npos);
    mkv::replace_invalid_utf8(rest);
    return 0;
  }
  mkv::Result<TokenizerData> data = mkv::make_error(mkv::ErrorCode::io, "");
  if (bytes[0] == 0) {
    data = mkv::tokenizer_data_from_json(rest, "fuzz");
  } else {
    const auto file = mkv::GgufFile::parse(std::as_bytes(std::span(rest)), "fuzz");
    if (file) data = mkv::tokenizer_data_from_gguf(*file);
  }
  if (!data) return 0;
  const auto tokenizer = mkv::make_tokenizer(*std::move(data));
  if (tokenizer) round_trip(**tokenizer, "Hello <s> w\xC3\xA9rld 12\n\n \xFF", false);
  return 0;
}
