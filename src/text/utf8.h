// UTF-8 as the text module needs it: reading code points from bytes that may be anything, and
// turning a stream of token bytes into text that is always valid.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace mkv {

struct CodePoint {
  char32_t value = 0;
  uint8_t bytes = 0;   // what it takes in the text; 1 when invalid, 0 at the end
  bool valid = false;  // overlong forms, surrogates and values above U+10FFFF are not
};

CodePoint code_point_at(std::string_view text, size_t at);
// The last code point that ends at `end`; invalid bytes are taken one by one.
CodePoint code_point_before(std::string_view text, size_t end);
void append_utf8(std::string& out, char32_t value);
bool is_valid_utf8(std::string_view text);
// Every byte that is not part of a valid sequence becomes U+FFFD: one for each maximal part of a
// sequence, as the Unicode standard recommends.
std::string replace_invalid_utf8(std::string_view bytes);

// A run of text that is valid throughout, or of bytes that are not.
struct Utf8Run {
  std::string_view text;
  bool valid = false;
};
std::vector<Utf8Run> utf8_runs(std::string_view text);

// Unicode general properties (utf8proc's tables).
bool is_space(char32_t c);      // White_Space
bool is_word(char32_t c);       // letters, marks, decimal digits and letter numbers, connectors
bool is_numeric(char32_t c);    // general category N*
bool is_printable(char32_t c);  // as Python's str.isprintable
char32_t to_lower(char32_t c);
char32_t to_upper(char32_t c);
bool is_letter(char32_t c);

// Text from token bytes: what push() gives ends at a code point, the rest is held back. One
// stream for one text; not thread-safe.
class Utf8Stream {
 public:
  std::string push(std::string_view bytes);
  std::string finish();  // what was held back, as U+FFFD; the stream is then empty again

 private:
  std::string held_;
};

}  // namespace mkv
