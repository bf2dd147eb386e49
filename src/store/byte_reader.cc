#include "store/byte_reader.h"

#include "store/message.h"

namespace mkv {

Result<std::span<const std::byte>> ByteReader::take(uint64_t size, std::string_view what) {
  if (size > remaining()) {
    return make_error(ErrorCode::corrupt, concat(what, ": expected ", size, " bytes at offset ",
                                                 offset_, ", found ", remaining()));
  }
  const auto taken = bytes_.subspan(offset_, size);
  offset_ += size;
  return taken;
}

Result<std::string_view> ByteReader::read_string(std::string_view what) {
  MKV_ASSIGN(const uint64_t size, read<uint64_t>(what));
  MKV_ASSIGN(const auto text, take(size, what));
  return std::string_view(reinterpret_cast<const char*>(text.data()), text.size());
}

Result<void> ByteReader::check_count(uint64_t count, size_t element_bytes,
                                     std::string_view what) const {
  if (count > remaining() / element_bytes) {
    return make_error(ErrorCode::corrupt,
                      concat(what, ": ", count, " of them need at least ", element_bytes,
                             " bytes each, found ", remaining(), " bytes"));
  }
  return {};
}

}  // namespace mkv
