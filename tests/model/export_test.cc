// Models written with changed weights: what is loaded again is what was asked for, whatever the
// format.
#include "model/export.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <cmath>

#include "base/rng.h"
#include "model/golden.h"
#include "model/weights.h"
#include "ops/ops.h"

namespace mkv {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

Matrix<float> random_matrix(size_t rows, size_t cols, Rng& rng) {
  Matrix<float> out(rows, cols);
  for (float& x : out.span()) x = static_cast<float>(0.1 * rng.normal());
  return out;
}

const Weight* weights_of(const LayerWeights& l, size_t projection) {
  const Weight* const all[] = {&l.query, &l.key, &l.value, &l.output, &l.gate, &l.up, &l.down};
  return all[projection];
}

// Of every projection.
WeightChanges random_changes(const Model& model) {
  Rng rng(7);
  WeightChanges changes;
  for (size_t l = 0; l < model.config().num_layers; ++l) {
    for (size_t p = 0; p < kProjections; ++p) {
      const Weight& w = *weights_of(model.weights().layers[l], p);
      changes.push_back({l, static_cast<Projection>(p), random_matrix(w.rows, 3, rng),
                         random_matrix(3, w.cols, rng), 0.5f});
    }
  }
  return changes;
}

class Export : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "mkv_export_XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    dir_ = name;
    folder_ = golden::folder_of(GetParam());
    gguf_ = golden::gguf_of(GetParam());
  }
  void TearDown() override { fs::remove_all(dir_); }
  static Matrix<float> logits(const Model& model) {
    std::vector<TokenId> tokens;
    for (size_t i = 0; i < 40; ++i) {
      tokens.push_back(static_cast<TokenId>((i * 37 + 11) % model.config().vocab_size));
    }
    return golden::run(model, tokens, tokens.size(), 1, {.exact = DType::f32});
  }
  static double error(const Model& found, const Model& expected) {
    return golden::relative_error(logits(found).span(), logits(expected).span());
  }

  fs::path dir_, folder_, gguf_;
};

TEST_P(Export, ChangedWeightsAreTheSumsThatWereAskedFor) {
  const Model model = golden::load(folder_);
  const WeightChanges changes = random_changes(model);
  ASSERT_TRUE(export_model(model, folder_, changes, DType::f32, dir_ / "out"));
  const Model out = golden::load(dir_ / "out");
  for (const WeightChange& change : changes) {
    const auto projection = static_cast<size_t>(change.projection);
    const Weight& before = *weights_of(model.weights().layers[change.layer], projection);
    const Weight& after = *weights_of(out.weights().layers[change.layer], projection);
    std::vector<float> a(before.cols), b(before.cols);
    for (size_t r = 0; r < before.rows; ++r) {
      dequantize_row(before, r, a);
      dequantize_row(after, r, b);
      for (size_t c = 0; c < before.cols; ++c) {
        float sum = 0;
        for (size_t k = 0; k < 3; ++k) sum += change.up.row(r)[k] * change.down.row(k)[c];
        ASSERT_NEAR(b[c], a[c] + 0.5f * sum, 1e-5f) << projection << " " << r << " " << c;
      }
    }
  }
  EXPECT_EQ(out.config().max_position_embeddings, model.config().max_position_embeddings);
  EXPECT_EQ(out.tokenizer().vocab_size(), model.tokenizer().vocab_size());
}

// GGUF files of the llama architecture have rows of queries and keys in an order of their own.
TEST_P(Export, BothFormatsAreTheSameModel) {
  const Model from_folder = golden::load(folder_), from_gguf = golden::load(gguf_);
  const WeightChanges changes = random_changes(from_folder);
  ASSERT_TRUE(export_model(from_folder, folder_, changes, DType::f32, dir_ / "out"));
  ASSERT_TRUE(export_model(from_gguf, gguf_, changes, DType::f32, dir_ / "out.gguf"));
  const Model a = golden::load(dir_ / "out"), b = golden::load(dir_ / "out.gguf");
  const double before = error(from_gguf, from_folder);
  EXPECT_LT(error(b, a), before + 1e-4);
  EXPECT_GT(error(a, from_folder), 0.05);
}

TEST_P(Export, EveryTypeLoadsAndIsAsCloseAsItsBits) {
  const Model model = golden::load(gguf_);
  const WeightChanges changes = random_changes(model);
  ASSERT_TRUE(export_model(model, gguf_, changes, DType::f32, dir_ / "exact.gguf"));
  const Model exact = golden::load(dir_ / "exact.gguf");
  // Of a row's largest value: half a step, and what the scale of 16 bits loses.
  for (const auto& [type, bound] :
       {std::pair{DType::f16, 0x1p-11f}, {DType::q8_0, 0.5f / 127 + 0x1p-11f}}) {
    const fs::path path = dir_ / "out.gguf";
    const size_t block = info(type).block_elements;
    if (model.config().hidden_size % block != 0 || model.config().intermediate_size % block != 0) {
      EXPECT_FALSE(export_model(model, gguf_, changes, type, path));  // rows are no whole blocks
      continue;
    }
    ASSERT_TRUE(export_model(model, gguf_, changes, type, path));
    const Model out = golden::load(path);
    EXPECT_EQ(out.weights().embedding.type, model.weights().embedding.type);
    for (size_t l = 0; l < model.config().num_layers; ++l) {
      for (size_t p = 0; p < kProjections; ++p) {
        const Weight& found = *weights_of(out.weights().layers[l], p);
        const Weight& expected = *weights_of(exact.weights().layers[l], p);
        EXPECT_EQ(found.type, type);
        std::vector<float> a(found.cols), b(found.cols);
        for (size_t r = 0; r < found.rows; ++r) {
          dequantize_row(found, r, a);
          dequantize_row(expected, r, b);
          float largest = 0;
          for (const float x : b) largest = std::max(largest, std::abs(x));
          for (size_t c = 0; c < a.size(); ++c) ASSERT_NEAR(a[c], b[c], bound * largest);
        }
      }
    }
    EXPECT_LT(error(out, exact), 0.5);
  }
}

TEST(ExportTypes, RowsThatDoNotFitATypesBlocksAreAnError) {
  const Model model = golden::load(golden::gguf_of("llama"));
  WeightChanges changes = random_changes(model);
  const auto refused = export_model(model, golden::gguf_of("llama"), changes, DType::q4_k,
                                    fs::temp_directory_path() / "mkv_never_written.gguf");
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("cannot be written as Q4_K"));
}

TEST_P(Export, WithoutChangesItIsTheSameModel) {
  const Model model = golden::load(gguf_);
  ASSERT_TRUE(export_model(model, gguf_, {}, std::nullopt, dir_ / "out.gguf"));
  EXPECT_EQ(golden::load(dir_ / "out.gguf").weights_hash(), model.weights_hash());
  const Model folder = golden::load(folder_);
  ASSERT_TRUE(export_model(folder, folder_, {}, std::nullopt, dir_ / "out"));
  EXPECT_EQ(golden::load(dir_ / "out").weights_hash(), folder.weights_hash());
}

TEST_P(Export, WhatDoesNotFitIsAnError) {
  const Model model = golden::load(gguf_);
  WeightChanges changes = random_changes(model);
  changes[0].up = Matrix<float>(3, 3);
  const auto shape = export_model(model, gguf_, changes, std::nullopt, dir_ / "out.gguf");
  ASSERT_FALSE(shape);
  EXPECT_THAT(shape.error().message, HasSubstr("its change 3 x"));
  changes = random_changes(model);
  changes[0].layer = 1000;
  EXPECT_FALSE(export_model(model, gguf_, changes, std::nullopt, dir_ / "out.gguf"));
  EXPECT_FALSE(export_model(model, gguf_, {}, std::nullopt, dir_ / "no" / "out.gguf"));
  const Model folder = golden::load(folder_);
  EXPECT_THAT(export_model(folder, folder_, {}, DType::q8_0, dir_ / "out").error().message,
              HasSubstr("Q8_0"));
}

INSTANTIATE_TEST_SUITE_P(Models, Export, ::testing::ValuesIn(golden::kNames));

}  // namespace
}  // namespace mkv
