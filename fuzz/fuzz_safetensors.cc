// Any bytes as a safetensors file: the tensors that it lists must lie inside the bytes.
#include <cstdint>

#include "store/safetensors.h"

namespace {

volatile unsigned char sink;

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto file =
      mkv::SafetensorsFile::parse({reinterpret_cast<const std::byte*>(data), size}, "fuzz");
  if (!file) return 0;
  for (const mkv::RawTensor& tensor : file->raw_tensors()) {
    if (!tensor.bytes.empty()) sink = static_cast<unsigned char>(tensor.bytes.back());
    static_cast<void>(file->find(tensor.name));
  }
  for (const mkv::TensorView& tensor : file->tensors()) {
    if (tensor.size_bytes != 0) sink = static_cast<unsigned char>(tensor.data[0]);
    if (reinterpret_cast<uintptr_t>(tensor.data) % mkv::info(tensor.type).block_bytes != 0) {
      __builtin_trap();
    }
  }
  return 0;
}
