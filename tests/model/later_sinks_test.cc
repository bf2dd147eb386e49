// What counts as a later sink, and that a real model has them: they hold nearly all of the gradient
// of their layers.
#include "nest/later_sinks.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "model/golden.h"
#include "nest/fixture.h"
#include "ops/ops.h"
#include "text/golden.h"

namespace mkv {
namespace {

constexpr size_t kWidth = 64, kTokens = 40, kSinks = 4;

// Random keys before RoPE and values, the first value a fifth of the others.
struct Layer {
  Matrix<float> keys = random_matrix(kTokens, kWidth, 1);
  Matrix<float> values = random_matrix(kTokens, kWidth, 2);

  Layer() {
    for (float& x : values.row(0)) x *= 0.2f;
  }
  // Makes a token's key and value so many parts of the first one's and the rest its own.
  void mix(size_t token, float key_part, float value_part) {
    for (size_t c = 0; c < kWidth; ++c) {
      keys.at(token, c) = key_part * keys.at(0, c) + (1.0f - key_part) * keys.at(token, c);
      values.at(token, c) =
          value_part * values.at(0, c) + (1.0f - value_part) * 0.2f * values.at(token, c);
    }
  }
  std::vector<uint32_t> find(size_t most, std::span<const uint32_t> before = {}) const {
    return find_later_sinks(keys.view(), values.view(), kSinks, {most, true}, before);
  }
};

using Found = std::vector<uint32_t>;

TEST(LaterSinks, LookLikeTheFirstInKeyAndValue) {
  Layer layer;
  EXPECT_EQ(layer.find(9), Found());
  layer.mix(2, 1.0f, 1.0f);  // one of the leading tokens
  layer.mix(11, 0.9f, 0.9f);
  layer.mix(20, 0.9f, 0.1f);  // no value like it
  layer.mix(30, 0.1f, 0.9f);  // no key
  layer.mix(39, 0.8f, 0.8f);
  EXPECT_EQ(layer.find(9), (Found{11, 39}));
  EXPECT_EQ(layer.find(1), Found{11});
  EXPECT_EQ(layer.find(0), Found());
}

TEST(LaterSinks, AreNoneWhereTheFirstValueIsAsLargeAsOthers) {
  Layer layer;
  layer.mix(11, 1.0f, 1.0f);
  for (const size_t t : {0, 11}) {
    for (float& x : layer.values.row(t)) x *= 3.0f;
  }
  EXPECT_EQ(layer.find(9), Found());
  // ... but for a small one that was one in the layer before: 11 is not small, 20 is.
  for (float& x : layer.values.row(20)) x *= 0.3f;
  EXPECT_EQ(layer.find(9, Found{11, 20}), Found{20});
}

TEST(LaterSinks, NeedTwoLeadingTokensToCompare) {
  Layer layer;
  layer.mix(11, 1.0f, 1.0f);
  EXPECT_EQ(find_later_sinks(layer.keys.view(), layer.values.view(), 2, {9, true}, {}), Found{11});
  EXPECT_EQ(find_later_sinks(layer.keys.view(), layer.values.view(), 1, {9, true}, {}), Found());
  EXPECT_EQ(find_later_sinks(layer.keys.view(), layer.values.view(), 0, {9, true}, {}), Found());
}

TEST(LaterSinks, OfALayerBeforeCountWhereBothSeeTheSame) {
  const LayerTypes types = sliding_layers(16, 4, 100);
  EXPECT_EQ(later_sink_rule(types, 0, 5).most, 5u);
  EXPECT_GT(later_sink_rule(types, 1, 5).most, 1000u);
  EXPECT_EQ(later_sink_rule(types, 1, 0).most, 0u);
  EXPECT_FALSE(later_sink_rule(types, 1, 5).as_before);
  const LayerTypes alike = layers_alike(16);
  EXPECT_FALSE(later_sink_rule(alike, 0, 5).as_before);
  EXPECT_TRUE(later_sink_rule(alike, 1, 5).as_before);
}

// By layer: what later sinks have of the sum of |gradient|^2 of the values after the leading ones.
TEST(LaterSinksReal, HoldTheGradientOfTheirLayers) {
  if (smollm2_path().empty()) GTEST_SKIP() << "no SmolLM2 in ~/.cache/mkv-models: get_model.sh";
  const Model model = golden::load(smollm2_path());
  const auto encoded = model.tokenizer().encode(
      read_text(std::filesystem::path(MKV_SOURCE_DIR) / "docs/method.md"), {});
  ASSERT_TRUE(encoded);
  const std::span<const TokenId> tokens = std::span(*encoded).first(700);
  Workers workers(2);
  std::vector<std::vector<float>> squares(model.config().num_layers);
  const auto square = [](View<const float> m, size_t t) { return dot(m.row(t), m.row(t)); };
  ASSERT_TRUE(model.gradients(
      tokens, 1, {.sinks = kSinks, .recent = 64},
      [&](const LayerGradient& seen) {
        EXPECT_TRUE(seen.later_sinks.empty());
        for (size_t t = 0; t < tokens.size(); ++t) {
          squares[seen.layer].push_back(square(seen.value_gradients, t));
        }
      },
      workers));
  size_t layers = 0;
  ASSERT_TRUE(model.gradients(
      tokens, 1, {.sinks = kSinks, .recent = 64, .later_sinks = 100},
      [&](const LayerGradient& seen) {
        double all = 0.0, found = 0.0;
        for (size_t t = 0; t < tokens.size(); ++t) all += squares[seen.layer][t];
        for (const uint32_t t : seen.later_sinks) {
          found += squares[seen.layer][t];
          EXPECT_EQ(square(seen.value_gradients, t), 0.0f);
          EXPECT_EQ(square(seen.key_gradients, t), 0.0f);
        }
        EXPECT_LT(seen.later_sinks.size(), 60u) << seen.layer;
        layers += found > 0.9 * all ? 1 : 0;
      },
      workers));
  EXPECT_GE(layers, 6u);
}

}  // namespace
}  // namespace mkv
