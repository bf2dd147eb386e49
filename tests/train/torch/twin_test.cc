// The differentiable forward pass against the engine's, exact and coded, and its gradients against
// finite differences.
#include "train/torch/twin.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/rng.h"
#include "model/golden.h"
#include "nest/basis.h"
#include "train/torch/bases.h"
#include "train/torch/bf16.h"
#include "train/torch/difference.h"
#include "train/torch/layerwise.h"
#include "train/torch/loss.h"
#include "train/torch/step.h"

namespace mkv::training {
namespace {

// Random orthogonal bases and means, by the Cayley transform of random turns.
Nest random_nest(const Model& model, size_t recent, size_t group_size, KeyMean key_mean) {
  NestConfig config;
  config.shape = model.config().kv_shape();
  config.group_size = group_size;
  config.key_mean = key_mean;
  config.recent = recent;
  Nest nest = std::move(Nest::create(config)).value();
  EXPECT_TRUE(nest.set_ladder(uniform_ladder(nest, nest.dims() / 4)));
  Bases bases(nest, true, torch::kCPU);
  Rng rng(5);
  for (Tensor* t : {&bases.turns(), &bases.means()}) {
    float* x = t->data_ptr<float>();
    for (int64_t i = 0; i < t->numel(); ++i) x[i] = static_cast<float>(0.2 * rng.normal());
  }
  bases.store(nest);
  EXPECT_LT(nest.orthogonality_error(), 1e-5);
  return nest;
}

// The same with bases that are not orthogonal: their metric is a random one near the identity.
Nest oblique_nest(const Model& model, size_t recent) {
  Nest nest = random_nest(model, recent, 1, KeyMean::position);
  Rng rng(6);
  for (size_t s = 0; s < nest.spaces(); ++s) {
    Basis& basis = nest.basis(nest.unflat(s));
    const double size = 0.3 / std::sqrt(static_cast<double>(nest.dims()));
    for (float& x : basis.decode.span()) x += static_cast<float>(size * rng.normal());
    EXPECT_TRUE(invert(basis.decode, basis.encode));
  }
  return nest;
}

class Twins : public ::testing::TestWithParam<std::string> {
 protected:
  // A nest's cache of 200 tokens in both programs.
  struct Coded {
    Matrix<float> engine;  // logits
    Bases bases;
    CacheCode code;
  };
  Coded coded(const Nest& nest) const {
    const Ranks ranks = nest.ranks_at(nest.spaces() * 2 + 1);
    KvCache cache(nest, ranks, model_.config().layer_types, tokens_.size(), {.exact = DType::f32});
    Workers workers(1);
    Matrix<float> engine = golden::run(model_, tokens_, tokens_.size(), cache, workers);
    Bases bases(nest, true, torch::kCPU);
    CacheCode code = bases.code(bases.made(), ranks);
    return {std::move(engine), std::move(bases), std::move(code)};
  }
  Difference difference_of(const Coded& coded, bool rounded) const {
    CacheCode code = coded.code;
    code.rounded = rounded;
    return difference(coded.engine, twin_.logits(twin_.hidden(tokens_, code)));
  }
  // qwen2's keys have biases of many times their size, and float32 rounds by the sum.
  static bool biased() { return GetParam() == "qwen2"; }
  static double bound() { return biased() ? 4e-4 : 1e-4; }

  const torch::NoGradGuard none_;
  const Model model_ = golden::load(golden::gguf_of(GetParam()));
  const Twin twin_{model_, {}};
  const std::vector<TokenId> tokens_ = [this] {
    std::vector<TokenId> tokens(200);
    for (size_t i = 0; i < tokens.size(); ++i) {
      tokens[i] = static_cast<TokenId>((i * 37 + 11) % model_.config().vocab_size);
    }
    return tokens;
  }();
};

TEST_P(Twins, LogitsAreTheEngines) {
  const std::vector<TokenId> tokens = golden::read_logits(GetParam()).ids;
  const Matrix<float> engine = golden::run(model_, tokens, tokens.size(), 1, {.exact = DType::f32});
  EXPECT_LT(difference(engine, twin_.logits(twin_.hidden(tokens, {}))).largest, 1e-3);
}

TEST_P(Twins, LogitsOfACodedCacheAreTheEngines) {
  for (const KeyMean mean : {KeyMean::none, KeyMean::plain, KeyMean::position}) {
    for (const size_t recent : {size_t{0}, size_t{64}, size_t{128}}) {
      const size_t group = recent == 64 ? model_.config().num_kv_heads : 1;
      const Nest nest = random_nest(model_, recent, group, mean);
      const Coded both = coded(nest);
      EXPECT_LT(difference_of(both, true).root_mean_square, bound())
          << "recent " << recent << ", mean " << static_cast<int>(mean);
      // Without the engine's rounding to 16 bits the difference is that rounding, and more.
      const Difference without = difference_of(both, false);
      EXPECT_LT(without.root_mean_square, 1e-3);
      if (recent == 0 && !biased()) {
        EXPECT_GT(without.root_mean_square, 3 * bound());
      }
    }
  }
}

TEST_P(Twins, LogitsOfObliqueColumnsAreTheEngines) {
  const Nest nest = oblique_nest(model_, 64);
  const Coded both = coded(nest);
  EXPECT_LT(difference_of(both, true).root_mean_square, bound());
  Nest stored = oblique_nest(model_, 64);
  both.bases.store(stored);
  for (size_t s = 0; s < nest.spaces(); ++s) {
    const Basis &a = nest.basis(nest.unflat(s)), &b = stored.basis(nest.unflat(s));
    EXPECT_TRUE(std::ranges::equal(a.decode.span(), b.decode.span())) << s;
    EXPECT_TRUE(std::ranges::equal(a.encode.span(), b.encode.span())) << s;
  }
}

INSTANTIATE_TEST_SUITE_P(All, Twins,
                         ::testing::Values("llama", "llama3", "mistral", "qwen2", "qwen3",
                                           "llama_spm"));

// The loss of two windows, from the model itself.
struct LossCase {
  size_t recent;
  bool oblique;
  Objective objective;
};
class LossTest : public ::testing::TestWithParam<LossCase> {
 protected:
  LossTest()
      : model_(golden::load(golden::gguf_of("llama"))),
        nest_(GetParam().oblique ? oblique_nest(model_, GetParam().recent)
                                 : random_nest(model_, GetParam().recent, 1, KeyMean::position)),
        twin_(model_, {}),
        bases_(nest_, true, torch::kCPU) {
    for (size_t w = 0; w < 2; ++w) {
      std::vector<TokenId>& tokens = tokens_.emplace_back();
      for (size_t i = 0; i < 150; ++i) {
        tokens.push_back(static_cast<TokenId>((i * 31 + w * 7 + 3) % model_.config().vocab_size));
      }
    }
    for (size_t w = 0; w < 2; ++w) windows_.push_back({tokens_[w], nest_.ranks_at(5 + 6 * w)});
  }
  StepResult gradients(size_t threads) {
    Workers workers(threads);
    return step_gradients(twin_, bases_, windows_, weights_, objective_, workers);
  }
  double loss() {
    const StepResult result = gradients(1);
    double sum = 0;
    for (size_t w = 0; w < 2; ++w) {
      if (objective_ == Objective::layerwise) {  // of its logarithm
        sum += std::log(result.kl[w]);
        continue;
      }
      sum += weights_.kl * result.kl[w] + weights_.cross_entropy * result.cross_entropy[w];
    }
    return sum / 2;
  }

  Model model_;
  Nest nest_;
  Twin twin_;
  Bases bases_;
  LossWeights weights_{.kl = 1.0, .cross_entropy = 0.5};
  Objective objective_ = GetParam().objective;
  std::vector<std::vector<TokenId>> tokens_;
  std::vector<StepWindow> windows_;
};

TEST_P(LossTest, GradientsAgreeWithFiniteDifferences) {
  const StepResult at = gradients(1);
  ASSERT_EQ(at.gradients.size(), 2u);
  Rng rng(9);
  for (const bool turns : {true, false}) {
    Tensor parameter = turns ? bases_.turns() : bases_.means();
    const Tensor gradient = at.gradients[turns ? 0 : 1];
    // Along the gradient the slope is its length: far above the rounding of float32.
    const Tensor direction = gradient / gradient.norm();
    const double step = turns ? 1e-2 : 3e-2;
    const Tensor start = parameter.clone();
    parameter.copy_(start + direction * step);
    const double above = loss();
    parameter.copy_(start - direction * step);
    const double below = loss();
    parameter.copy_(start);
    const double slope = gradient.norm().item<double>();
    EXPECT_GT(slope, 1e-3);
    EXPECT_NEAR((above - below) / (2 * step) / slope, 1.0, 0.02) << (turns ? "turns" : "means");
  }
}

// However many windows make a step: their gradients add up to the mean, each by its own loss.
TEST_P(LossTest, AStepsGradientIsTheMeanOfItsWindows) {
  for (const bool relative : {false, true}) {
    weights_.relative = false;
    Workers workers(2);
    std::vector<Tensor> expected{torch::zeros_like(bases_.turns()),
                                 torch::zeros_like(bases_.means())};
    std::vector<double> kl;
    std::vector<StepWindow> all;
    for (size_t w = 0; w < 5; ++w) {
      all.push_back({tokens_[w % 2], nest_.ranks_at(4 + 3 * w)});
      const StepResult one = step_gradients(twin_, bases_, std::span(all).last(1), weights_,
                                            Objective::end_to_end, workers);
      kl.push_back(one.kl[0]);
      const double share = 1.0 / (5.0 * (relative ? one.kl[0] : 1.0));
      for (size_t i = 0; i < 2; ++i) expected[i].add_(one.gradients[i], share);
    }
    weights_.relative = relative;
    const StepResult step =
        step_gradients(twin_, bases_, all, weights_, Objective::end_to_end, workers);
    EXPECT_EQ(step.kl, kl);
    for (size_t i = 0; i < 2; ++i) {
      EXPECT_GT(expected[i].norm().item<double>(), 0.0);
      EXPECT_LT((step.gradients[i] - expected[i]).norm().item<double>(),
                1e-5 * expected[i].norm().item<double>());
    }
  }
}

TEST_P(LossTest, AreBitEqualForAnyNumberOfWorkers) {
  const StepResult one = gradients(1), two = gradients(2);
  EXPECT_EQ(one.kl, two.kl);
  for (size_t i = 0; i < 2; ++i) EXPECT_TRUE(torch::equal(one.gradients[i], two.gradients[i]));
}

// What bf16 adds to losses and gradients of float32.
TEST_P(LossTest, InBf16AreAboutTheSame) {
  const Twin twin(model_, {.bf16 = true});
  Workers workers(1);
  const StepResult whole = gradients(1);
  const StepResult half = step_gradients(twin, bases_, windows_, weights_, objective_, workers);
  for (size_t w = 0; w < 2; ++w) EXPECT_NEAR(half.kl[w], whole.kl[w], 0.02 * whole.kl[w]);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_LT((half.gradients[i] - whole.gradients[i]).norm().item<double>(),
              0.2 * whole.gradients[i].norm().item<double>());  // measured: at most 0.12
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, LossTest,
                         ::testing::Values(LossCase{0, false, Objective::end_to_end},
                                           LossCase{64, false, Objective::end_to_end},
                                           LossCase{64, true, Objective::end_to_end},
                                           LossCase{64, false, Objective::layerwise}));

// Forward and backward, the window's exact keys and values among it.
TEST(Attention, InBf16IsThatInFloat32) {
  torch::manual_seed(3);
  for (const int64_t recent : {0, 64}) {
    AttentionInputs in{torch::randn({2, 3, 200, 16}), torch::randn({2, 200, 16}),
                       torch::randn({2, 200, 16}), torch::randn({2, 200, 16}),
                       torch::randn({2, 200, 16})};
    std::vector<Tensor> leaves{in.queries, in.coded_keys, in.coded_values};
    if (recent > 0) leaves.insert(leaves.end(), {in.exact_keys, in.exact_values});
    for (Tensor& t : leaves) t.requires_grad_(true);
    const Tensor d = torch::randn({2, 3, 200, 16});
    const Tensor whole = attention(in, 0.25, {4, recent});
    const Tensor half = attention_in_bf16(in, 0.25, {4, recent});
    const auto error = [](const Tensor& a, const Tensor& b) {
      return ((a - b).norm() / b.norm()).item<double>();
    };
    EXPECT_LT(error(half, whole), 0.005);
    const auto expected = torch::autograd::grad({whole}, leaves, {d});
    const auto got = torch::autograd::grad({half}, leaves, {d});
    for (size_t i = 0; i < leaves.size(); ++i) {
      EXPECT_LT(error(got[i], expected[i]), 0.01) << i << ", recent " << recent;
    }
  }
}

TEST(Layerwise, IsZeroWhereNothingIsCut) {
  const Model model = golden::load(golden::gguf_of("llama"));
  const Nest nest = random_nest(model, 0, 1, KeyMean::position);
  const Bases bases(nest, true, torch::kCPU);
  const Twin twin(model, {});
  const std::vector<TokenId> tokens(100, 5);
  std::vector<Tensor> leaves = bases.made();
  for (Tensor& t : leaves) t = t.detach().requires_grad_(true);
  const double all = layerwise_loss(twin, bases, leaves, {tokens, nest.full_ranks()}).error;
  const double half = layerwise_loss(twin, bases, leaves, {tokens, nest.ranks_at(12)}).error;
  EXPECT_LT(all, 1e-8);
  EXPECT_GT(half, 1e-4);
}

TEST(Loss, IsZeroForTheTeacherItself) {
  const Model model = golden::load(golden::gguf_of("llama"));
  const Twin twin(model, {});
  const torch::NoGradGuard none;
  const std::vector<TokenId> tokens(100, 5);
  const Tensor hidden = twin.hidden(tokens, {});
  const WindowLoss loss = window_loss(twin, hidden, hidden, tokens, {});
  EXPECT_EQ(loss.kl, 0.0);
  EXPECT_GT(loss.cross_entropy, 0.0);
  EXPECT_EQ(loss.gradient.abs().max().item<double>(), 0.0);
}

TEST(Bases, StayOrthogonalWithTheStartsDeterminantHoweverFarTheyTurn) {
  const Model model = golden::load(golden::gguf_of("llama"));
  const Nest nest = random_nest(model, 0, 1, KeyMean::none);
  Bases bases(nest, true, torch::kCPU);
  const Tensor before = torch::linalg_det(bases.bases());
  for (const double size : {0.1, 1.0, 30.0}) {
    bases.turns().normal_().mul_(size);
    const Tensor u = bases.bases();
    EXPECT_LT(Bases::orthogonality_error(u), 1e-5) << size;
    EXPECT_LT((torch::linalg_det(u) - before).abs().max().item<double>(), 1e-4) << size;
  }
}

}  // namespace
}  // namespace mkv::training
