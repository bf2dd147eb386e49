// Filters of single values. Those of lists are in jinja_list_filters.cc.
#include <charconv>
#include <cmath>
#include <cstdio>
#include <limits>

#include "text/jinja_builtins.h"
#include "text/jinja_text.h"
#include "text/utf8.h"

namespace mkv::jinja {
namespace {

// Filters that are methods of strings under another name; their subject becomes a text first.
Result<Value> as_method(Call& call, std::string_view name) {
  MKV_ASSIGN(const std::string_view text, text_of(call.self, call.heap()));
  call.self = Value(text);
  return find_string_method(name)->call(call);
}
Result<Value> filter_upper(Call& call) { return as_method(call, "upper"); }
Result<Value> filter_lower(Call& call) { return as_method(call, "lower"); }
Result<Value> filter_capitalize(Call& call) { return as_method(call, "capitalize"); }
Result<Value> filter_trim(Call& call) { return as_method(call, "strip"); }
Result<Value> filter_replace(Call& call) { return as_method(call, "replace"); }

// A word begins after white space or one of -({[<; unlike in str.title(), not after other signs.
Result<Value> filter_title(Call& call) {
  MKV_ASSIGN(const std::string_view text, text_of(call.self, call.heap()));
  call.heap().work(text.size());
  std::string out;
  bool begins = true;
  for (size_t at = 0; at < text.size();) {
    const CodePoint c = code_point_at(text, at);
    const std::string_view letter = text.substr(at, c.bytes);
    out += begins ? upper(letter) : lower(letter);
    begins = is_space(c.value) || std::string_view("-({[<").find(letter) != std::string_view::npos;
    at += c.bytes;
  }
  return call.text(std::move(out));
}

Result<Value> filter_string(Call& call) {
  MKV_ASSIGN(const std::string_view text, text_of(call.self, call.heap()));
  return Value(text);
}

Result<Value> filter_safe(Call& call) { return call.self; }

Result<Value> filter_escape(Call& call) {
  MKV_ASSIGN(const std::string_view text, text_of(call.self, call.heap()));
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '\'':
        out += "&#39;";
        break;
      case '"':
        out += "&#34;";
        break;
      default:
        out += c;
    }
  }
  return call.text(std::move(out));
}

Result<Value> filter_default(Call& call) {
  const bool missing = call.self.is_undefined() || (call.flag(1, false) && !is_true(call.self));
  return missing ? call.args[0].value_or(Value(std::string_view())) : call.self;
}

std::optional<double> parse_double(std::string_view text) {
  text = strip(text, Side::both, std::nullopt);
  if (text.starts_with('+')) text.remove_prefix(1);
  double value = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value);
  if (parsed.ec != std::errc{} || parsed.ptr != text.data() + text.size()) return std::nullopt;
  return value;
}

std::optional<int64_t> parse_integer(std::string_view text, int base) {
  text = strip(text, Side::both, std::nullopt);
  if (text.starts_with('+')) text.remove_prefix(1);
  int64_t value = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (parsed.ec != std::errc{} || parsed.ptr != text.data() + text.size()) return std::nullopt;
  return value;
}

std::optional<int64_t> truncated(double value) {
  if (!(std::fabs(value) < 9.2e18)) return std::nullopt;
  return static_cast<int64_t>(value);
}

Result<Value> filter_int(Call& call) {
  MKV_ASSIGN(const int64_t base, call.integer(1, 10));
  if (base < 2 || base > 36) return failure("int: a base of " + std::to_string(base));
  std::optional<int64_t> value;
  if (call.self.is<bool>()) value = call.self.as<bool>() ? 1 : 0;
  if (call.self.is<int64_t>()) value = call.self.as<int64_t>();
  if (call.self.is<double>()) value = truncated(call.self.as<double>());
  if (call.self.is_string()) {
    value = parse_integer(call.self.string(), static_cast<int>(base));
    const std::optional<double> real = parse_double(call.self.string());
    if (!value && real) value = truncated(*real);
  }
  if (value) return Value(*value);
  return call.args[0].value_or(Value(int64_t{0}));
}

Result<Value> filter_float(Call& call) {
  if (call.self.is<double>()) return call.self;
  std::optional<double> value;
  if (call.self.is<bool>()) value = call.self.as<bool>() ? 1 : 0;
  if (call.self.is<int64_t>()) value = static_cast<double>(call.self.as<int64_t>());
  if (call.self.is_string()) value = parse_double(call.self.string());
  if (value) return Value(*value);
  return call.args[0].value_or(Value(0.0));
}

Result<Value> filter_abs(Call& call) {
  if (call.self.is<double>()) return Value(std::fabs(call.self.as<double>()));
  if (call.self.is<int64_t>() && call.self.as<int64_t>() != std::numeric_limits<int64_t>::min()) {
    return Value(std::abs(call.self.as<int64_t>()));
  }
  return failure("abs: expected a number, found " + std::string(type_name(call.self)));
}

Result<Value> filter_round(Call& call) {
  MKV_ASSIGN(const int64_t digits, call.integer(0, 0));
  MKV_ASSIGN(const std::string_view method, call.string(1, "common"));
  if (!call.self.is<double>() && !call.self.is<int64_t>()) {
    return failure("round: expected a number, found " + std::string(type_name(call.self)));
  }
  const double x = call.self.is<double>() ? call.self.as<double>()
                                          : static_cast<double>(call.self.as<int64_t>());
  if (digits < 0 || digits > 15) {
    return failure("round: a precision of " + std::to_string(digits) + "; 0 to 15 are supported");
  }
  if (method == "common") {
    // printf rounds the exact value, ties to even, as Python's round() does.
    char text[400];
    const int size = std::snprintf(text, sizeof text, "%.*f", static_cast<int>(digits), x);
    return Value(parse_double(std::string_view(text, static_cast<size_t>(size))).value_or(x));
  }
  const double scale = std::pow(10.0, static_cast<double>(digits));
  if (method == "ceil") return Value(std::ceil(x * scale) / scale);
  if (method == "floor") return Value(std::floor(x * scale) / scale);
  return failure("round: the unknown method \"" + std::string(method) + "\"");
}

// As transformers defines it: json.dumps(ensure_ascii=False), no HTML escapes.
Result<Value> filter_tojson(Call& call) {
  JsonStyle style;
  const bool indented = call.args[0] && !call.args[0]->is<None>();
  if (indented) {
    MKV_ASSIGN(const int64_t indent, call.integer(0, 0));
    if (indent < 0 || indent > 64) {
      return failure("tojson: an indent of " + std::to_string(indent) + "; 0 to 64 are supported");
    }
    style.indent = static_cast<int>(indent);
    style.item_separator = ",";
  }
  if (call.args[1] && !call.args[1]->is<None>()) {
    MKV_ASSIGN(const std::vector<Value> pair, iterate(*call.args[1], call.heap()));
    if (pair.size() != 2 || !pair[0].is_string() || !pair[1].is_string()) {
      return failure("tojson: separators must be two texts");
    }
    style.item_separator = pair[0].string();
    style.key_separator = pair[1].string();
  }
  style.sort_keys = call.flag(2, false);
  style.ascii = call.flag(3, false);
  MKV_ASSIGN(std::string text, to_json(call.self, style, call.heap()));
  return call.text(std::move(text));
}

Result<Value> filter_indent(Call& call) {
  MKV_ASSIGN(const std::string_view text, text_of(call.self, call.heap()));
  std::string prefix;
  if (call.args[0] && call.args[0]->is_string()) {
    prefix = call.args[0]->string();
  } else {
    MKV_ASSIGN(const int64_t width, call.integer(0, 4));
    if (width < 0 || width > 1000) return failure("indent: a width beyond 0 to 1000");
    prefix.assign(static_cast<size_t>(width), ' ');
  }
  const bool first = call.flag(1, false), blank = call.flag(2, false);
  std::string out;
  const std::vector<std::string_view> lines = split(text, "\n", SIZE_MAX, false);
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i != 0) out += '\n';
    if (i == 0 ? first : (blank || !lines[i].empty())) out += prefix;
    if (!call.heap().has_room(out.size() + lines[i].size())) return failure(call.heap().describe());
    out += lines[i];
  }
  return call.text(std::move(out));
}

Result<Value> filter_attr(Call& call) {
  MKV_ASSIGN(const std::string_view name, call.string(0, ""));
  if (!call.self.is<Dict*>() || !call.self.as<Dict*>()->is_namespace) {
    return Value(Undefined{name});  // attr() does not look at a dict's keys
  }
  return get_item(call.self, Value(name), call.heap());
}

Result<Value> filter_wordcount(Call& call) {
  MKV_ASSIGN(const std::string_view text, text_of(call.self, call.heap()));
  int64_t words = 0;
  bool inside = false;
  for (size_t at = 0; at < text.size();) {
    const CodePoint c = code_point_at(text, at);
    const bool is_part = c.valid && is_word(c.value);
    if (is_part && !inside) ++words;
    inside = is_part;
    at += c.bytes;
  }
  return Value(words);
}

constexpr Builtin kFilters[] = {
    {"upper", "", filter_upper},
    {"lower", "", filter_lower},
    {"capitalize", "", filter_capitalize},
    {"title", "", filter_title},
    {"trim", "chars?", filter_trim},
    {"replace", "old new count?", filter_replace},
    {"string", "", filter_string},
    {"safe", "", filter_safe},
    {"escape", "", filter_escape},
    {"e", "", filter_escape},
    {"default", "default_value? boolean?", filter_default},
    {"d", "default_value? boolean?", filter_default},
    {"int", "default? base?", filter_int},
    {"float", "default?", filter_float},
    {"abs", "", filter_abs},
    {"round", "precision? method?", filter_round},
    {"tojson", "indent? separators? sort_keys? ensure_ascii?", filter_tojson},
    {"indent", "width? first? blank?", filter_indent},
    {"attr", "name", filter_attr},
    {"wordcount", "", filter_wordcount},
};

}  // namespace

const Builtin* find_filter(std::string_view name) {
  for (const Builtin& filter : kFilters) {
    if (filter.name == name) return &filter;
  }
  return find_list_filter(name);
}

}  // namespace mkv::jinja
