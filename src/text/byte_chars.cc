#include "text/byte_chars.h"

#include <array>

#include "text/utf8.h"

namespace mkv {
namespace {

constexpr bool is_printable(uint8_t byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

struct Tables {
  std::array<char16_t, 256> of_byte{};
  std::array<int16_t, 0x144> to_byte{};

  constexpr Tables() {
    for (int16_t& b : to_byte) b = -1;
    char16_t next = 0x100;
    for (int16_t b = 0; b < 256; ++b) {
      const auto i = static_cast<size_t>(b);
      of_byte[i] = is_printable(static_cast<uint8_t>(b)) ? static_cast<char16_t>(b) : next++;
      to_byte[of_byte[i]] = b;
    }
  }
};

constexpr Tables kTables;

}  // namespace

std::string bytes_to_chars(std::string_view bytes) {
  std::string chars;
  for (const char c : bytes) append_utf8(chars, kTables.of_byte[static_cast<uint8_t>(c)]);
  return chars;
}

std::optional<std::string> chars_to_bytes(std::string_view chars) {
  std::string bytes;
  for (size_t at = 0; at < chars.size();) {
    const CodePoint c = code_point_at(chars, at);
    if (!c.valid || c.value >= kTables.to_byte.size()) return std::nullopt;
    const int16_t byte = kTables.to_byte[c.value];
    if (byte < 0) return std::nullopt;
    bytes += static_cast<char>(static_cast<uint8_t>(byte));
    at += c.bytes;
  }
  return bytes;
}

}  // namespace mkv
