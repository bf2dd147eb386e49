// Element types of stored tensors, and what a block of each takes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace mkv {

// Block layouts are those of ggml (gguf `GGMLQuantizationType`); values are ours.
enum class DType : uint8_t { f32, f16, bf16, q4_0, q4_1, q5_0, q5_1, q8_0, q4_k, q5_k, q6_k };

struct DTypeInfo {
  std::string_view name;  // as users write it, e.g. "Q4_K"
  size_t block_elements;  // 1, 32 or 256
  size_t block_bytes;
};

constexpr DTypeInfo kDTypes[] = {
    {"F32", 1, 4},      {"F16", 1, 2},      {"BF16", 1, 2},     {"Q4_0", 32, 18},
    {"Q4_1", 32, 20},   {"Q5_0", 32, 22},   {"Q5_1", 32, 24},   {"Q8_0", 32, 34},
    {"Q4_K", 256, 144}, {"Q5_K", 256, 176}, {"Q6_K", 256, 210},
};

constexpr const DTypeInfo& info(DType type) { return kDTypes[static_cast<size_t>(type)]; }

// Bytes of one row of `cols` elements; cols must be a multiple of block_elements.
constexpr size_t row_bytes(DType type, size_t cols) {
  return cols / info(type).block_elements * info(type).block_bytes;
}

}  // namespace mkv
