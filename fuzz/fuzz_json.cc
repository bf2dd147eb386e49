// Any bytes as JSON: an error, or a value that survives writing and reading again.
#include <cstdint>
#include <string_view>

#include "store/json.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto json = mkv::parse_json({reinterpret_cast<const char*>(data), size}, "fuzz");
  if (!json) return 0;
  const auto text = mkv::dump_json(*json);
  if (!text) __builtin_trap();  // what was parsed is UTF-8
  const auto again = mkv::parse_json(*text, "again");
  if (!again || *again != *json) __builtin_trap();
  if (!json->is_object()) return 0;
  for (const auto& item : json->items()) {
    static_cast<void>(mkv::get_size(*json, item.key()));
    static_cast<void>(mkv::get_double(*json, item.key()));
    static_cast<void>(mkv::get_string_or(*json, item.key(), ""));
    static_cast<void>(mkv::get_sizes(*json, item.key()));
  }
  return 0;
}
