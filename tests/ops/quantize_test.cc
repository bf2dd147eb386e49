#include "ops/quantize.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "base/rng.h"
#include "ops/ops.h"

namespace mkv {
namespace {

std::vector<float> there_and_back(const std::vector<float>& x, DType type) {
  std::vector<std::byte> bytes(row_bytes(type, x.size()));
  quantize_row(x, type, bytes);
  std::vector<float> out(x.size());
  dequantize_row(Weight{bytes.data(), type, 1, x.size()}, 0, out);
  return out;
}

TEST(Quantize, WhatComesBackIsTheNearest) {
  Rng rng(1);
  for (const size_t size : {32u, 64u, 576u}) {
    std::vector<float> x(size);
    for (float& value : x) value = static_cast<float>(0.1 * rng.normal());
    EXPECT_EQ(there_and_back(x, DType::f32), x);
    const std::vector<float> f16 = there_and_back(x, DType::f16),
                             bf16 = there_and_back(x, DType::bf16),
                             q8_0 = there_and_back(x, DType::q8_0);
    for (size_t at = 0; at < size; at += 32) {
      float largest = 0;
      for (size_t i = at; i < at + 32; ++i) largest = std::max(largest, std::abs(x[i]));
      for (size_t i = at; i < at + 32; ++i) {
        EXPECT_LE(std::abs(f16[i] - x[i]), std::abs(x[i]) * 0x1p-11f + 0x1p-25f);
        EXPECT_LE(std::abs(bf16[i] - x[i]), std::abs(x[i]) * 0x1p-8f);
        // Half a step, and the scale is rounded to 16 bits.
        EXPECT_LE(std::abs(q8_0[i] - x[i]), largest / 127 * 0.5f + largest * 0x1p-11f);
      }
    }
  }
}

TEST(Quantize, ZerosStayZeros) {
  const std::vector<float> zeros(64);
  for (const DType type : {DType::f32, DType::f16, DType::bf16, DType::q8_0}) {
    EXPECT_EQ(there_and_back(zeros, type), zeros);
  }
  EXPECT_FALSE(can_quantize(DType::q4_k));
}

}  // namespace
}  // namespace mkv
