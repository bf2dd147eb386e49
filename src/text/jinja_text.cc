#include "text/jinja_text.h"

#include <algorithm>

#include "text/utf8.h"

namespace mkv::jinja {
namespace {

// Python's str.isspace() also counts the four separators U+001C to U+001F.
bool is_python_space(char32_t c) { return is_space(c) || (c >= 0x1C && c <= 0x1F); }

bool contains(std::string_view chars, std::string_view c) {
  return chars.find(c) != std::string_view::npos;
}

bool is_stripped(std::string_view text, size_t at, const CodePoint& c,
                 std::optional<std::string_view> chars) {
  if (chars) return contains(*chars, text.substr(at, c.bytes));
  return c.valid && is_python_space(c.value);
}

std::vector<std::string_view> split_by_space(std::string_view text, size_t limit) {
  std::vector<std::string_view> parts;
  text = strip(text, Side::left, std::nullopt);
  while (!text.empty()) {
    size_t end = parts.size() < limit ? 0 : text.size();
    while (end < text.size()) {
      const CodePoint c = code_point_at(text, end);
      if (c.valid && is_python_space(c.value)) break;
      end += c.bytes;
    }
    if (parts.size() >= limit) {
      parts.push_back(strip(text, Side::right, std::nullopt));
      break;
    }
    parts.push_back(text.substr(0, end));
    text = strip(text.substr(end), Side::left, std::nullopt);
  }
  return parts;
}

std::vector<std::string_view> split_by_space_from_right(std::string_view text, size_t limit) {
  std::vector<std::string_view> parts;
  text = strip(text, Side::right, std::nullopt);
  while (!text.empty()) {
    if (parts.size() >= limit) {
      parts.push_back(strip(text, Side::left, std::nullopt));
      break;
    }
    size_t begin = text.size();
    while (begin > 0) {
      const CodePoint c = code_point_before(text, begin);
      if (c.valid && is_python_space(c.value)) break;
      begin -= c.bytes;
    }
    parts.push_back(text.substr(begin));
    text = strip(text.substr(0, begin), Side::right, std::nullopt);
  }
  std::reverse(parts.begin(), parts.end());
  return parts;
}

}  // namespace

size_t text_length(std::string_view text) {
  size_t length = 0;
  for (size_t at = 0; at < text.size(); ++length) at += code_point_at(text, at).bytes;
  return length;
}

size_t byte_of(std::string_view text, size_t index) {
  size_t at = 0;
  for (; index > 0 && at < text.size(); --index) at += code_point_at(text, at).bytes;
  return at;
}

std::string_view strip(std::string_view text, Side side, std::optional<std::string_view> chars) {
  while (side != Side::right && !text.empty()) {
    const CodePoint c = code_point_at(text, 0);
    if (!is_stripped(text, 0, c, chars)) break;
    text.remove_prefix(c.bytes);
  }
  while (side != Side::left && !text.empty()) {
    const CodePoint c = code_point_before(text, text.size());
    if (!is_stripped(text, text.size() - c.bytes, c, chars)) break;
    text.remove_suffix(c.bytes);
  }
  return text;
}

std::vector<std::string_view> split(std::string_view text,
                                    std::optional<std::string_view> separator, size_t limit,
                                    bool from_right) {
  if (!separator) {
    return from_right ? split_by_space_from_right(text, limit) : split_by_space(text, limit);
  }
  std::vector<std::string_view> parts;
  while (parts.size() < limit) {
    const size_t hit = from_right ? text.rfind(*separator) : text.find(*separator);
    if (hit == std::string_view::npos) break;
    const size_t after = hit + separator->size();
    parts.push_back(from_right ? text.substr(after) : text.substr(0, hit));
    text = from_right ? text.substr(0, hit) : text.substr(after);
  }
  parts.push_back(text);
  if (from_right) std::reverse(parts.begin(), parts.end());
  return parts;
}

std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends) {
  std::vector<std::string_view> lines;
  size_t begin = 0;
  for (size_t at = 0; at < text.size();) {
    const CodePoint c = code_point_at(text, at);
    const bool ends = (c.value >= 0x0A && c.value <= 0x0D) ||
                      (c.value >= 0x1C && c.value <= 0x1E) || c.value == 0x85 ||
                      c.value == 0x2028 || c.value == 0x2029;
    size_t next = at + c.bytes;
    if (!c.valid || !ends) {
      at = next;
      continue;
    }
    if (c.value == '\r' && next < text.size() && text[next] == '\n') ++next;
    lines.push_back(text.substr(begin, (keep_ends ? next : at) - begin));
    begin = at = next;
  }
  if (begin < text.size()) lines.push_back(text.substr(begin));
  return lines;
}

size_t count_of(std::string_view text, std::string_view part) {
  if (part.empty()) return text_length(text) + 1;
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string_view::npos;
       at = text.find(part, at + part.size())) {
    ++count;
  }
  return count;
}

}  // namespace mkv::jinja
