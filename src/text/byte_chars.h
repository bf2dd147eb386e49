// GPT-2's spelling of bytes as characters, in which byte-level vocabularies are written: printable
// bytes stand for themselves, the other 68 for U+0100 onwards ("Ġ" is the space).
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace mkv {

// The characters that bytes are written as, in UTF-8.
std::string bytes_to_chars(std::string_view bytes);
// The bytes of a token written in such characters; nothing if one of them stands for no byte.
std::optional<std::string> chars_to_bytes(std::string_view chars);

}  // namespace mkv
