// Methods of strings.
#include <algorithm>

#include "text/jinja_builtins.h"
#include "text/jinja_text.h"
#include "text/utf8.h"

namespace mkv::jinja {
namespace {

std::optional<std::string_view> optional_text(const Call& call, size_t i) {
  if (!call.args[i] || !call.args[i]->is_string()) return std::nullopt;
  return call.args[i]->string();
}

// Searching is quadratic at worst.
Result<void> spend_search(Call& call, std::string_view part) {
  return call.heap().spend(call.self.string().size() * (part.size() + 1));
}

template <Side side>
Result<Value> strip_method(Call& call) {
  MKV_TRY(spend_search(call, optional_text(call, 0).value_or("")));
  return Value(strip(call.self.string(), side, optional_text(call, 0)));
}

template <bool from_right>
Result<Value> split_method(Call& call) {
  const std::optional<std::string_view> separator = optional_text(call, 0);
  if (separator && separator->empty()) return failure("split(): the separator is empty");
  MKV_ASSIGN(const int64_t limit, call.integer(1, -1));
  MKV_TRY(spend_search(call, separator.value_or("")));
  if (!call.heap().has_room(call.self.string().size() * sizeof(Value))) {
    return failure(call.heap().describe());
  }
  std::vector<Value> parts;
  for (const std::string_view part :
       split(call.self.string(), separator, limit < 0 ? SIZE_MAX : static_cast<size_t>(limit),
             from_right)) {
    parts.emplace_back(part);
  }
  return call.heap().list(std::move(parts));
}

Result<Value> split_lines_method(Call& call) {
  call.heap().work(call.self.string().size());
  std::vector<Value> lines;
  for (const std::string_view line : split_lines(call.self.string(), call.flag(0, false))) {
    lines.emplace_back(line);
  }
  return call.heap().list(std::move(lines));
}

// startswith and endswith: one text, or a tuple of them.
template <bool at_start>
Result<Value> affix_method(Call& call) {
  const std::string_view text = call.self.string();
  std::vector<Value> affixes{*call.args[0]};
  if (affixes[0].is<const List*>()) affixes = affixes[0].as<const List*>()->items;
  for (const Value& affix : affixes) {
    if (!affix.is_string()) {
      return failure("expected a str, found " + std::string(type_name(affix)));
    }
    if (at_start ? text.starts_with(affix.string()) : text.ends_with(affix.string())) {
      return Value(true);
    }
  }
  return Value(false);
}

template <bool prefix>
Result<Value> remove_affix(Call& call) {
  MKV_ASSIGN(const std::string_view affix, call.string(0, ""));
  std::string_view text = call.self.string();
  if (prefix && text.starts_with(affix)) text.remove_prefix(affix.size());
  if (!prefix && text.ends_with(affix)) text.remove_suffix(affix.size());
  return Value(text);
}

Result<Value> replace_method(Call& call) {
  MKV_ASSIGN(const std::string_view from, call.string(0, ""));
  MKV_ASSIGN(const std::string_view to, call.string(1, ""));
  MKV_ASSIGN(const int64_t limit, call.integer(2, -1));
  const std::string_view text = call.self.string();
  MKV_TRY(spend_search(call, from));
  std::string out;
  size_t at = 0;
  for (int64_t done = 0; limit < 0 || done < limit; ++done) {
    // An empty text stands in front of every character and at the end.
    const bool steps = from.empty() && done > 0;
    if (steps && at >= text.size()) break;
    const size_t hit = steps ? at + code_point_at(text, at).bytes : text.find(from, at);
    if (hit == std::string_view::npos) break;
    out += text.substr(at, hit - at);
    if (!call.heap().has_room(out.size() + to.size())) return failure(call.heap().describe());
    out += to;
    at = hit + from.size();
  }
  out += text.substr(at);
  return call.text(std::move(out));
}

template <std::string (*change)(std::string_view)>
Result<Value> change_method(Call& call) {
  call.heap().work(call.self.string().size());
  return call.text(change(call.self.string()));
}

std::string capitalize(std::string_view text) {
  const size_t first = code_point_at(text, 0).bytes;
  return upper(text.substr(0, first)) + lower(text.substr(first));
}

std::string title(std::string_view text) {
  std::string out;
  bool in_word = false;
  for (size_t at = 0; at < text.size();) {
    const CodePoint c = code_point_at(text, at);
    const std::string_view letter = text.substr(at, c.bytes);
    out += in_word ? lower(letter) : upper(letter);
    in_word = c.valid && is_letter(c.value);
    at += c.bytes;
  }
  return out;
}

template <bool last, bool must>
Result<Value> find_method_of(Call& call) {
  MKV_ASSIGN(const std::string_view part, call.string(0, ""));
  const std::string_view text = call.self.string();
  MKV_TRY(spend_search(call, part));
  const size_t hit = last ? text.rfind(part) : text.find(part);
  if (hit == std::string_view::npos) {
    if (must) return failure("index(): the text is not there");
    return Value(int64_t{-1});
  }
  return Value(static_cast<int64_t>(text_length(text.substr(0, hit))));
}

Result<Value> count_method(Call& call) {
  MKV_ASSIGN(const std::string_view part, call.string(0, ""));
  MKV_TRY(spend_search(call, part));
  return Value(static_cast<int64_t>(count_of(call.self.string(), part)));
}

Result<Value> join_method(Call& call) {
  MKV_ASSIGN(const std::vector<Value> items, iterate(*call.args[0], call.heap()));
  std::string out;
  for (size_t i = 0; i < items.size(); ++i) {
    if (!items[i].is_string()) {
      return failure("join(): item " + std::to_string(i) + " is a " +
                     std::string(type_name(items[i])) + ", not a str");
    }
    if (i != 0) out += call.self.string();
    if (!call.heap().has_room(out.size() + items[i].string().size())) {
      return failure(call.heap().describe());
    }
    out += items[i].string();
  }
  return call.text(std::move(out));
}

bool is_alphanumeric(char32_t c) { return is_letter(c) || is_numeric(c); }

template <bool (*holds)(char32_t)>
Result<Value> every_method(Call& call) {
  const std::string_view text = call.self.string();
  call.heap().work(text.size());
  for (size_t at = 0; at < text.size();) {
    const CodePoint c = code_point_at(text, at);
    if (!c.valid || !holds(c.value)) return Value(false);
    at += c.bytes;
  }
  return Value(!text.empty());
}

// isupper, islower: at least one cased letter, and none of the other case.
template <bool want_upper>
Result<Value> case_method(Call& call) {
  const std::string_view text = call.self.string();
  call.heap().work(text.size());
  const std::string changed = want_upper ? upper(text) : lower(text);
  const std::string other = want_upper ? lower(text) : upper(text);
  return Value(changed == text && other != text);
}

constexpr Builtin kMethods[] = {
    {"strip", "chars?", strip_method<Side::both>},
    {"lstrip", "chars?", strip_method<Side::left>},
    {"rstrip", "chars?", strip_method<Side::right>},
    {"split", "sep? maxsplit?", split_method<false>},
    {"rsplit", "sep? maxsplit?", split_method<true>},
    {"splitlines", "keepends?", split_lines_method},
    {"startswith", "prefix", affix_method<true>},
    {"endswith", "suffix", affix_method<false>},
    {"removeprefix", "prefix", remove_affix<true>},
    {"removesuffix", "suffix", remove_affix<false>},
    {"replace", "old new count?", replace_method},
    {"upper", "", change_method<upper>},
    {"lower", "", change_method<lower>},
    {"capitalize", "", change_method<capitalize>},
    {"title", "", change_method<title>},
    {"find", "sub", find_method_of<false, false>},
    {"rfind", "sub", find_method_of<true, false>},
    {"index", "sub", find_method_of<false, true>},
    {"count", "sub", count_method},
    {"join", "iterable", join_method},
    {"isdigit", "", every_method<is_numeric>},
    {"isnumeric", "", every_method<is_numeric>},
    {"isalpha", "", every_method<is_letter>},
    {"isalnum", "", every_method<is_alphanumeric>},
    {"isspace", "", every_method<is_space>},
    {"isupper", "", case_method<true>},
    {"islower", "", case_method<false>},
};

}  // namespace

const Builtin* find_string_method(std::string_view name) {
  for (const Builtin& method : kMethods) {
    if (method.name == name) return &method;
  }
  return nullptr;
}

}  // namespace mkv::jinja
