#include "text/utf8.h"

#include <utf8proc.h>

namespace mkv {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

uint8_t byte_at(std::string_view text, size_t at) { return static_cast<uint8_t>(text[at]); }

// How long the sequence that `lead` starts is, and the range its second byte must lie in (which is
// what excludes overlong forms, surrogates and values above U+10FFFF). Length 0: not a lead byte.
struct Sequence {
  uint8_t length, low, high;
};

Sequence sequence_of(uint8_t lead) {
  if (lead < 0x80) return {1, 0, 0};
  if (lead < 0xC2) return {0, 0, 0};
  if (lead < 0xE0) return {2, 0x80, 0xBF};
  if (lead == 0xE0) return {3, 0xA0, 0xBF};
  if (lead == 0xED) return {3, 0x80, 0x9F};
  if (lead < 0xF0) return {3, 0x80, 0xBF};
  if (lead == 0xF0) return {4, 0x90, 0xBF};
  if (lead < 0xF4) return {4, 0x80, 0xBF};
  if (lead == 0xF4) return {4, 0x80, 0x8F};
  return {0, 0, 0};
}

// The bytes at `at` that agree with one sequence (at least 1), and whether it is complete.
struct Prefix {
  uint8_t bytes;
  bool complete;
  bool at_end;  // incomplete only because the text ends
};

Prefix prefix_at(std::string_view text, size_t at) {
  const Sequence sequence = sequence_of(byte_at(text, at));
  if (sequence.length == 0) return {1, false, false};
  for (uint8_t i = 1; i < sequence.length; ++i) {
    if (at + i >= text.size()) return {i, false, true};
    const uint8_t next = byte_at(text, at + i);
    const uint8_t low = i == 1 ? sequence.low : 0x80;
    const uint8_t high = i == 1 ? sequence.high : 0xBF;
    if (next < low || next > high) return {i, false, false};
  }
  return {sequence.length, true, false};
}

utf8proc_category_t category(char32_t c) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(c));
}

}  // namespace

CodePoint code_point_at(std::string_view text, size_t at) {
  if (at >= text.size()) return {};
  const uint8_t lead = byte_at(text, at);
  if (lead < 0x80) return {lead, 1, true};
  const Prefix prefix = prefix_at(text, at);
  if (!prefix.complete) return {lead, 1, false};
  char32_t value = lead & (0xFFu >> (prefix.bytes + 1));
  for (size_t i = 1; i < prefix.bytes; ++i) value = (value << 6) | (byte_at(text, at + i) & 0x3Fu);
  return {value, prefix.bytes, true};
}

CodePoint code_point_before(std::string_view text, size_t end) {
  for (size_t bytes = 1; bytes <= 4 && bytes <= end; ++bytes) {
    const CodePoint c = code_point_at(text.substr(0, end), end - bytes);
    if (c.valid && c.bytes == bytes) return c;
  }
  if (end == 0) return {};
  return {byte_at(text, end - 1), 1, false};
}

void append_utf8(std::string& out, char32_t value) {
  const auto put = [&out](char32_t byte) { out += static_cast<char>(static_cast<uint8_t>(byte)); };
  if (value < 0x80) {
    put(value);
  } else if (value < 0x800) {
    put(0xC0 | (value >> 6));
    put(0x80 | (value & 0x3F));
  } else if (value < 0x10000) {
    put(0xE0 | (value >> 12));
    put(0x80 | ((value >> 6) & 0x3F));
    put(0x80 | (value & 0x3F));
  } else {
    put(0xF0 | (value >> 18));
    put(0x80 | ((value >> 12) & 0x3F));
    put(0x80 | ((value >> 6) & 0x3F));
    put(0x80 | (value & 0x3F));
  }
}

bool is_valid_utf8(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const Prefix prefix = prefix_at(text, at);
    if (!prefix.complete) return false;
    at += prefix.bytes;
  }
  return true;
}

std::string replace_invalid_utf8(std::string_view bytes) {
  Utf8Stream stream;
  std::string text = stream.push(bytes);
  return text + stream.finish();
}

std::vector<Utf8Run> utf8_runs(std::string_view text) {
  std::vector<Utf8Run> runs;
  size_t begin = 0;
  bool valid = true;
  for (size_t at = 0; at < text.size();) {
    const Prefix prefix = prefix_at(text, at);
    if (prefix.complete != valid) {
      if (at > begin) runs.push_back({text.substr(begin, at - begin), valid});
      begin = at;
      valid = prefix.complete;
    }
    at += prefix.complete ? prefix.bytes : size_t{1};
  }
  if (begin < text.size()) runs.push_back({text.substr(begin), valid});
  return runs;
}

bool is_space(char32_t c) {
  if (c < 0x80) return c == ' ' || (c >= 9 && c <= 13);
  if (c == 0x85) return true;
  const utf8proc_category_t k = category(c);
  return k == UTF8PROC_CATEGORY_ZS || k == UTF8PROC_CATEGORY_ZL || k == UTF8PROC_CATEGORY_ZP;
}

bool is_letter(char32_t c) {
  const utf8proc_category_t k = category(c);
  return k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO;
}

bool is_word(char32_t c) {
  const utf8proc_category_t k = category(c);
  return (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_NL) || k == UTF8PROC_CATEGORY_PC;
}

bool is_numeric(char32_t c) {
  if (c < 0x80) return c >= '0' && c <= '9';
  const utf8proc_category_t k = category(c);
  return k >= UTF8PROC_CATEGORY_ND && k <= UTF8PROC_CATEGORY_NO;
}

bool is_printable(char32_t c) {
  const utf8proc_category_t k = category(c);
  return c == ' ' || (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_SO);
}

char32_t to_lower(char32_t c) {
  return static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c)));
}

char32_t to_upper(char32_t c) {
  return static_cast<char32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(c)));
}

std::string Utf8Stream::push(std::string_view bytes) {
  held_ += bytes;
  std::string text;
  size_t at = 0;
  while (at < held_.size()) {
    const Prefix prefix = prefix_at(held_, at);
    if (prefix.at_end) break;
    text += prefix.complete ? std::string_view(held_).substr(at, prefix.bytes) : kReplacement;
    at += prefix.bytes;
  }
  held_.erase(0, at);
  return text;
}

std::string Utf8Stream::finish() {
  std::string text(held_.empty() ? std::string_view() : kReplacement);
  held_.clear();
  return text;
}

}  // namespace mkv
