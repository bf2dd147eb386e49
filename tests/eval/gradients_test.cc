// The backward pass against the loss itself. Labels are drawn from the model, so that for a small
// change d_t of every key (or value) the summed KL divergence is 1/2 E[(sum_t g_t . d_t)^2]: both
// sides are measured here, the left one by running the changed model.
#include <gtest/gtest.h>

#include <cmath>

#include "base/rng.h"
#include "eval/divergence.h"
#include "model/golden.h"
#include "nest/kv_cache.h"

namespace mkv {
namespace {

struct Case {
  std::string model;
  Side side = Side::key;
  size_t sinks = 0, recent = 0;
  double size = 0.01;  // of the change: small enough for its square to count alone
};

// Without means a nest that decodes what it codes times a fixed random matrix near the identity.
Nest disturbing_nest(const Model& model, const Case& c) {
  NestConfig config;
  config.shape = model.config().kv_shape();
  config.key_mean = KeyMean::none;
  config.sinks = c.sinks;
  config.recent = c.recent;
  Nest nest = std::move(Nest::create(config)).value();
  Rng rng(3);
  for (size_t g = 0; g < nest.groups(); ++g) {
    for (float& x : nest.basis({0, g, c.side}).decode.span()) {
      x += static_cast<float>(c.size * rng.normal());
    }
  }
  return nest;
}

double summed_kl(const Model& model, std::span<const TokenId> tokens, const Nest& nest,
                 Workers& workers) {
  KvCache exact(nest, nest.full_ranks(), model.config().layer_types, tokens.size());
  Nest identity = std::move(Nest::create(nest.config())).value();
  KvCache plain(identity, identity.full_ranks(), model.config().layer_types, tokens.size());
  const Matrix<float> q = golden::run(model, tokens, tokens.size(), exact, workers);
  const Matrix<float> p = golden::run(model, tokens, tokens.size(), plain, workers);
  double sum = 0.0;
  for (size_t t = 0; t < tokens.size(); ++t) sum += kl_divergence(p.row(t), q.row(t));
  return sum;
}

class Gradients : public ::testing::TestWithParam<Case> {};

TEST_P(Gradients, PredictTheDivergenceOfASmallChange) {
  const Case& c = GetParam();
  const Model model = golden::load(golden::gguf_of(c.model));
  const std::vector<TokenId> tokens = golden::read_logits(c.model).ids;
  const Nest nest = disturbing_nest(model, c);
  const size_t head_dim = model.config().head_dim;
  Workers workers(1);
  const double measured = summed_kl(model, tokens, nest, workers);
  double predicted = 0.0;
  constexpr size_t kDraws = 300;
  for (size_t draw = 0; draw < kDraws; ++draw) {
    double along = 0.0;  // sum_t g_t . d_t
    const auto add = [&](const LayerGradient& seen) {
      if (seen.layer != 0) return;
      const bool key = c.side == Side::key;
      const View<const float> x = key ? seen.keys : seen.values;
      const View<const float> g = key ? seen.key_gradients : seen.value_gradients;
      for (size_t t = 0; t < x.rows; ++t) {
        for (size_t i = 0; i < x.cols; ++i) {
          const size_t head = i / head_dim;
          const Matrix<float>& decode = nest.basis({0, head, c.side}).decode;
          for (size_t j = 0; j < head_dim; ++j) {
            const double change = decode.at(i % head_dim, j) - (i % head_dim == j ? 1.0 : 0.0);
            along += g.at(t, i) * change * x.at(t, head * head_dim + j);
          }
        }
      }
    };
    ASSERT_TRUE(model.gradients(tokens, draw, {c.sinks, c.recent}, add, workers));
    predicted += 0.5 * along * along / kDraws;
  }
  EXPECT_GT(measured, 1e-4);  // well above the rounding of a 16-bit cache
  // The mean of 300 squares of a normal number is within 8 % two times in three.
  EXPECT_NEAR(predicted / measured, 1.0, 0.25) << predicted << " against " << measured;
}

INSTANTIATE_TEST_SUITE_P(All, Gradients,
                         ::testing::Values(Case{"llama", Side::key}, Case{"llama", Side::value},
                                           Case{"qwen2", Side::key}, Case{"qwen3", Side::key},
                                           Case{"qwen3", Side::value}, Case{"mistral", Side::key},
                                           Case{"llama", Side::value, 4, 0},
                                           Case{"gemma3", Side::key, 0, 0, 0.001},
                                           Case{"gemma3", Side::value, 0, 0, 0.001}));

}  // namespace
}  // namespace mkv
