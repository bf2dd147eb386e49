// Nests of code slabs from end to end on a tiny model.
#include "fit/fit_codes.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>

#include "eval/kl.h"
#include "eval/tiny_model.h"
#include "fit/code_ladder.h"
#include "fit/codebooks.h"
#include "fit/correct_gains.h"
#include "fit/sample.h"
#include "store/temp_dir.h"

namespace mkv {
namespace {

std::vector<std::vector<TokenId>> windows_of(const Model& model) {
  std::vector<std::vector<TokenId>> windows;
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    windows.push_back(random_tokens(200, model.config().vocab_size, seed));
  }
  return windows;
}

Nest fit(const Model& model, size_t threads, size_t recent = 64) {
  CodeFitOptions options;
  options.recent = recent;
  options.most_bits = 4.0;
  options.iterations = 4;
  Workers workers(threads);
  return must(fit_code_nest(model, windows_of(model), options, {}, workers));
}

TEST(FitCodes, IsTheSameForAnyNumberOfWorkers) {
  const Model model = tiny_model();
  const Nest one = fit(model, 1), two = fit(model, 2);
  EXPECT_EQ(one.ladder().cuts, two.ladder().cuts);
  for (size_t space = 0; space < one.spaces(); ++space) {
    const Basis& a = one.basis(one.unflat(space));
    const Basis& b = two.basis(two.unflat(space));
    EXPECT_TRUE(std::ranges::equal(a.encode.span(), b.encode.span()));
    ASSERT_EQ(a.slabs.size(), b.slabs.size());
    for (size_t s = 0; s < a.slabs.size(); ++s) {
      EXPECT_EQ(std::memcmp(&a.slabs[s].codebook, &b.slabs[s].codebook, sizeof(Codebook)), 0);
    }
  }
}

// The same program, text and seed make the same files, whoever runs it.
using SavedNest = testing::TempDir;
TEST_F(SavedNest, IsTheSameByteForByte) {
  const Model model = tiny_model();
  const size_t threads[] = {1, 1, 2, 3};
  std::vector<std::string> names;
  for (size_t i = 0; i < std::size(threads); ++i) {
    const std::filesystem::path folder = dir_ / std::to_string(i);
    const Result<void> saved = fit(model, threads[i]).save(folder);
    ASSERT_TRUE(saved) << saved.error().message;
    for (const auto& file : std::filesystem::directory_iterator(folder)) {
      const std::string name = file.path().filename().string();
      if (i == 0) names.push_back(name);
      EXPECT_EQ(read(file.path()), read(dir_ / "0" / name)) << name << ", " << threads[i];
    }
    EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder), {}), 3) << "files";
  }
  EXPECT_EQ(names.size(), 3u);
}

// Two draws are the mean of what each alone would say, of the same keys and values.
TEST(KvSample, DrawsOfLabelsAreAveraged) {
  const Model model = tiny_model();
  const auto windows = windows_of(model);
  Workers workers(2);
  const auto sample = [&](size_t draws, uint64_t seed) {
    SampleOptions options;
    options.view = {4, 64};
    options.draws = draws;
    options.seed = seed;
    return must(gather_sample(model, windows, options, {}, workers));
  };
  const KvSample one = sample(1, 1), other = sample(1, 1 + windows.size()), both = sample(2, 1);
  ASSERT_EQ(both.tokens(), one.tokens());
  EXPECT_TRUE(std::ranges::equal(both.values[0][0].span(), one.values[0][0].span()));
  const size_t space = 0;
  double largest = 0.0;
  for (size_t i = 0; i < both.gradient_moments[space].span().size(); ++i) {
    const float a = one.gradient_moments[space].span()[i];
    const float b = other.gradient_moments[space].span()[i];
    EXPECT_NEAR(both.gradient_moments[space].span()[i], 0.5f * (a + b),
                1e-6f + 1e-4f * std::abs(a));
    largest = std::max<double>(largest, std::abs(a - b));
  }
  EXPECT_GT(largest, 0.0);
  for (size_t t = 0; t < both.tokens(); ++t) {
    const float sum = one.gradient_squares[space][t] + other.gradient_squares[space][t];
    EXPECT_NEAR(both.gradient_squares[space][t], sum, 1e-5f * sum);
  }
}

// However much text there is, keys and values are kept of some windows and gradients are of all.
TEST(KvSample, DoesNotGrowWithTheText) {
  const Model model = tiny_model();
  const auto windows = windows_of(model);
  ASSERT_GE(windows.size(), 3u);
  const size_t window = windows[0].size();
  Workers workers(2);
  const auto sample = [&](size_t most) {
    SampleOptions options;
    options.view = {4, 64};
    options.most = most;
    return must(gather_sample(model, windows, options, {}, workers));
  };
  const KvSample all = sample(windows.size() * window), some = sample(2 * window + 1);
  EXPECT_EQ(all.tokens(), windows.size() * (window - 4));
  EXPECT_EQ(some.tokens(), 2 * (window - 4));
  for (size_t space = 0; space < all.gradient_moments.size(); ++space) {
    EXPECT_TRUE(std::ranges::equal(all.gradient_moments[space].span(),
                                   some.gradient_moments[space].span()));
    EXPECT_EQ(some.gradient_squares[space].size(), some.tokens());
  }
  // The last window is among them, and its tokens' gradients stand where they did.
  EXPECT_EQ(some.positions.back(), all.positions.back());
  EXPECT_EQ(some.gradient_squares[0].back(), all.gradient_squares[0].back());
  EXPECT_EQ(some.values[0][0].span().back(), all.values[0][0].span().back());
}

TEST(KvSample, LaterSinksWeighNothing) {
  const Model model = tiny_model();
  const auto windows = windows_of(model);
  Workers workers(2);
  SampleOptions options;
  options.view = {4, 64};
  KvSample sample = must(gather_sample(model, windows, options, {}, workers));
  EXPECT_TRUE(sample.later_sinks[0].empty());  // a model of random weights has none
  sample.later_sinks[0] = {3, 70};
  const std::vector<float> weights = sample_weights(sample, 0, 0, 0.15, sample.tokens());
  for (size_t t = 0; t < weights.size(); ++t) EXPECT_EQ(weights[t] == 0.0f, t == 3 || t == 70) << t;
  // Nor are they part of a plain mean: it is that of the others.
  const auto value_mean = [&] {
    Matrix<float> columns;
    std::vector<float> mean(model.config().head_dim);
    centred_columns(sample, model, {0, 0, Side::value}, KeyMean::plain, columns, mean);
    return mean;
  };
  const std::vector<float> without = value_mean();
  sample.later_sinks[0].clear();
  EXPECT_NE(value_mean(), without);
}

TEST(CorrectGains, OverstatedGainsAreTakenDown) {
  const Model model = tiny_model();
  const Nest nest = fit(model, 2);
  std::vector<std::vector<double>> gains(nest.spaces());
  for (size_t space = 0; space < gains.size(); ++space) {
    gains[space].assign(nest.slabs_in(space), space == 1 ? 100.0 : 1.0);
  }
  Ranks ranks = nest.full_ranks();
  for (uint16_t& rank : ranks) rank = static_cast<uint16_t>(rank / 2);
  Workers workers(2);
  const auto windows = windows_of(model);
  const std::vector<double> factors =
      must(measured_gain_factors(model, nest, ranks, gains, windows, {}, workers));
  ASSERT_EQ(factors.size(), nest.spaces());
  for (size_t space = 0; space < factors.size(); ++space) {
    EXPECT_GE(factors[space], 0.25);
    EXPECT_LE(factors[space], 4.0);
    EXPECT_TRUE(space == 1 || factors[1] < factors[space]) << space;
  }
}

TEST(FitCodes, DivergenceFallsAlongTheLadder) {
  for (const std::string name : {"llama", "qwen3", "gemma3"}) {
    const Model model = tiny_model(name);
    const Nest nest = fit(model, 2, name == "gemma3" ? 0 : 64);  // its windows are of 16
    EXPECT_LT(nest.orthogonality_error(), 1e-3);
    Workers workers(2);
    std::vector<TokenId> tokens = random_tokens(200, model.config().vocab_size, 99);
    const Windows windows = must(cut_windows(model.tokenizer().special(), tokens, {200, 0}));
    const BaseHidden base = must(BaseHidden::compute(model, windows, {}, workers));
    double last = 1e9;
    for (const char* budget : {"0.5bits", "1.5bits", "3bits"}) {
      const Ranks ranks = nest.ranks_at(must(rung_for_budget(nest, budget)));
      const CacheFactory caches = must(CacheFactory::coded(model, nest, ranks));
      const KlReport report = must(evaluate_kl(model, base, caches, {}, workers));
      EXPECT_LT(report.kl, last) << name << " at " << budget;
      last = report.kl;
    }
  }
}

TEST(Codebooks, EachSlabLowersTheErrorByItsGain) {
  Rng rng(5);
  Matrix<float> latents(16, 640);
  for (size_t c = 0; c < latents.rows(); ++c) {
    for (float& x : latents.row(c)) {
      x = static_cast<float>(rng.normal() * std::pow(0.8, static_cast<double>(c)));
    }
  }
  const std::vector<float> weights(640, 1.0f);
  CodebookOptions options;
  options.max_slabs = 12;
  const SpaceCode code = fit_codebooks(latents, weights, options);
  ASSERT_EQ(code.slabs.size(), 12u);
  double left = 0.0, gained = 0.0;
  for (const float x : latents.span()) left += static_cast<double>(x * x) / 640.0;
  for (const double gain : code.gains) gained += gain;
  EXPECT_NEAR(code.energy - gained, left, 1e-3 * code.energy);
  EXPECT_EQ(code.slabs[0].first_column, 0u);
  for (const CodeSlab& slab : code.slabs) {
    for (const float scale : slab.scale) {
      EXPECT_GE(scale, 1.0f);
      EXPECT_LE(scale, 4.0f);
    }
  }
}

TEST(CodeLadder, GivesUpTheLeastGainFirstAndKeepsPrefixes) {
  const std::vector<std::vector<double>> gains{{5.0, 1.0, 2.0}, {4.0, 3.0}};
  // Space 0's last slab counts as 1: it is worth nothing without the one before it.
  EXPECT_EQ(ladder_from_gains({gains, std::vector{1.0, 1.0}}).cuts,
            (std::vector<uint32_t>{0, 0, 1, 1, 0}));
  // At a fifth of the cost it goes last.
  EXPECT_EQ(ladder_from_gains({gains, std::vector{0.2, 1.0}}).cuts,
            (std::vector<uint32_t>{1, 1, 0, 0, 0}));
}

// Layers that hold few tokens of a long context are given up later, the longer it is.
TEST(FitCodes, SlidingLayersAreCheapInLongContexts) {
  const Model model = tiny_model("gemma3");
  CodeFitOptions options;
  options.sinks = 0;
  options.recent = 0;
  options.most_bits = 8.0;  // so that nothing is trimmed
  options.most_per_column = 4;
  options.iterations = 2;
  Workers workers(2);
  const auto cuts_before_whole_layer = [&](size_t context) {
    options.context = context;
    const Nest nest = must(fit_code_nest(model, windows_of(model), options, {}, workers));
    EXPECT_EQ(model.config().layer_types.of(5).window, kWholeContext);
    const std::vector<uint32_t>& cuts = nest.ladder().cuts;
    size_t sum = 0;  // over the cuts of the layer that sees everything
    for (size_t i = 0; i < cuts.size(); ++i) sum += nest.unflat(cuts[i]).layer == 5 ? i : 0;
    return sum;
  };
  EXPECT_LT(cuts_before_whole_layer(512), cuts_before_whole_layer(200));
}

}  // namespace
}  // namespace mkv
