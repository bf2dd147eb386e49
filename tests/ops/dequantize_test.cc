#include <gmock/gmock.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "ops/ops.h"
#include "ops/ops_testing.h"
#include "ops/reference.h"

namespace mkv {
namespace {

using testing::RandomWeight;

void expect_equals_reference(const Weight& w) {
  std::vector<float> got(w.cols), expected(w.cols);
  for (size_t r = 0; r < w.rows; ++r) {
    dequantize_row(w, r, got);
    reference::dequantize_row(w, r, expected);
    ASSERT_EQ(got, expected) << info(w.type).name << " row " << r;
  }
}

TEST(DequantizeRow, EqualsReference) {
  for_each_instruction_set([] {
    Rng rng(1);
    for (const DType type : testing::kAllTypes) {
      const size_t block = info(type).block_elements;
      for (const size_t blocks : {1, 2, 5, 33}) {
        expect_equals_reference(RandomWeight(rng, type, 3, blocks * block, -8, 2).weight);
      }
    }
  });
}

TEST(DequantizeRow, ExtremeScales) {
  for_each_instruction_set([] {
    Rng rng(2);
    for (const DType type : testing::kAllTypes) {
      expect_equals_reference(RandomWeight(rng, type, 2, 512, -24, -14).weight);  // subnormal
      expect_equals_reference(RandomWeight(rng, type, 2, 512, 12, 15.9).weight);
    }
  });
}

TEST(DequantizeRow, EveryHalf) {
  for_each_instruction_set([] {
    std::vector<uint16_t> halves(65536);
    for (size_t i = 0; i < halves.size(); ++i) halves[i] = static_cast<uint16_t>(i);
    const Weight w{reinterpret_cast<const std::byte*>(halves.data()), DType::f16, 1, 65536};
    std::vector<float> got(65536), expected(65536);
    dequantize_row(w, 0, got);
    for (size_t i = 0; i < halves.size(); ++i) {
      expected[i] = f16_to_f32(halves[i]);
      if (std::isnan(expected[i])) {  // whose payload is nobody's business
        ASSERT_TRUE(std::isnan(got[i])) << i;
        got[i] = expected[i] = 0;
      }
    }
    ASSERT_EQ(std::memcmp(got.data(), expected.data(), got.size() * sizeof(float)), 0);
  });
}

DType type_named(std::string_view name) {
  for (const DType type : testing::kAllTypes) {
    if (info(type).name == name) return type;
  }
  ADD_FAILURE() << name;
  return DType::f32;
}

// Blocks that gguf-py decoded: tests/golden/make_quant_cases.py.
TEST(DequantizeRow, EqualsGgufPython) {
  std::ifstream file(MKV_SOURCE_DIR "/tests/golden/quant/blocks.json");
  const auto golden = nlohmann::json::parse(file);
  ASSERT_EQ(golden.at("cases").size(), 8u);
  for_each_instruction_set([&] {
    for (const auto& entry : golden.at("cases")) {
      const auto hex = entry.at("bytes").get<std::string>();
      std::vector<std::byte> bytes;
      for (size_t i = 0; i < hex.size(); i += 2) {
        bytes.push_back(static_cast<std::byte>(std::stoi(hex.substr(i, 2), nullptr, 16)));
      }
      const Weight w{bytes.data(), type_named(entry.at("type").get<std::string>()),
                     entry.at("rows").get<size_t>(), entry.at("cols").get<size_t>()};
      ASSERT_EQ(bytes.size(), w.bytes());
      const auto expected = entry.at("values").get<std::vector<float>>();
      std::vector<float> got(w.rows * w.cols), plain(got.size());
      for (size_t r = 0; r < w.rows; ++r) {
        dequantize_row(w, r, std::span(got).subspan(r * w.cols, w.cols));
        reference::dequantize_row(w, r, std::span(plain).subspan(r * w.cols, w.cols));
      }
      EXPECT_EQ(got, expected) << info(w.type).name;
      EXPECT_EQ(plain, expected) << info(w.type).name;
    }
  });
}

}  // namespace
}  // namespace mkv
