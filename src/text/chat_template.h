// ChatTemplate: a model's own recipe for turning a chat into the text that it was trained on, in
// a subset of Jinja (README.md says which).
#pragma once

#include <cstddef>
#include <ctime>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace mkv {

namespace jinja {
struct Ast;
}

// Unlike Json, keeps the order of keys: templates print dicts, and models were trained on that
// order.
using OrderedJson = nlohmann::ordered_json;
// At most 64 levels deep, as parse_json.
Result<OrderedJson> parse_ordered_json(std::string_view text, std::string_view what);

struct ChatMessage {
  std::string role;
  std::optional<std::string> content;  // nothing: the message has no such key
  // Further keys ("tool_calls", "name", ...); one called "content" replaces the text above, for
  // messages whose content is null or a list of parts.
  OrderedJson extra = OrderedJson::object();
};

struct ChatOptions {
  bool add_generation_prompt = true;  // ends where the assistant's answer begins
  std::string bos, eos;               // the written forms, for bos_token and eos_token
  // Further variables ("tools", "enable_thinking", ...).
  std::vector<std::pair<std::string, OrderedJson>> variables = {};
  std::optional<std::tm> now = std::nullopt;  // for strftime_now; without it, the local time
};

// What a template may use, so that a hostile one ends with an error.
struct ChatLimits {
  size_t template_bytes = size_t{1} << 20;
  size_t output_bytes = size_t{64} << 20;
  size_t heap_bytes = size_t{256} << 20;  // of strings and lists made on the way
  size_t steps = 10'000'000;              // a second or two
};

// Immutable: safe from many threads.
class ChatTemplate {
 public:
  static Result<ChatTemplate> parse(std::string source, const ChatLimits& limits = {});
  // The same for TokenizerData::chat_template, where empty means that the model has none: an error
  // that says so.
  static Result<ChatTemplate> of_model(std::string source, const ChatLimits& limits = {});
  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;
  ~ChatTemplate();

  Result<std::string> render(std::span<const ChatMessage> messages,
                             const ChatOptions& options) const;
  const std::string& source() const { return source_; }

 private:
  ChatTemplate();

  std::string source_;
  ChatLimits limits_;
  std::unique_ptr<const jinja::Ast> ast_;
};

}  // namespace mkv
