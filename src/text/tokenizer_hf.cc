#include <algorithm>
#include <string>

#include "store/json.h"
#include "store/mapped_file.h"
#include "store/message.h"
#include "text/tokenizer_json.h"
#include "text/tokenizer_loading.h"

namespace mkv {
namespace {

constexpr size_t kMaxTokenizerBytes = size_t{256} << 20;
constexpr size_t kMaxConfigBytes = size_t{16} << 20;
constexpr size_t kMaxTokens = size_t{1} << 22;  // of vocabularies, the largest have 2^18

Error corrupt(std::string message) { return make_error(ErrorCode::corrupt, std::move(message)); }

Result<void> place_token(size_t id, const std::string& content, TokenType type,
                         TokenizerData& data) {
  if (id >= kMaxTokens) {
    return make_error(ErrorCode::capacity, concat("token ", printable(content), ": id ", id,
                                                  "; at most ", kMaxTokens, " are taken"));
  }
  if (id >= data.tokens.size()) {
    data.tokens.resize(id + 1);
    data.types.resize(id + 1, TokenType::unused);
  }
  if (!data.tokens[id].empty() && data.tokens[id] != content) {
    return corrupt(
        concat("id ", id, " is both ", printable(data.tokens[id]), " and ", printable(content)));
  }
  data.tokens[id] = content;
  data.types[id] = type;
  return {};
}

Result<void> read_vocabulary(const Json& model, TokenizerData& data) {
  MKV_ASSIGN(const Json* const vocab, get_object(model, "vocab"));
  for (const auto& [content, value] : vocab->items()) {
    Result<size_t> id = as_size(value);
    if (!id) return in_context("vocab " + printable(content), std::move(id).error());
    MKV_TRY(place_token(*id, content, TokenType::normal, data));
  }
  return {};
}

Result<void> read_merges(const Json& model, TokenizerData& data) {
  MKV_ASSIGN(const Json* const merges, get_array(model, "merges"));
  data.merges.reserve(merges->size());
  for (const Json& merge : *merges) {
    if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      data.merges.emplace_back(merge[0].get<std::string>(), merge[1].get<std::string>());
      continue;
    }
    const std::string text = merge.is_string() ? merge.get<std::string>() : std::string();
    const size_t space = text.find(' ');
    if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) {
      return corrupt(
          concat("merge ", data.merges.size(), " is neither \"a b\" nor [\"a\", \"b\"]"));
    }
    data.merges.emplace_back(text.substr(0, space), text.substr(space + 1));
  }
  return {};
}

Result<void> read_model(const Json& model, TokenizerData& data) {
  MKV_ASSIGN(const std::string type, get_string_or(model, "type", "BPE"));
  if (type != "BPE") {
    return make_error(ErrorCode::unsupported,
                      concat("model: ", printable(type), "; only BPE is supported"));
  }
  MKV_ASSIGN(const double dropout, get_double_or(model, "dropout", 0));
  if (dropout != 0) return make_error(ErrorCode::unsupported, "model: dropout is not supported");
  for (const char* const affix : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    MKV_ASSIGN(const std::string text, get_string_or(model, affix, ""));
    if (!text.empty()) {
      return make_error(ErrorCode::unsupported,
                        concat("model: ", affix, " ", printable(text), " is not supported"));
    }
  }
  MKV_TRY(read_vocabulary(model, data));
  MKV_TRY(read_merges(model, data));
  MKV_ASSIGN(data.ignore_merges, get_bool_or(model, "ignore_merges", false));
  MKV_ASSIGN(data.byte_fallback, get_bool_or(model, "byte_fallback", false));
  MKV_ASSIGN(data.fuse_unknown, get_bool_or(model, "fuse_unk", false));
  MKV_ASSIGN(const std::string unknown, get_string_or(model, "unk_token", ""));
  if (!unknown.empty()) {
    const auto found = std::find(data.tokens.begin(), data.tokens.end(), unknown);
    if (found == data.tokens.end()) {
      return corrupt(concat("model: unk_token ", printable(unknown), " is not in the vocabulary"));
    }
    data.unknown = static_cast<TokenId>(found - data.tokens.begin());
  }
  return {};
}

Result<void> read_added(const Json& json, TokenizerData& data) {
  if (!json.contains("added_tokens") || json["added_tokens"].is_null()) return {};
  MKV_ASSIGN(const Json* const list, get_array(json, "added_tokens"));
  for (const Json& token : *list) {
    AddedToken added;
    MKV_ASSIGN(const size_t id, get_size(token, "id"));
    MKV_ASSIGN(added.content, get_string(token, "content"));
    MKV_ASSIGN(added.special, get_bool_or(token, "special", false));
    MKV_ASSIGN(added.single_word, get_bool_or(token, "single_word", false));
    MKV_ASSIGN(added.left_strip, get_bool_or(token, "lstrip", false));
    MKV_ASSIGN(added.right_strip, get_bool_or(token, "rstrip", false));
    MKV_ASSIGN(added.normalized, get_bool_or(token, "normalized", !added.special));
    if (added.content.empty()) continue;
    MKV_TRY(place_token(id, added.content,
                        added.special ? TokenType::control : TokenType::user_defined, data));
    added.id = static_cast<TokenId>(id);
    data.added.push_back(std::move(added));
  }
  return {};
}

Result<void> read_tokenizer(const Json& json, TokenizerData& data) {
  data.model = TokenizerModel::character_bpe;
  MKV_ASSIGN(const Json* const model, get_object(json, "model"));
  MKV_TRY(read_model(*model, data));
  MKV_TRY(read_added(json, data));
  if (json.contains("normalizer")) MKV_TRY(read_normalizer(json["normalizer"], data));
  if (json.contains("pre_tokenizer")) MKV_TRY(read_pre_tokenizer(json["pre_tokenizer"], data));
  if (json.contains("post_processor")) MKV_TRY(read_post_processor(json["post_processor"], data));
  return {};
}

// A token named in tokenizer_config.json: "</s>" or {"content": "</s>", ...}.
Result<std::optional<TokenId>> named_token(const Json& config, const char* name,
                                           const TokenizerData& data) {
  if (!config.contains(name) || config[name].is_null()) return std::optional<TokenId>();
  std::string content;
  if (config[name].is_object()) {
    MKV_ASSIGN(content, get_string(config[name], "content"));
  } else {
    MKV_ASSIGN(content, get_string(config, name));
  }
  const auto found = std::find(data.tokens.begin(), data.tokens.end(), content);
  if (found == data.tokens.end() || content.empty()) {
    return corrupt(concat(name, " ", printable(content), " is not in the vocabulary"));
  }
  return std::optional<TokenId>(static_cast<TokenId>(found - data.tokens.begin()));
}

// The template, or of several named ones the one called "default".
Result<std::string> read_chat_template(const Json& config) {
  if (!config.contains("chat_template") || config["chat_template"].is_null()) return std::string();
  const Json& value = config["chat_template"];
  if (!value.is_array()) return get_string(config, "chat_template");
  for (const Json& entry : value) {
    MKV_ASSIGN(const std::string name, get_string(entry, "name"));
    if (name == "default") return get_string(entry, "template");
  }
  return std::string();
}

Result<void> read_config(const Json& config, TokenizerData& data) {
  SpecialTokens& special = data.special;
  MKV_ASSIGN(const std::optional<TokenId> bos, named_token(config, "bos_token", data));
  if (!special.bos) special.bos = bos;
  MKV_ASSIGN(special.eos, named_token(config, "eos_token", data));
  MKV_ASSIGN(special.padding, named_token(config, "pad_token", data));
  MKV_ASSIGN(special.unknown, named_token(config, "unk_token", data));
  MKV_ASSIGN(const std::string name, get_string_or(config, "tokenizer_class", ""));
  // Only Llama's classes rebuild the post-processor from these two keys.
  if (name.find("Llama") != std::string::npos) {
    MKV_ASSIGN(special.add_bos, get_bool_or(config, "add_bos_token", special.add_bos));
    MKV_ASSIGN(const bool adds_eos, get_bool_or(config, "add_eos_token", false));
    if (adds_eos) {
      return make_error(ErrorCode::unsupported,
                        "add_eos_token: true, but an EOS after each text is not supported");
    }
  }
  MKV_ASSIGN(data.chat_template, read_chat_template(config));
  return {};
}

Result<void> read_generation(const Json& config, TokenizerData& data) {
  if (!config.contains("eos_token_id") || config["eos_token_id"].is_null()) return {};
  const Json& value = config["eos_token_id"];
  const Json list = value.is_array() ? value : Json::array({value});
  for (const Json& entry : list) {
    MKV_ASSIGN(const size_t id, as_size(entry));
    if (id >= data.tokens.size()) {
      return corrupt(
          concat("eos_token_id: ", id, ", but there are ", data.tokens.size(), " tokens"));
    }
    data.special.end_of_generation.push_back(static_cast<TokenId>(id));
    if (!data.special.eos) data.special.eos = static_cast<TokenId>(id);
  }
  return {};
}

using Reader = Result<void> (*)(const Json&, TokenizerData&);

Result<void> read_file(const std::filesystem::path& path, size_t max_bytes, Reader reader,
                       TokenizerData& data) {
  MKV_ASSIGN(const Json json, read_json_file(path, max_bytes));
  if (!json.is_object()) return corrupt(path.string() + ": not a JSON object");
  Result<void> read = reader(json, data);
  if (!read) return in_context(path.string(), std::move(read).error());
  return {};
}

Result<void> read_template_file(const std::filesystem::path& path, TokenizerData& data) {
  MKV_ASSIGN(const MappedFile file, MappedFile::open(path));
  if (file.bytes().size() > kMaxConfigBytes) {
    return make_error(ErrorCode::capacity,
                      concat(path.string(), ": ", file.bytes().size(), " bytes; at most ",
                             kMaxConfigBytes, " are taken"));
  }
  data.chat_template.assign(reinterpret_cast<const char*>(file.bytes().data()),
                            file.bytes().size());
  return {};
}

}  // namespace

Result<TokenizerData> tokenizer_data_from_json(std::string_view text, std::string_view what) {
  TokenizerData data;
  MKV_ASSIGN(const Json json, parse_json(text, what));
  if (!json.is_object()) return corrupt(concat(what, ": not a JSON object"));
  Result<void> read = read_tokenizer(json, data);
  if (!read) return in_context(what, std::move(read).error());
  add_ends_of_generation(data);
  return data;
}

Result<TokenizerData> tokenizer_data_from_hf(const std::filesystem::path& folder) {
  TokenizerData data;
  MKV_TRY(read_file(folder / "tokenizer.json", kMaxTokenizerBytes, read_tokenizer, data));
  const auto is_there = [&folder](const char* name) {
    std::error_code ignored;
    return std::filesystem::exists(folder / name, ignored);
  };
  if (is_there("tokenizer_config.json")) {
    MKV_TRY(read_file(folder / "tokenizer_config.json", kMaxConfigBytes, read_config, data));
  }
  if (is_there("generation_config.json")) {
    MKV_TRY(read_file(folder / "generation_config.json", kMaxConfigBytes, read_generation, data));
  }
  if (is_there("chat_template.jinja")) {
    MKV_TRY(read_template_file(folder / "chat_template.jinja", data));
  }
  add_ends_of_generation(data);
  return data;
}

}  // namespace mkv
