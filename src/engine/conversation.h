// Conversation: messages so far, and the tokens in which the model wants to read them.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "engine/session.h"
#include "text/chat_template.h"

namespace mkv {

// Belongs to one thread; borrows the model.
class Conversation {
 public:
  // An empty `system` is none. Errors: a model without a chat template, or with one that cannot be
  // parsed.
  static Result<Conversation> create(const Model& model, const std::string& system);

  // The tokens that ask for the next answer. They go on from the tokens of the last one where the
  // template allows it, so that the cache can be kept: text, tokenised again, may give others.
  Result<std::vector<TokenId>> ask(std::string question);
  // `whole`: the answer's text is all of its tokens, not cut by a stop string.
  void answered(const Completion& answer, bool whole);
  // A token that ends an answer.
  bool ends(TokenId token) const;

 private:
  Conversation(const Model& model, ChatTemplate recipe)
      : model_(&model), recipe_(std::move(recipe)) {}
  Result<std::vector<TokenId>> encode(std::string_view text) const;
  Result<std::optional<std::vector<TokenId>>> go_on(std::string_view rest) const;

  const Model* model_;
  ChatTemplate recipe_;
  ChatOptions options_;
  std::vector<ChatMessage> messages_;
  std::string seen_text_;  // the last rendering and its answer, and their tokens
  std::vector<TokenId> seen_tokens_;
};

}  // namespace mkv
