#include <algorithm>
#include <string>

#include "store/message.h"
#include "text/tokenizer_loading.h"

namespace mkv {
namespace {

constexpr std::string_view kEndNames[] = {"<|eot_id|>",      "<|im_end|>", "<|end|>",
                                          "<end_of_turn>",   "<|eom_id|>", "<|endoftext|>",
                                          "<|end_of_text|>", "< EOT >",    "</s>"};
constexpr size_t kEndOfTurnNames = 4;  // of these, the ones that end a turn of a chat

using Texts = std::vector<std::string_view>;

std::string key(std::string_view name) { return "tokenizer.ggml." + std::string(name); }

Result<void> read_tokens(const GgufMetadata& metadata, TokenizerData& data) {
  MKV_ASSIGN(const Texts tokens, metadata.get<Texts>(key("tokens")));
  data.tokens.assign(tokens.begin(), tokens.end());
  MKV_ASSIGN(const std::optional<std::vector<int32_t>> types,
             metadata.find<std::vector<int32_t>>(key("token_type")));
  if (!types) {
    data.types.assign(tokens.size(), TokenType::normal);
  } else {
    for (const int32_t type : *types) {
      // Out of range becomes 0, which make_tokenizer refuses by name.
      data.types.push_back(static_cast<TokenType>(type >= 0 && type < 256 ? type : 0));
    }
  }
  for (size_t i = 0; i < std::min(data.types.size(), tokens.size()); ++i) {
    const TokenType type = data.types[i];
    const bool special = type == TokenType::control || type == TokenType::unknown;
    if (!special && type != TokenType::user_defined) continue;
    AddedToken& added = data.added.emplace_back();
    added.id = static_cast<TokenId>(i);
    added.content = tokens[i];
    added.special = special;
  }
  return {};
}

Result<void> read_merges(const GgufMetadata& metadata, TokenizerData& data) {
  MKV_ASSIGN(const Texts merges, metadata.get<Texts>(key("merges")));
  data.merges.reserve(merges.size());
  for (size_t i = 0; i < merges.size(); ++i) {
    const size_t space = merges[i].find(' ', 1);  // the left part may be a space itself
    if (space == std::string_view::npos) {
      return make_error(ErrorCode::corrupt, concat(key("merges"), ": merge ", i, " (",
                                                   printable(merges[i]), ") has no space"));
    }
    data.merges.emplace_back(merges[i].substr(0, space), merges[i].substr(space + 1));
  }
  return {};
}

Result<std::optional<TokenId>> read_id(const GgufMetadata& metadata, std::string_view name,
                                       size_t size) {
  MKV_ASSIGN(const std::optional<uint64_t> id, metadata.find<uint64_t>(key(name)));
  if (!id) return std::optional<TokenId>();
  if (*id >= size) {
    return make_error(ErrorCode::corrupt,
                      concat(key(name), ": ", *id, ", but there are ", size, " tokens"));
  }
  return std::optional<TokenId>(static_cast<TokenId>(*id));
}

Result<void> read_special(const GgufMetadata& metadata, bool adds_bos, TokenizerData& data) {
  SpecialTokens& special = data.special;
  const size_t size = data.tokens.size();
  MKV_ASSIGN(special.bos, read_id(metadata, "bos_token_id", size));
  MKV_ASSIGN(special.eos, read_id(metadata, "eos_token_id", size));
  MKV_ASSIGN(special.eot, read_id(metadata, "eot_token_id", size));
  MKV_ASSIGN(special.unknown, read_id(metadata, "unknown_token_id", size));
  MKV_ASSIGN(special.padding, read_id(metadata, "padding_token_id", size));
  MKV_ASSIGN(const std::optional<TokenId> eom, read_id(metadata, "eom_token_id", size));
  if (eom) special.end_of_generation.push_back(*eom);
  MKV_ASSIGN(special.add_bos, metadata.get_or<bool>(key("add_bos_token"), std::move(adds_bos)));
  MKV_ASSIGN(const bool adds_eos, metadata.get_or<bool>(key("add_eos_token"), false));
  if (adds_eos) {
    return make_error(ErrorCode::unsupported,
                      key("add_eos_token") + ": true, but an EOS after each text is not supported");
  }
  return {};
}

Result<void> read_bpe(const GgufMetadata& metadata, TokenizerData& data) {
  data.model = TokenizerModel::byte_bpe;
  MKV_TRY(read_merges(metadata, data));
  MKV_ASSIGN(const std::string_view pre,
             metadata.get_or<std::string_view>(key("pre"), std::string_view("default")));
  MKV_ASSIGN(data.pre_tokenizer, pre_tokenizer_named(pre));
  data.ignore_merges = pre == "llama-bpe" || pre == "llama3" || pre == "llama-v3";
  return read_special(metadata, data.ignore_merges, data);
}

Result<void> read_sentencepiece(const GgufMetadata& metadata, TokenizerData& data) {
  data.model = TokenizerModel::sentencepiece;
  data.byte_fallback = true;
  MKV_ASSIGN(data.scores, metadata.get<std::vector<float>>(key("scores")));
  MKV_ASSIGN(data.add_space_prefix, metadata.get_or<bool>(key("add_space_prefix"), true));
  MKV_TRY(read_special(metadata, true, data));
  // SentencePiece's own numbering, which old files rely on.
  SpecialTokens& special = data.special;
  if (data.tokens.size() > 2) {
    if (!special.unknown) special.unknown = 0;
    if (!special.bos) special.bos = 1;
    if (!special.eos) special.eos = 2;
  }
  data.unknown = special.unknown;
  return {};
}

Result<TokenizerData> read(const GgufMetadata& metadata) {
  TokenizerData data;
  MKV_ASSIGN(const std::string_view model, metadata.get<std::string_view>(key("model")));
  MKV_TRY(read_tokens(metadata, data));
  if (model == "gpt2") {
    MKV_TRY(read_bpe(metadata, data));
  } else if (model == "llama") {
    MKV_TRY(read_sentencepiece(metadata, data));
  } else {
    return make_error(ErrorCode::unsupported, concat(key("model"), ": ", printable(model),
                                                     "; only gpt2 and llama are supported"));
  }
  MKV_ASSIGN(const std::string_view chat_template,
             metadata.get_or<std::string_view>("tokenizer.chat_template", std::string_view()));
  data.chat_template = chat_template;
  add_ends_of_generation(data);
  return data;
}

}  // namespace

Result<TokenizerData> tokenizer_data_from_gguf(const GgufFile& file) {
  Result<TokenizerData> data = read(file.metadata());
  if (data) return data;
  const bool is_named = data.error().message.starts_with(file.path());
  return is_named ? std::move(data).error() : in_context(file.path(), std::move(data).error());
}

void add_ends_of_generation(TokenizerData& data) {
  std::vector<TokenId>& ends = data.special.end_of_generation;
  for (size_t i = 0; i < std::size(kEndNames); ++i) {
    const auto named = std::find_if(data.added.begin(), data.added.end(),
                                    [&](const AddedToken& t) { return t.content == kEndNames[i]; });
    if (named == data.added.end()) continue;
    ends.push_back(named->id);
    if (i < kEndOfTurnNames && !data.special.eot) data.special.eot = named->id;
  }
  if (data.special.eos) ends.push_back(*data.special.eos);
  if (data.special.eot) ends.push_back(*data.special.eot);
  std::sort(ends.begin(), ends.end());
  ends.erase(std::unique(ends.begin(), ends.end()), ends.end());
}

}  // namespace mkv
