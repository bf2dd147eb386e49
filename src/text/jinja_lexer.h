// The lexer of the template language: text, and the tokens of {{ }} and {% %}.
//
// Whitespace as Jinja does with trim_blocks and lstrip_blocks on: the newline after a block tag
// goes, and so do blanks in front of one that begins a line; "-" takes all white space on its
// side, "+" keeps it. One newline at the end of the template goes too.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace mkv::jinja {

struct Token {
  enum class Kind : uint8_t {
    text,
    block_begin,
    block_end,
    print_begin,
    print_end,
    name,
    string,
    integer,
    real,
    symbol,
    end,
  };
  Kind kind = Kind::end;
  std::string text;  // of a string: what it stands for
  int line = 1;
};

// An error of the template at a line of its source.
Error error_at(int line, ErrorCode code, std::string_view message);

Result<std::vector<Token>> tokenize(std::string_view source);

}  // namespace mkv::jinja
