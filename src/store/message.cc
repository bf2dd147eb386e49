#include "store/message.h"

#include <cerrno>
#include <system_error>

namespace mkv {

std::string printable(std::string_view text, size_t limit) {
  constexpr char kHex[] = "0123456789abcdef";
  std::string result;
  for (const char c : text.substr(0, limit)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte < 0x7f) {
      result += c;
    } else {
      result += {'\\', 'x', kHex[byte >> 4], kHex[byte & 15]};
    }
  }
  if (text.size() > limit) result += "...";
  return result;
}

Error os_error(const std::filesystem::path& path, std::string_view action, int os_code) {
  const ErrorCode code = os_code == ENOENT ? ErrorCode::not_found : ErrorCode::io;
  return make_error(code, concat(path.string(), ": cannot ", action, ": ",
                                 std::generic_category().message(os_code)));
}

}  // namespace mkv
