#include "ops/quantize.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "base/check.h"
#include "base/half.h"

namespace mkv {
namespace {

constexpr size_t kBlock = 32;

void quantize_q8_0(std::span<const float> x, std::byte* out) {
  for (size_t at = 0; at < x.size(); at += kBlock) {
    float largest = 0.0f;
    for (size_t i = 0; i < kBlock; ++i) largest = std::max(largest, std::abs(x[at + i]));
    const float scale = largest / 127.0f, inverse = scale > 0.0f ? 1.0f / scale : 0.0f;
    const uint16_t half = f32_to_f16(scale);
    std::memcpy(out, &half, sizeof half);
    out += sizeof half;
    for (size_t i = 0; i < kBlock; ++i) {
      *out++ = static_cast<std::byte>(static_cast<int8_t>(std::lround(x[at + i] * inverse)));
    }
  }
}

}  // namespace

bool can_quantize(DType type) {
  return type == DType::f32 || type == DType::f16 || type == DType::bf16 || type == DType::q8_0;
}

void quantize_row(std::span<const float> x, DType type, std::span<std::byte> out) {
  MKV_CHECK(can_quantize(type) && x.size() % info(type).block_elements == 0);
  MKV_CHECK(out.size() == row_bytes(type, x.size()));
  if (type == DType::f32) {
    std::memcpy(out.data(), x.data(), out.size());
  } else if (type == DType::q8_0) {
    quantize_q8_0(x, out.data());
  } else {
    for (size_t i = 0; i < x.size(); ++i) {
      const uint16_t half = type == DType::f16 ? f32_to_f16(x[i]) : f32_to_bf16(x[i]);
      std::memcpy(out.data() + i * sizeof half, &half, sizeof half);
    }
  }
}

}  // namespace mkv
