// How values look as text: Python's str() and repr(), and json.dumps().
#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "text/jinja_value.h"
#include "text/utf8.h"

namespace mkv::jinja {
namespace {

constexpr int kMaxDepth = 100;

Error too_deep() {
  return make_error(ErrorCode::capacity,
                    "a value is nested more than " + std::to_string(kMaxDepth) + " deep");
}

// Python's repr: the shortest digits that give the number back, with an exponent from 1e16 on and
// below 1e-4.
std::string float_text(double x, bool json) {
  if (std::isnan(x)) return json ? "NaN" : "nan";
  if (std::isinf(x)) return std::string(x < 0 ? "-" : "") + (json ? "Infinity" : "inf");
  const double size = std::fabs(x);
  const bool plain = size == 0 || (size >= 1e-4 && size < 1e16);
  std::array<char, 400> buffer;
  const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), x,
                                 plain ? std::chars_format::fixed : std::chars_format::scientific);
  std::string text(buffer.data(), end.ptr);
  if (plain && text.find('.') == std::string::npos) text += ".0";
  return text;
}

void append_hex(std::string& out, std::string_view prefix, char32_t value, int digits) {
  out += prefix;
  for (int shift = 4 * (digits - 1); shift >= 0; shift -= 4) {
    out += "0123456789abcdef"[(value >> shift) & 15];
  }
}

void append_repr(std::string& out, std::string_view text) {
  const bool has_single = text.find('\'') != std::string_view::npos;
  const char quote = has_single && text.find('"') == std::string_view::npos ? '"' : '\'';
  out += quote;
  for (size_t at = 0; at < text.size();) {
    const CodePoint c = code_point_at(text, at);
    if (text[at] == quote || text[at] == '\\') {
      out += '\\';
      out += text[at];
    } else if (text[at] == '\n') {
      out += "\\n";
    } else if (text[at] == '\r') {
      out += "\\r";
    } else if (text[at] == '\t') {
      out += "\\t";
    } else if (c.valid && is_printable(c.value)) {
      out += text.substr(at, c.bytes);
    } else if (c.value < 0x100) {
      append_hex(out, "\\x", c.value, 2);
    } else if (c.value < 0x10000) {
      append_hex(out, "\\u", c.value, 4);
    } else {
      append_hex(out, "\\U", c.value, 8);
    }
    at += c.bytes;
  }
  out += quote;
}

void append_json_unicode(std::string& out, char32_t c) {
  if (c >= 0x10000) {
    append_hex(out, "\\u", 0xD800 + ((c - 0x10000) >> 10), 4);
    c = 0xDC00 + ((c - 0x10000) & 0x3FF);
  }
  append_hex(out, "\\u", c, 4);
}

void append_json_string(std::string& out, std::string_view text, bool ascii) {
  constexpr std::string_view kShort = "\b\f\n\r\t\"\\", kLetters = "bfnrt\"\\";
  out += '"';
  for (size_t at = 0; at < text.size();) {
    const CodePoint c = code_point_at(text, at);
    const size_t letter = kShort.find(text[at]);
    if (letter != std::string_view::npos) {
      out += '\\';
      out += kLetters[letter];
    } else if (c.value < 0x20 || (ascii && c.value >= 0x7F)) {
      append_json_unicode(out, c.value);
    } else {
      out += text.substr(at, c.bytes);
    }
    at += c.bytes;
  }
  out += '"';
}

// Text written so far counts against the heap: values that share their parts can be printed
// exponentially large.
Result<void> check(const std::string& out, Heap& heap, int depth) {
  if (depth > kMaxDepth) return too_deep();
  heap.work(0);
  if (!heap.has_room(out.size())) return make_error(ErrorCode::capacity, heap.describe());
  return {};
}

class Printer {
 public:
  explicit Printer(Heap& heap) : heap_(heap) {}
  std::string take() { return std::move(out_); }

  Result<void> print(const Value& value, bool nested, int depth) {
    MKV_TRY(check(out_, heap_, depth));
    if (value.is<const List*>()) return print(*value.as<const List*>(), depth);
    if (value.is<Dict*>() && !value.as<Dict*>()->is_namespace) {
      return print(*value.as<Dict*>(), depth);
    }
    if (value.is<None>()) {
      out_ += "None";
    } else if (value.is<bool>()) {
      out_ += value.as<bool>() ? "True" : "False";
    } else if (value.is<int64_t>()) {
      out_ += std::to_string(value.as<int64_t>());
    } else if (value.is<double>()) {
      out_ += float_text(value.as<double>(), false);
    } else if (value.is_string() && nested) {
      append_repr(out_, value.string());
    } else if (value.is_string()) {
      out_ += value.string();
    } else if (value.is_undefined()) {
      if (nested) out_ += "Undefined";
    } else {
      return make_error(
          ErrorCode::unsupported,
          "printing a value of type " + std::string(type_name(value)) + " is not supported");
    }
    return {};
  }

 private:
  Result<void> print(const List& list, int depth) {
    out_ += list.is_tuple ? '(' : '[';
    for (size_t i = 0; i < list.items.size(); ++i) {
      if (i != 0) out_ += ", ";
      MKV_TRY(print(list.items[i], true, depth + 1));
    }
    if (list.is_tuple && list.items.size() == 1) out_ += ',';
    out_ += list.is_tuple ? ')' : ']';
    return {};
  }
  Result<void> print(const Dict& dict, int depth) {
    out_ += '{';
    for (size_t i = 0; i < dict.entries.size(); ++i) {
      if (i != 0) out_ += ", ";
      MKV_TRY(print(dict.entries[i].first, true, depth + 1));
      out_ += ": ";
      MKV_TRY(print(dict.entries[i].second, true, depth + 1));
    }
    out_ += '}';
    return {};
  }

  Heap& heap_;
  std::string out_;
};

class JsonWriter {
 public:
  JsonWriter(const JsonStyle& style, Heap& heap) : style_(style), heap_(heap) {}

  Result<void> write(const Value& value, int depth) {
    MKV_TRY(check(out_, heap_, depth));
    if (value.is<const List*>()) return write_list(*value.as<const List*>(), depth);
    if (value.is<Dict*>() && !value.as<Dict*>()->is_namespace) {
      return write_dict(*value.as<Dict*>(), depth);
    }
    if (value.is<None>()) {
      out_ += "null";
    } else if (value.is<bool>()) {
      out_ += value.as<bool>() ? "true" : "false";
    } else if (value.is<int64_t>()) {
      out_ += std::to_string(value.as<int64_t>());
    } else if (value.is<double>()) {
      out_ += float_text(value.as<double>(), true);
    } else if (value.is_string()) {
      append_json_string(out_, value.string(), style_.ascii);
    } else {
      return make_error(ErrorCode::invalid_argument,
                        "a value of type " + std::string(type_name(value)) + " is not JSON");
    }
    return {};
  }
  std::string take() { return std::move(out_); }

 private:
  void separate(bool first, int depth) {
    if (!first) out_ += style_.item_separator;
    new_line(depth);
  }
  void new_line(int depth) {
    if (style_.indent < 0) return;
    out_ += '\n';
    out_.append(static_cast<size_t>(style_.indent) * static_cast<size_t>(depth), ' ');
  }
  Result<void> write_list(const List& list, int depth) {
    out_ += '[';
    for (size_t i = 0; i < list.items.size(); ++i) {
      separate(i == 0, depth + 1);
      MKV_TRY(write(list.items[i], depth + 1));
    }
    if (!list.items.empty()) new_line(depth);
    out_ += ']';
    return {};
  }
  Result<void> write_dict(const Dict& dict, int depth) {
    std::vector<const std::pair<Value, Value>*> entries;
    for (const auto& entry : dict.entries) entries.push_back(&entry);
    if (style_.sort_keys) {
      std::stable_sort(entries.begin(), entries.end(), [this](const auto* a, const auto* b) {
        return compare(a->first, b->first, heap_).value_or(0) < 0;
      });
    }
    out_ += '{';
    for (size_t i = 0; i < entries.size(); ++i) {
      separate(i == 0, depth + 1);
      MKV_TRY(write_key(entries[i]->first));
      out_ += style_.key_separator;
      MKV_TRY(write(entries[i]->second, depth + 1));
    }
    if (!entries.empty()) new_line(depth);
    out_ += '}';
    return {};
  }
  Result<void> write_key(const Value& key) {
    if (key.is_string()) return write(key, 0);
    out_ += '"';
    MKV_TRY(write(key, 0));
    out_ += '"';
    return {};
  }

  JsonStyle style_;
  Heap& heap_;
  std::string out_;
};

}  // namespace

Result<std::string> to_text(const Value& value, Heap& heap) {
  if (value.is_string()) return std::string(value.string());
  Printer printer(heap);
  MKV_TRY(printer.print(value, false, 0));
  return printer.take();
}

Result<std::string> to_json(const Value& value, const JsonStyle& style, Heap& heap) {
  JsonWriter writer(style, heap);
  MKV_TRY(writer.write(value, 0));
  return writer.take();
}

}  // namespace mkv::jinja
