// Any bytes as a GGUF file: opening it and asking it for everything must stay inside the bytes.
#include <cstdint>
#include <string_view>
#include <vector>

#include "store/gguf.h"

namespace {

volatile unsigned char sink;

void look_up(const mkv::GgufMetadata& metadata, std::string_view key) {
  static_cast<void>(metadata.find<uint64_t>(key));
  static_cast<void>(metadata.find<double>(key));
  static_cast<void>(metadata.find<bool>(key));
  static_cast<void>(metadata.find<std::vector<int32_t>>(key));
  static_cast<void>(metadata.find<std::vector<float>>(key));
  static_cast<void>(metadata.find<std::string_view>(key));
  const auto texts = metadata.find<std::vector<std::string_view>>(key);
  if (!texts || !texts->has_value()) return;
  for (const std::string_view text : **texts) {
    if (!text.empty()) sink = static_cast<unsigned char>(text.back());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto file = mkv::GgufFile::parse({reinterpret_cast<const std::byte*>(data), size}, "fuzz");
  if (!file) return 0;
  for (const auto& [key, value] : file->metadata().values()) look_up(file->metadata(), key);
  for (const mkv::TensorView& tensor : file->tensors()) {
    sink = static_cast<unsigned char>(tensor.data[0]);
    sink = static_cast<unsigned char>(tensor.data[tensor.size_bytes - 1]);
    if (*file->get(tensor.name) != &tensor) __builtin_trap();
  }
  return 0;
}
