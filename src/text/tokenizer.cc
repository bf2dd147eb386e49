#include "text/tokenizer.h"

#include <algorithm>
#include <deque>

#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/normalizer.h"
#include "text/pre_tokenizer.h"
#include "text/sentencepiece.h"
#include "text/tokenizer_data.h"
#include "text/vocabulary.h"

namespace mkv {
namespace {

constexpr std::string_view kEscapedSpace = "\xE2\x96\x81";  // U+2581

// Memory of one call of encode().
struct Scratch {
  BpeScratch bpe;
  SentencePieceScratch sentencepiece;
  RegexScratch regex;
  Pieces pieces;
  std::deque<std::string> texts;  // normalised fragments; pieces are views of them
};

// Where encode puts a space that decode_all takes away again.
enum class AddedSpace : uint8_t { nowhere, at_start, in_each_fragment };

AddedSpace added_space(const TokenizerData& data) {
  if (data.model == TokenizerModel::sentencepiece) {
    return data.add_space_prefix ? AddedSpace::in_each_fragment : AddedSpace::nowhere;
  }
  if (data.model == TokenizerModel::byte_bpe) return AddedSpace::nowhere;
  for (const NormalizerStep& step : data.normalizer) {
    const bool space = step.to == kEscapedSpace || step.to == " ";
    if (step.kind == NormalizerStep::Kind::prepend && space) return AddedSpace::in_each_fragment;
  }
  for (const PreTokenizerStep& step : data.pre_tokenizer) {
    if (step.kind != PreTokenizerStep::Kind::metaspace) continue;
    if (step.prepend == PrependScheme::first) return AddedSpace::at_start;
    if (step.prepend == PrependScheme::always) return AddedSpace::in_each_fragment;
  }
  return AddedSpace::nowhere;
}

Error id_error(std::string_view what, TokenId id, size_t size) {
  return make_error(ErrorCode::corrupt, "tokenizer: " + std::string(what) + " is token " +
                                            std::to_string(id) + ", but there are " +
                                            std::to_string(size) + " tokens");
}

class TextTokenizer final : public Tokenizer {
 public:
  static Result<std::unique_ptr<Tokenizer>> create(TokenizerData data);

  Result<std::vector<TokenId>> encode(std::string_view text,
                                      const EncodeOptions& options) const override;
  std::string decode(TokenId token, bool with_special) const override;
  std::string decode_all(std::span<const TokenId> tokens, bool with_special) const override;
  size_t vocab_size() const override { return vocabulary_.size(); }
  const SpecialTokens& special() const override { return special_; }
  std::optional<TokenId> find(std::string_view token) const override {
    return vocabulary_.find(token);
  }

 private:
  Result<void> check_ids(const TokenizerData& data) const;
  Result<void> set_added(const TokenizerData& data);
  Result<void> encode_text(std::string_view text, bool at_start, const EncodeOptions& options,
                           Scratch& scratch, std::vector<TokenId>& out) const;
  Result<void> encode_sentencepiece(std::string_view text, bool with_space, Scratch& scratch,
                                    std::vector<TokenId>& out) const;
  Result<void> encode_bpe(std::string_view text, bool at_start, const EncodeOptions& options,
                          Scratch& scratch, std::vector<TokenId>& out) const;
  Result<void> encode_pieces(std::string_view text, bool at_start, Scratch& scratch,
                             std::vector<TokenId>& out) const;
  std::string_view bytes_of(TokenId token, bool with_special) const;

  Vocabulary vocabulary_;
  TokenizerModel model_ = TokenizerModel::byte_bpe;
  Bpe bpe_;
  SentencePiece sentencepiece_;
  PreTokenizer pre_tokenizer_;
  std::vector<NormalizerStep> normalizer_;
  AddedTokens added_;             // found in the text as given
  AddedTokens normalized_added_;  // found in the normalised text
  std::vector<bool> is_added_;    // by token id
  AddedSpace added_space_ = AddedSpace::nowhere;
  SpecialTokens special_;
};

Result<void> TextTokenizer::check_ids(const TokenizerData& data) const {
  const SpecialTokens& special = data.special;
  const std::pair<std::string_view, std::optional<TokenId>> named[] = {
      {"bos", special.bos},         {"eos", special.eos},         {"eot", special.eot},
      {"unknown", special.unknown}, {"padding", special.padding}, {"unknown", data.unknown}};
  for (const auto& [name, id] : named) {
    if (id && !vocabulary_.contains(*id)) return id_error(name, *id, vocabulary_.size());
  }
  for (const TokenId id : special.end_of_generation) {
    if (!vocabulary_.contains(id)) {
      return id_error("an end of generation", id, vocabulary_.size());
    }
  }
  if (special.add_bos && !special.bos) {
    return make_error(ErrorCode::corrupt, "tokenizer: BOS is to be added, but there is none");
  }
  for (const NormalizerStep& step : data.normalizer) {
    if (step.kind == NormalizerStep::Kind::replace && step.from.empty()) {
      return make_error(ErrorCode::corrupt, "Replace normalizer: its pattern is empty");
    }
  }
  return {};
}

Result<void> TextTokenizer::set_added(const TokenizerData& data) {
  is_added_.resize(vocabulary_.size());
  for (const AddedToken& token : data.added) {
    if (!vocabulary_.contains(token.id)) {
      return id_error("added token \"" + token.content + "\"", token.id, vocabulary_.size());
    }
    is_added_[static_cast<size_t>(token.id)] = true;
    if (token.normalized) {
      MKV_ASSIGN(const std::string content, normalize(token.content, data.normalizer));
      MKV_TRY(normalized_added_.add(token, content));
    } else {
      MKV_TRY(added_.add(token, token.content));
    }
  }
  return {};
}

Result<std::unique_ptr<Tokenizer>> TextTokenizer::create(TokenizerData data) {
  auto tokenizer = std::make_unique<TextTokenizer>();
  MKV_ASSIGN(tokenizer->vocabulary_, Vocabulary::create(data));
  MKV_TRY(tokenizer->check_ids(data));
  MKV_TRY(tokenizer->set_added(data));
  tokenizer->model_ = data.model;
  if (data.model == TokenizerModel::sentencepiece) {
    MKV_ASSIGN(tokenizer->sentencepiece_, SentencePiece::create(data, tokenizer->vocabulary_));
  } else {
    MKV_ASSIGN(tokenizer->bpe_, Bpe::create(data, tokenizer->vocabulary_));
  }
  MKV_ASSIGN(tokenizer->pre_tokenizer_, PreTokenizer::create(data.pre_tokenizer));
  tokenizer->added_space_ = added_space(data);
  tokenizer->normalizer_ = std::move(data.normalizer);
  tokenizer->special_ = std::move(data.special);
  return std::unique_ptr<Tokenizer>(std::move(tokenizer));
}

Result<std::vector<TokenId>> TextTokenizer::encode(std::string_view text,
                                                   const EncodeOptions& options) const {
  std::vector<TokenId> out;
  out.reserve(text.size() / 4 + 1);
  if (options.add_special && special_.add_bos) out.push_back(*special_.bos);
  Scratch scratch;
  std::vector<Fragment> fragments;
  added_.split(text, options.parse_special, fragments);
  for (const Fragment& fragment : fragments) {
    if (fragment.token) {
      out.push_back(*fragment.token);
    } else {
      const bool at_start = fragment.text.data() == text.data();
      MKV_TRY(encode_text(fragment.text, at_start, options, scratch, out));
    }
  }
  return out;
}

Result<void> TextTokenizer::encode_text(std::string_view text, bool at_start,
                                        const EncodeOptions& options, Scratch& scratch,
                                        std::vector<TokenId>& out) const {
  if (model_ == TokenizerModel::sentencepiece) {
    // Text always follows the start or an added token.
    const bool with_space = added_space_ == AddedSpace::in_each_fragment;
    return encode_sentencepiece(text, with_space, scratch, out);
  }
  return encode_bpe(text, at_start, options, scratch, out);
}

Result<void> TextTokenizer::encode_sentencepiece(std::string_view text, bool with_space,
                                                 Scratch& scratch,
                                                 std::vector<TokenId>& out) const {
  std::string escaped(with_space ? kEscapedSpace : std::string_view());
  escaped.reserve(text.size() + text.size() / 2);
  for (const char c : text) {
    if (c == ' ') {
      escaped += kEscapedSpace;
    } else {
      escaped += c;
    }
  }
  return sentencepiece_.encode(escaped, scratch.sentencepiece, out);
}

Result<void> TextTokenizer::encode_bpe(std::string_view text, bool at_start,
                                       const EncodeOptions& options, Scratch& scratch,
                                       std::vector<TokenId>& out) const {
  if (!normalizer_.empty()) {
    MKV_ASSIGN(std::string normalized, normalize(text, normalizer_));
    text = scratch.texts.emplace_back(std::move(normalized));
  }
  std::vector<Fragment> fragments;
  normalized_added_.split(text, options.parse_special, fragments);
  for (const Fragment& fragment : fragments) {
    if (fragment.token) {
      out.push_back(*fragment.token);
    } else {
      const bool first = at_start && fragment.text.data() == text.data();
      MKV_TRY(encode_pieces(fragment.text, first, scratch, out));
    }
  }
  return {};
}

Result<void> TextTokenizer::encode_pieces(std::string_view text, bool at_start, Scratch& scratch,
                                          std::vector<TokenId>& out) const {
  scratch.pieces.list.clear();
  MKV_TRY(pre_tokenizer_.split(text, at_start, scratch.regex, scratch.pieces));
  for (const std::string_view piece : scratch.pieces.list) {
    MKV_TRY(bpe_.encode(piece, scratch.bpe, out));
  }
  return {};
}

std::string_view TextTokenizer::bytes_of(TokenId token, bool with_special) const {
  if (!vocabulary_.contains(token)) return {};
  if (!with_special && vocabulary_.is_special(token)) return {};
  return vocabulary_.bytes(token);
}

std::string TextTokenizer::decode(TokenId token, bool with_special) const {
  return std::string(bytes_of(token, with_special));
}

std::string TextTokenizer::decode_all(std::span<const TokenId> tokens, bool with_special) const {
  std::string text;
  bool after_added_space = added_space_ != AddedSpace::nowhere;
  for (size_t i = 0; i < tokens.size(); ++i) {
    const TokenId token = tokens[i];
    std::string_view bytes = bytes_of(token, with_special);
    const bool is_added = vocabulary_.contains(token) && is_added_[static_cast<size_t>(token)];
    if (is_added) {
      const bool is_added_bos = i == 0 && special_.add_bos && token == special_.bos;
      after_added_space =
          added_space_ == AddedSpace::in_each_fragment || (after_added_space && is_added_bos);
    } else {
      if (after_added_space && bytes.starts_with(' ')) bytes.remove_prefix(1);
      after_added_space = false;
    }
    text += bytes;
  }
  return text;
}

}  // namespace

Result<std::unique_ptr<Tokenizer>> make_tokenizer(TokenizerData data) {
  return TextTokenizer::create(std::move(data));
}

}  // namespace mkv
