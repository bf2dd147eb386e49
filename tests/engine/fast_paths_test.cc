// Every instruction set decodes and reads prompts as the scalar reference with float32 attention
// does, from the same cache: the shipped nest at 2 bits, the real model. Over whole texts a
// rounding flips a code now and then, which is not what is compared here.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <sstream>

#include "model/golden.h"
#include "ops/instruction_set.h"
#include "text/golden.h"

namespace mkv {
namespace {

constexpr size_t kContext = 1200, kSteps = 6, kChunk = 48;

std::vector<double> probabilities(std::span<const float> logits) {
  std::vector<double> p(logits.begin(), logits.end());
  const double top = *std::ranges::max_element(p);
  double sum = 0.0;
  for (double& x : p) sum += x = std::exp(x - top);
  for (double& x : p) x /= sum;
  return p;
}

double divergence(std::span<const double> p, std::span<const double> q) {
  double kl = 0.0;
  for (size_t i = 0; i < p.size(); ++i) {
    if (p[i] > 0.0) kl += p[i] * std::log(p[i] / q[i]);
  }
  return kl;
}

// Mean over rows of logits.
double mean_divergence(const Matrix<float>& expected, const Matrix<float>& found) {
  double sum = 0.0;
  for (size_t r = 0; r < expected.rows(); ++r) {
    sum += divergence(probabilities(expected.row(r)), probabilities(found.row(r)));
  }
  return sum / static_cast<double>(expected.rows());
}

// The real model, the shipped nest at 2 bits and a cache of kContext tokens. Puts the instruction
// set back, whatever a test does.
class FastPaths : public ::testing::Test {
 protected:
  void SetUp() override {
    if (smollm2_path().empty()) GTEST_SKIP() << "no SmolLM2 in ~/.cache/mkv-models: get_model.sh";
    const std::filesystem::path source = MKV_SOURCE_DIR;
    model_ = golden::load(smollm2_path());
    auto nest = Nest::load(source / "nests/SmolLM2-135M-Instruct");
    ASSERT_TRUE(nest) << nest.error().message;
    nest_ = std::move(*nest);
    const auto rung = rung_for_budget(*nest_, "2bits");
    ASSERT_TRUE(rung);
    const auto tokenizer = load_tokenizer(smollm2_path());
    auto encoded = tokenizer->encode(read_text(source / "docs/method.md"), {});
    ASSERT_TRUE(encoded);
    tokens_ = std::move(*encoded);
    ASSERT_GE(tokens_.size(), kContext + kChunk);
    cache_.emplace(*nest_, nest_->ranks_at(*rung), model_->config().layer_types, kContext + kChunk,
                   KvOptions{.arithmetic = Arithmetic::fast});
    (void)run(*cache_, std::span(tokens_).first(kContext), 400);
  }
  void TearDown() override { (void)set_instruction_set("auto"); }

  std::span<const TokenId> after_context(size_t first, size_t count) const {
    return std::span(tokens_).subspan(kContext + first, count);
  }
  Matrix<float> run(KvCache& cache, std::span<const TokenId> tokens, size_t chunk) {
    return golden::run(*model_, tokens, chunk, cache, workers_);
  }
  // Logits of tokens in one chunk, from a copy of the cache.
  Matrix<float> run_with(std::string_view isa, KvCache copy, std::span<const TokenId> tokens) {
    EXPECT_TRUE(set_instruction_set(isa));
    return run(copy, tokens, tokens.size());
  }
  static void expect_below_a_ten_thousandth(const std::map<std::string_view, double>& of_sets) {
    for (const auto& [isa, kl] : of_sets) {
      EXPECT_LT(kl, 1e-4) << isa;
      std::ostringstream text;
      text << kl;
      RecordProperty(std::string(isa), text.str());
    }
  }

  std::optional<Model> model_;
  std::optional<Nest> nest_;
  std::vector<TokenId> tokens_;
  Workers workers_{2};
  std::optional<KvCache> cache_;
};

TEST_F(FastPaths, OneStepFromTheSameCacheEqualsTheScalarReference) {
  std::map<std::string_view, double> sums;
  for (size_t step = 0; step < kSteps; ++step) {
    const std::span<const TokenId> next = after_context(step, 1);
    const Matrix<float> reference = run_with("scalar", cache_->clone_in_float32(), next);
    for (const std::string_view isa : instruction_sets()) {
      const double kl = mean_divergence(reference, run_with(isa, cache_->clone(), next));
      EXPECT_LT(kl, 5e-4) << isa << ", step " << step;
      sums[isa] += kl / kSteps;
    }
    ASSERT_TRUE(set_instruction_set("auto"));
    (void)run(*cache_, next, 1);
  }
  expect_below_a_ten_thousandth(sums);
}

TEST_F(FastPaths, AChunkAfterTheSameCacheEqualsTheScalarReference) {
  const std::span<const TokenId> next = after_context(0, kChunk);
  const Matrix<float> reference = run_with("scalar", cache_->clone_in_float32(), next);
  std::map<std::string_view, double> means;
  for (const std::string_view isa : instruction_sets()) {
    means[isa] = mean_divergence(reference, run_with(isa, cache_->clone(), next));
  }
  expect_below_a_ten_thousandth(means);
}

}  // namespace
}  // namespace mkv
