#include "text/tokenizer_json.h"

#include "store/message.h"
#include "text/regex.h"

namespace mkv {
namespace {

Error unsupported(std::string_view part, std::string_view what) {
  return make_error(ErrorCode::unsupported,
                    concat(part, ": ", printable(what), " is not supported"));
}

// {"String": "..."} or {"Regex": "..."}, or a bare string in older files.
struct Pattern {
  std::string text;
  bool is_regex = false;
};
Result<Pattern> read_pattern(const Json& owner, std::string_view part) {
  MKV_ASSIGN(const Json* const pattern, get_value(owner, "pattern"));
  if (pattern->is_string()) return Pattern{pattern->get<std::string>(), false};
  if (pattern->is_object() && pattern->contains("Regex")) {
    MKV_ASSIGN(std::string text, get_string(*pattern, "Regex"));
    return Pattern{std::move(text), true};
  }
  if (pattern->is_object() && pattern->contains("String")) {
    MKV_ASSIGN(std::string text, get_string(*pattern, "String"));
    return Pattern{std::move(text), false};
  }
  return unsupported(part, "a pattern that is neither String nor Regex");
}

Result<SplitBehavior> read_behavior(const Json& split) {
  MKV_ASSIGN(const std::string name, get_string(split, "behavior"));
  if (name == "Removed") return SplitBehavior::removed;
  if (name == "Isolated") return SplitBehavior::isolated;
  if (name == "MergedWithPrevious") return SplitBehavior::merged_with_previous;
  if (name == "MergedWithNext") return SplitBehavior::merged_with_next;
  if (name == "Contiguous") return SplitBehavior::contiguous;
  return unsupported("pre_tokenizer Split", "behavior " + name);
}

Result<PreTokenizerStep> read_split(const Json& split) {
  PreTokenizerStep step;
  MKV_ASSIGN(const Pattern pattern, read_pattern(split, "pre_tokenizer Split"));
  step.pattern = pattern.is_regex ? pattern.text : escape_regex(pattern.text);
  MKV_ASSIGN(step.behavior, read_behavior(split));
  MKV_ASSIGN(step.invert, get_bool_or(split, "invert", false));
  return step;
}

Result<PreTokenizerStep> read_metaspace(const Json& metaspace) {
  PreTokenizerStep step;
  step.kind = PreTokenizerStep::Kind::metaspace;
  MKV_ASSIGN(step.replacement, get_string(metaspace, "replacement"));
  MKV_ASSIGN(step.split_words, get_bool_or(metaspace, "split", true));
  MKV_ASSIGN(const bool prefix, get_bool_or(metaspace, "add_prefix_space", true));
  MKV_ASSIGN(const std::string scheme,
             get_string_or(metaspace, "prepend_scheme", prefix ? "always" : "never"));
  if (scheme == "always") {
    step.prepend = PrependScheme::always;
  } else if (scheme == "first") {
    step.prepend = PrependScheme::first;
  } else if (scheme != "never") {
    return unsupported("pre_tokenizer Metaspace", "prepend_scheme " + scheme);
  }
  return step;
}

Result<void> read_byte_level(const Json& byte_level, TokenizerData& data) {
  data.model = TokenizerModel::byte_bpe;
  MKV_ASSIGN(const bool prefix, get_bool_or(byte_level, "add_prefix_space", true));
  MKV_ASSIGN(const bool use_regex, get_bool_or(byte_level, "use_regex", true));
  if (prefix) {
    data.pre_tokenizer.emplace_back().kind = PreTokenizerStep::Kind::prefix_space;
  }
  if (use_regex) data.pre_tokenizer.push_back(split_isolated(kGpt2Pattern));
  return {};
}

Result<PreTokenizerStep> read_digits(const Json& digits) {
  PreTokenizerStep step;
  step.kind = PreTokenizerStep::Kind::digits;
  MKV_ASSIGN(const bool individual, get_bool_or(digits, "individual_digits", false));
  step.behavior = individual ? SplitBehavior::isolated : SplitBehavior::contiguous;
  return step;
}

Result<void> read_template(const Json& post_processor, TokenizerData& data) {
  constexpr std::string_view kPart = "post_processor TemplateProcessing";
  MKV_ASSIGN(const Json* const single, get_array(post_processor, "single"));
  const size_t count = single->size();
  const bool ends_with_text =
      count >= 1 && single->back().is_object() && single->back().contains("Sequence");
  if (!ends_with_text || count > 2) return unsupported(kPart, "other than [BOS] text");
  if (count == 1) return {};
  MKV_ASSIGN(const Json* const token, get_object(single->front(), "SpecialToken"));
  MKV_ASSIGN(const std::string name, get_string(*token, "id"));
  MKV_ASSIGN(const Json* const all, get_object(post_processor, "special_tokens"));
  MKV_ASSIGN(const Json* const entry, get_object(*all, name));
  MKV_ASSIGN(const std::vector<size_t> ids, get_sizes(*entry, "ids"));
  if (ids.size() != 1 || ids[0] >= data.tokens.size()) {
    return make_error(ErrorCode::corrupt,
                      concat(kPart, ": ", printable(name), " is not one token of the vocabulary"));
  }
  data.special.add_bos = true;
  data.special.bos = static_cast<TokenId>(ids[0]);
  return {};
}

Result<void> read_pre_tokenizer_step(std::string_view type, const Json& json, TokenizerData& data) {
  if (data.model == TokenizerModel::byte_bpe) {
    // Its bytes are written as other characters from there on.
    return unsupported("pre_tokenizer", concat(type, " after ByteLevel"));
  }
  if (type == "ByteLevel") return read_byte_level(json, data);
  PreTokenizerStep step;
  if (type == "Split") {
    MKV_ASSIGN(step, read_split(json));
  } else if (type == "Digits") {
    MKV_ASSIGN(step, read_digits(json));
  } else if (type == "Metaspace") {
    MKV_ASSIGN(step, read_metaspace(json));
  } else {
    return unsupported("pre_tokenizer", type);
  }
  data.pre_tokenizer.push_back(std::move(step));
  return {};
}

}  // namespace

Result<void> read_normalizer(const Json& normalizer, TokenizerData& data) {
  if (normalizer.is_null()) return {};
  MKV_ASSIGN(const std::string type, get_string(normalizer, "type"));
  if (type == "Sequence") {
    MKV_ASSIGN(const Json* const parts, get_array(normalizer, "normalizers"));
    for (const Json& part : *parts) MKV_TRY(read_normalizer(part, data));
    return {};
  }
  using Kind = NormalizerStep::Kind;
  NormalizerStep step;
  if (type == "NFC" || type == "NFD" || type == "NFKC" || type == "NFKD") {
    step.kind = type == "NFC"    ? Kind::nfc
                : type == "NFD"  ? Kind::nfd
                : type == "NFKC" ? Kind::nfkc
                                 : Kind::nfkd;
  } else if (type == "Prepend") {
    step.kind = Kind::prepend;
    MKV_ASSIGN(step.to, get_string(normalizer, "prepend"));
  } else if (type == "Replace") {
    step.kind = Kind::replace;
    MKV_ASSIGN(const Pattern pattern, read_pattern(normalizer, "normalizer Replace"));
    if (pattern.is_regex) return unsupported("normalizer Replace", "a Regex pattern");
    step.from = pattern.text;
    MKV_ASSIGN(step.to, get_string(normalizer, "content"));
  } else if (type == "Strip") {
    step.kind = Kind::strip;
    MKV_ASSIGN(step.left, get_bool_or(normalizer, "strip_left", true));
    MKV_ASSIGN(step.right, get_bool_or(normalizer, "strip_right", true));
  } else {
    return unsupported("normalizer", type);
  }
  data.normalizer.push_back(std::move(step));
  return {};
}

Result<void> read_pre_tokenizer(const Json& pre_tokenizer, TokenizerData& data) {
  if (pre_tokenizer.is_null()) return {};
  const Result<std::string> type = get_string(pre_tokenizer, "type");
  if (!type) return type.error();
  if (*type != "Sequence") return read_pre_tokenizer_step(*type, pre_tokenizer, data);
  MKV_ASSIGN(const Json* const parts, get_array(pre_tokenizer, "pretokenizers"));
  for (const Json& part : *parts) MKV_TRY(read_pre_tokenizer(part, data));
  return {};
}

Result<void> read_post_processor(const Json& post_processor, TokenizerData& data) {
  if (post_processor.is_null()) return {};
  MKV_ASSIGN(const std::string type, get_string(post_processor, "type"));
  if (type == "ByteLevel") return {};  // it only moves offsets
  if (type == "TemplateProcessing") return read_template(post_processor, data);
  if (type != "Sequence") return unsupported("post_processor", type);
  MKV_ASSIGN(const Json* const parts, get_array(post_processor, "processors"));
  for (const Json& part : *parts) MKV_TRY(read_post_processor(part, data));
  return {};
}

}  // namespace mkv
