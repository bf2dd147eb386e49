#include "text/chat_template.h"

#include <algorithm>

#include "store/json.h"
#include "text/jinja_interpreter.h"
#include "text/jinja_parser.h"

namespace mkv {
namespace {

using jinja::Heap;
using jinja::Value;

constexpr int kMaxJsonDepth = 100;

Result<Value> to_value(const OrderedJson& json, Heap& heap, int depth) {
  if (depth > kMaxJsonDepth) {
    return make_error(ErrorCode::capacity, "chat template: a variable is nested more than " +
                                               std::to_string(kMaxJsonDepth) + " levels deep");
  }
  if (json.is_boolean()) return Value(json.get<bool>());
  if (json.is_number_float()) return Value(json.get<double>());
  if (json.is_number_unsigned() && json.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) {
    return Value(json.get<double>());
  }
  if (json.is_number_integer()) return Value(json.get<int64_t>());
  if (json.is_string()) return Value(std::string_view(*json.get_ptr<const std::string*>()));
  if (json.is_array()) {
    std::vector<Value> items;
    for (const OrderedJson& item : json) {
      MKV_ASSIGN(const Value value, to_value(item, heap, depth + 1));
      items.push_back(value);
    }
    return heap.list(std::move(items));
  }
  if (!json.is_object()) return Value(jinja::None{});
  jinja::Dict* const dict = heap.dict();
  for (const auto& [key, item] : json.items()) {
    MKV_ASSIGN(const Value value, to_value(item, heap, depth + 1));
    heap.count(2 * sizeof(Value));
    // Keys of a JSON object are unique already.
    dict->entries.emplace_back(Value(std::string_view(key)), value);
  }
  return Value(dict);
}

Result<Value> message_value(const ChatMessage& message, Heap& heap) {
  jinja::Dict* const dict = heap.dict();
  dict->set(Value(std::string_view("role")), Value(std::string_view(message.role)));
  if (message.content) {
    dict->set(Value(std::string_view("content")), Value(std::string_view(*message.content)));
  }
  if (!message.extra.is_object() && !message.extra.is_null()) {
    return make_error(ErrorCode::invalid_argument,
                      "chat template: the further keys of a message must be a JSON object");
  }
  for (const auto& [key, item] : message.extra.items()) {
    MKV_ASSIGN(const Value value, to_value(item, heap, 0));
    dict->set(heap.string(key), value);
  }
  return Value(dict);
}

std::tm local_time() {
  const std::time_t seconds = std::time(nullptr);
  std::tm now{};
  localtime_r(&seconds, &now);
  return now;
}

}  // namespace

Result<OrderedJson> parse_ordered_json(std::string_view text, std::string_view what) {
  MKV_TRY(parse_json(text, what));  // its limits and its messages
  OrderedJson json = OrderedJson::parse(text, nullptr, false);
  if (json.is_discarded()) {
    return make_error(ErrorCode::corrupt, std::string(what) + ": not valid JSON");
  }
  return json;
}

ChatTemplate::ChatTemplate() = default;
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;
ChatTemplate::~ChatTemplate() = default;

Result<ChatTemplate> ChatTemplate::of_model(std::string source, const ChatLimits& limits) {
  if (source.empty()) {
    return make_error(
        ErrorCode::not_found,
        "the model has no chat template: give the prompt as plain text, or a template");
  }
  return parse(std::move(source), limits);
}

Result<ChatTemplate> ChatTemplate::parse(std::string source, const ChatLimits& limits) {
  if (source.size() > limits.template_bytes) {
    return make_error(ErrorCode::capacity,
                      "chat template of " + std::to_string(source.size()) + " bytes; at most " +
                          std::to_string(limits.template_bytes) + " are taken");
  }
  MKV_ASSIGN(jinja::Ast ast, jinja::parse(source));
  ChatTemplate result;
  result.ast_ = std::make_unique<const jinja::Ast>(std::move(ast));
  result.source_ = std::move(source);
  result.limits_ = limits;
  return result;
}

Result<std::string> ChatTemplate::render(std::span<const ChatMessage> messages,
                                         const ChatOptions& options) const {
  jinja::Runtime runtime{Heap({limits_.heap_bytes, limits_.steps}),
                         options.now ? *options.now : local_time()};
  Heap& heap = runtime.heap;
  std::vector<Value> list;
  for (const ChatMessage& message : messages) {
    MKV_ASSIGN(const Value value, message_value(message, heap));
    list.push_back(value);
  }
  jinja::NamedValues globals = {
      {"messages", heap.list(std::move(list))},
      {"add_generation_prompt", Value(options.add_generation_prompt)},
      {"bos_token", Value(std::string_view(options.bos))},
      {"eos_token", Value(std::string_view(options.eos))},
  };
  for (const auto& [name, json] : options.variables) {
    MKV_ASSIGN(const Value value, to_value(json, heap, 0));
    const auto known = std::find_if(globals.begin(), globals.end(),
                                    [&name = name](const auto& g) { return g.first == name; });
    if (known == globals.end()) {
      globals.emplace_back(name, value);
    } else {
      known->second = value;
    }
  }
  return jinja::Interpreter(*ast_, runtime, limits_.output_bytes).run(globals);
}

}  // namespace mkv
