#include "engine/conversation.h"

#include <algorithm>
#include <utility>

namespace mkv {

Result<Conversation> Conversation::create(const Model& model, const std::string& system) {
  MKV_ASSIGN(ChatTemplate recipe, ChatTemplate::of_model(model.chat_template().value_or("")));
  Conversation conversation(model, std::move(recipe));
  const SpecialTokens& special = model.tokenizer().special();
  if (special.bos) conversation.options_.bos = model.tokenizer().decode(*special.bos, true);
  if (special.eos) conversation.options_.eos = model.tokenizer().decode(*special.eos, true);
  if (!system.empty()) conversation.messages_.push_back({"system", system});
  return conversation;
}

Result<std::vector<TokenId>> Conversation::ask(std::string question) {
  messages_.push_back({"user", std::move(question)});
  auto rendered = recipe_.render(messages_, options_);
  if (!rendered) return make_error(ErrorCode::unsupported, rendered.error().message);
  std::string text = std::move(*rendered);
  std::optional<std::vector<TokenId>> tokens;
  if (!seen_tokens_.empty() && text.starts_with(seen_text_)) {
    MKV_ASSIGN(tokens, go_on(std::string_view(text).substr(seen_text_.size())));
  }
  if (!tokens) {
    MKV_ASSIGN(tokens, encode(text));
    const SpecialTokens& special = model_->tokenizer().special();
    const bool wants_bos = special.add_bos;
    if (wants_bos && (tokens->empty() || tokens->front() != *special.bos)) {
      tokens->insert(tokens->begin(), *special.bos);
    }
  }
  seen_text_ = std::move(text);
  seen_tokens_ = *tokens;
  return *std::move(tokens);
}

void Conversation::answered(const Completion& answer, bool whole) {
  messages_.push_back({"assistant", answer.text});
  if (!whole) seen_tokens_.clear();
  if (seen_tokens_.empty()) return;
  seen_text_ += answer.text;
  seen_tokens_.insert(seen_tokens_.end(), answer.tokens.begin(), answer.tokens.end());
  if (!answer.tokens.empty() && ends(answer.tokens.back())) seen_tokens_.pop_back();
}

bool Conversation::ends(TokenId token) const {
  return std::ranges::find(model_->tokenizer().special().end_of_generation, token) !=
         model_->tokenizer().special().end_of_generation.end();
}

Result<std::vector<TokenId>> Conversation::encode(std::string_view text) const {
  return model_->tokenizer().encode(text, {.add_special = false, .parse_special = true});
}

// The tokens seen and those of `rest`, if it begins with a special token: elsewhere its first
// letters might have been part of the token before.
Result<std::optional<std::vector<TokenId>>> Conversation::go_on(std::string_view rest) const {
  std::optional<std::vector<TokenId>> tokens;
  MKV_ASSIGN(const std::vector<TokenId> more, encode(rest));
  if (!more.empty() && model_->tokenizer().decode(more.front(), false).empty()) {
    tokens = seen_tokens_;
    tokens->insert(tokens->end(), more.begin(), more.end());
  }
  return tokens;
}

}  // namespace mkv
