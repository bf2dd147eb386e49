// Every instruction set decodes as the scalar reference with float32 attention does, from the same
// cache: the shipped nest at 2 bits, the real model. Over whole texts a rounding flips a code now
// and then, which is not what is compared here.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <sstream>

#include "model/golden.h"
#include "ops/instruction_set.h"
#include "text/golden.h"

namespace mkv {
namespace {

constexpr size_t kContext = 1200, kSteps = 6;

std::vector<double> probabilities(View<const float> logits) {
  std::vector<double> p(logits.row(0).begin(), logits.row(0).end());
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

// Puts the choice back, whatever the test does.
struct InstructionSetGuard {
  InstructionSetGuard() = default;
  InstructionSetGuard(const InstructionSetGuard&) = delete;
  InstructionSetGuard& operator=(const InstructionSetGuard&) = delete;
  ~InstructionSetGuard() { (void)set_instruction_set("auto"); }
};

TEST(FastPaths, OneStepFromTheSameCacheEqualsTheScalarReference) {
  if (smollm2_path().empty()) GTEST_SKIP() << "no SmolLM2 in ~/.cache/mkv-models: get_model.sh";
  const Model model = golden::load(smollm2_path());
  const std::filesystem::path source = MKV_SOURCE_DIR;
  const auto nest = Nest::load(source / "nests/SmolLM2-135M-Instruct");
  ASSERT_TRUE(nest) << nest.error().message;
  const auto rung = rung_for_budget(*nest, "2bits");
  ASSERT_TRUE(rung);
  const auto tokenizer = load_tokenizer(smollm2_path());
  const auto encoded = tokenizer->encode(read_text(source / "docs/method.md"), {});
  ASSERT_TRUE(encoded);
  const std::vector<TokenId>& tokens = *encoded;
  ASSERT_GE(tokens.size(), kContext + kSteps);

  const InstructionSetGuard guard;
  Workers workers(2);
  KvCache cache(*nest, nest->ranks_at(*rung), model.config().layer_types, kContext + kSteps,
                {.arithmetic = Arithmetic::fast});
  (void)golden::run(model, std::span(tokens).first(kContext), 400, cache, workers);
  std::map<std::string_view, double> sums;
  for (size_t step = 0; step < kSteps; ++step) {
    const std::span<const TokenId> next(&tokens[kContext + step], 1);
    const auto after = [&](std::string_view isa, KvCache copy) {
      EXPECT_TRUE(set_instruction_set(isa));
      return probabilities(golden::run(model, next, 1, copy, workers).view());
    };
    const std::vector<double> reference = after("scalar", cache.clone_in_float32());
    for (const std::string_view isa : instruction_sets()) {
      const double kl = divergence(reference, after(isa, cache.clone()));
      EXPECT_LT(kl, 5e-4) << isa << ", step " << step;
      sums[isa] += kl / kSteps;
    }
    ASSERT_TRUE(set_instruction_set("auto"));
    (void)golden::run(model, next, 1, cache, workers);
  }
  for (const auto& [isa, kl] : sums) {
    EXPECT_LT(kl, 1e-4) << isa;
    std::ostringstream text;
    text << kl;
    RecordProperty(std::string(isa), text.str());
  }
}

}  // namespace
}  // namespace mkv
