// Pieces of error messages: one line each, whatever the outside bytes hold.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <type_traits>

#include "base/result.h"

namespace mkv {

// The parts, texts and integers, one after the other.
template <class... Parts>
std::string concat(const Parts&... parts) {
  std::string text;
  const auto append = [&text](const auto& part) {
    if constexpr (std::is_integral_v<std::decay_t<decltype(part)>>) {
      text += std::to_string(part);
    } else {
      text += part;
    }
  };
  (append(parts), ...);
  return text;
}

// `text` fit for a message: bytes other than printable ASCII as \xNN, cut after `limit` bytes.
std::string printable(std::string_view text, size_t limit = 96);

// "PATH: cannot ACTION: REASON" for the value `os_code` of errno.
Error os_error(const std::filesystem::path& path, std::string_view action, int os_code);

}  // namespace mkv
