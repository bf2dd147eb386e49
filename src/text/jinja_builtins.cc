#include "text/jinja_builtins.h"

#include <algorithm>
#include <charconv>
#include <iterator>

#include "text/jinja_text.h"
#include "text/utf8.h"

namespace mkv::jinja {
namespace {

constexpr int64_t kMaxRange = 100'000;  // as Jinja's sandbox

std::string changed(std::string_view text, char32_t (*change)(char32_t)) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const CodePoint c = code_point_at(text, at);
    if (c.valid) {
      append_utf8(out, change(c.value));
    } else {
      out += text[at];
    }
    at += c.bytes;
  }
  return out;
}

Result<Value> range(Call& call) {
  MKV_ASSIGN(const int64_t first, call.integer(0, 0));
  MKV_ASSIGN(const int64_t second, call.integer(1, 0));
  MKV_ASSIGN(const int64_t step, call.integer(2, 1));
  const int64_t begin = call.args[1] ? first : 0, end = call.args[1] ? second : first;
  if (step == 0) return failure("range() with a step of 0");
  std::vector<Value> items;
  for (int64_t i = begin; step > 0 ? i < end : i > end;) {
    if (static_cast<int64_t>(items.size()) >= kMaxRange) {
      return make_error(ErrorCode::capacity,
                        "range() of more than " + std::to_string(kMaxRange) + " numbers");
    }
    items.emplace_back(i);
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return call.heap().list(std::move(items));
}

Result<Value> make_dict(Call& call) {
  Dict* const dict = call.heap().dict();
  for (const auto& [name, value] : call.named) {
    MKV_TRY(call.heap().spend(dict->entries.size() * sizeof(Value)));
    dict->set(Value(name), value);
  }
  return Value(dict);
}

Result<Value> make_namespace(Call& call) {
  MKV_ASSIGN(const Value value, make_dict(call));
  value.as<Dict*>()->is_namespace = true;
  return value;
}

Result<Value> raise_exception(Call& call) {
  MKV_ASSIGN(const std::string_view message, call.string(0, ""));
  return failure(std::string(message));
}

Result<Value> strftime_now(Call& call) {
  MKV_ASSIGN(const std::string_view format, call.string(0, ""));
  // strftime gives 0 for an empty result as well as for one that does not fit; the blank in front
  // keeps the two apart.
  const std::string pattern = " " + std::string(format.substr(0, format.find('\0')));
  std::string text(pattern.size() * 16 + 256, '\0');
  if (!call.heap().has_room(text.size())) return failure(call.heap().describe());
  const size_t size = std::strftime(text.data(), text.size(), pattern.c_str(), &call.runtime.now);
  if (size == 0) return failure("strftime_now: the format gives too long a text");
  return call.text(text.substr(1, size - 1));
}

constexpr Builtin kFunctions[] = {
    {"range", "start stop? step?", range},    {"dict", "**", make_dict},
    {"namespace", "**", make_namespace},      {"raise_exception", "message", raise_exception},
    {"strftime_now", "format", strftime_now},
};

Result<Value> dict_items(Call& call) {
  std::vector<Value> items;
  for (const auto& [key, value] : call.self.as<Dict*>()->entries) {
    items.push_back(call.heap().list({key, value}, true));
  }
  return call.heap().list(std::move(items));
}

Result<Value> dict_keys(Call& call) {
  MKV_ASSIGN(std::vector<Value> keys, iterate(call.self, call.heap()));
  return call.heap().list(std::move(keys));
}

Result<Value> dict_values(Call& call) {
  std::vector<Value> values;
  for (const auto& entry : call.self.as<Dict*>()->entries) values.push_back(entry.second);
  return call.heap().list(std::move(values));
}

Result<Value> dict_get(Call& call) {
  const Dict& dict = *call.self.as<Dict*>();
  call.heap().work(dict.entries.size() * sizeof(Value));
  const Value* const value = is_key(*call.args[0]) ? dict.find(*call.args[0]) : nullptr;
  return value != nullptr ? *value : call.args[1].value_or(Value(None{}));
}

constexpr Builtin kDictMethods[] = {
    {"items", "", dict_items},
    {"keys", "", dict_keys},
    {"values", "", dict_values},
    {"get", "key default?", dict_get},
};

Result<Value> list_count(Call& call) {
  int64_t count = 0;
  for (const Value& item : call.self.as<const List*>()->items) {
    count += equal(item, *call.args[0], call.heap()) ? 1 : 0;
  }
  return Value(count);
}

Result<Value> list_index(Call& call) {
  const std::vector<Value>& items = call.self.as<const List*>()->items;
  for (size_t i = 0; i < items.size(); ++i) {
    if (equal(items[i], *call.args[0], call.heap())) return Value(static_cast<int64_t>(i));
  }
  return failure("list.index(): the value is not in the list");
}

constexpr Builtin kListMethods[] = {
    {"count", "value", list_count},
    {"index", "value", list_index},
};

template <size_t n>
const Builtin* find_in(const Builtin (&table)[n], std::string_view name) {
  const auto* const found =
      std::find_if(table, table + n, [&](const Builtin& builtin) { return builtin.name == name; });
  return found == table + n ? nullptr : found;
}

// Where the named argument goes; npos if there is no such parameter.
size_t parameter_index(std::string_view parameters, std::string_view name) {
  size_t index = 0;
  for (std::string_view parameter : split(parameters, std::nullopt, SIZE_MAX, false)) {
    if (parameter.ends_with('?')) parameter.remove_suffix(1);
    if (parameter == name) return index;
    ++index;
  }
  return std::string_view::npos;
}

}  // namespace

Error failure(std::string message) {
  return make_error(ErrorCode::invalid_argument, std::move(message));
}

bool Call::flag(size_t i, bool fallback) const { return args[i] ? is_true(*args[i]) : fallback; }

Result<int64_t> Call::integer(size_t i, int64_t fallback) const {
  if (!args[i]) return fallback;
  if (args[i]->is<bool>()) return args[i]->as<bool>() ? 1 : 0;
  if (args[i]->is<int64_t>()) return args[i]->as<int64_t>();
  return failure("argument " + std::to_string(i + 1) + ": expected an int, found " +
                 std::string(type_name(*args[i])));
}

Result<std::string_view> Call::string(size_t i, std::string_view fallback) const {
  if (!args[i]) return fallback;
  if (args[i]->is_string()) return args[i]->string();
  return failure("argument " + std::to_string(i + 1) + ": expected a str, found " +
                 std::string(type_name(*args[i])));
}

const Builtin* find_function(std::string_view name) { return find_in(kFunctions, name); }

const Builtin* find_method(const Value& object, std::string_view name) {
  if (object.is_string()) return find_string_method(name);
  if (object.is<const List*>()) return find_in(kListMethods, name);
  if (object.is<Dict*>() && !object.as<Dict*>()->is_namespace) return find_in(kDictMethods, name);
  return nullptr;
}

Result<Value> call_builtin(const Builtin& builtin, Runtime& runtime, const Value& self,
                           const std::vector<Value>& positional, const NamedValues& named) {
  Call call{runtime, self};
  const auto parameters = split(builtin.parameters, std::nullopt, SIZE_MAX, false);
  const bool takes_rest = !parameters.empty() && parameters.front() == "*";
  const bool takes_named = !parameters.empty() && parameters.back() == "**";
  const std::string where = std::string(builtin.name) + "(): ";
  if (takes_rest) call.rest = positional;
  if (takes_named) call.named = named;
  if (!takes_rest && !takes_named) call.args.resize(parameters.size());
  if (!takes_rest && positional.size() > call.args.size()) {
    return failure(where + std::to_string(positional.size()) + " arguments, at most " +
                   std::to_string(call.args.size()) + " expected");
  }
  for (size_t i = 0; !takes_rest && i < positional.size(); ++i) call.args[i] = positional[i];
  for (const auto& [name, value] : named) {
    if (takes_named) break;
    const size_t index = parameter_index(builtin.parameters, name);
    if (index >= call.args.size() || call.args[index]) {
      return failure(where + "unexpected argument \"" + std::string(name) + "\"");
    }
    call.args[index] = value;
  }
  for (size_t i = 0; i < call.args.size(); ++i) {
    if (!call.args[i] && !parameters[i].ends_with('?')) {
      return failure(where + "argument \"" + std::string(parameters[i]) + "\" is missing");
    }
  }
  return builtin.call(call);
}

Result<std::vector<Value>> iterate(const Value& value, Heap& heap) {
  if (value.is<const List*>()) {
    heap.work(value.as<const List*>()->items.size() * sizeof(Value));
    return value.as<const List*>()->items;
  }
  std::vector<Value> items;
  if (value.is_undefined()) return items;
  if (value.is<Dict*>() && !value.as<Dict*>()->is_namespace) {
    heap.work(value.as<Dict*>()->entries.size() * sizeof(Value));
    for (const auto& entry : value.as<Dict*>()->entries) items.push_back(entry.first);
    return items;
  }
  if (!value.is_string()) {
    return failure("a value of type " + std::string(type_name(value)) + " has no items");
  }
  const std::string_view text = value.string();
  if (!heap.has_room(text.size() * sizeof(Value))) return failure(heap.describe());
  heap.work(text.size() * sizeof(Value));
  for (size_t at = 0; at < text.size();) {
    const size_t bytes = code_point_at(text, at).bytes;
    items.emplace_back(text.substr(at, bytes));
    at += bytes;
  }
  return items;
}

Value get_item(const Value& object, const Value& key, Heap& heap) {
  const Value missing(Undefined{key.is_string() ? key.string() : std::string_view("item")});
  if (object.is<Dict*>()) {
    heap.work(object.as<Dict*>()->entries.size() * sizeof(Value));
    const Value* const found = is_key(key) ? object.as<Dict*>()->find(key) : nullptr;
    return found != nullptr ? *found : missing;
  }
  if (!key.is<int64_t>() && !key.is<bool>()) return missing;
  int64_t index = key.is<bool>() ? (key.as<bool>() ? 1 : 0) : key.as<int64_t>();
  if (object.is<const List*>()) {
    const std::vector<Value>& items = object.as<const List*>()->items;
    if (index < 0) index += static_cast<int64_t>(items.size());
    if (index < 0 || index >= static_cast<int64_t>(items.size())) return missing;
    return items[static_cast<size_t>(index)];
  }
  if (!object.is_string()) return missing;
  const std::string_view text = object.string();
  heap.work(text.size());
  if (index < 0) index += static_cast<int64_t>(text_length(text));
  if (index < 0) return missing;
  const size_t at = byte_of(text, static_cast<size_t>(index));
  if (at >= text.size()) return missing;
  return Value(text.substr(at, code_point_at(text, at).bytes));
}

Value get_path(const Value& object, std::string_view path, Heap& heap) {
  Value value = object;
  for (const std::string_view part : split(path, ".", SIZE_MAX, false)) {
    int64_t index = 0;
    const auto parsed = std::from_chars(part.data(), part.data() + part.size(), index);
    const bool is_index = parsed.ec == std::errc{} && parsed.ptr == part.data() + part.size();
    value = get_item(value, is_index ? Value(index) : Value(part), heap);
  }
  return value;
}

std::string lower(std::string_view text) { return changed(text, to_lower); }
std::string upper(std::string_view text) { return changed(text, to_upper); }

Result<std::string_view> text_of(const Value& value, Heap& heap) {
  if (value.is_string()) return value.string();
  MKV_ASSIGN(std::string text, to_text(value, heap));
  return heap.string(std::move(text)).string();
}

}  // namespace mkv::jinja
