#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "eval/identity_nest.h"
#include "eval/kl.h"
#include "eval/perplexity.h"

namespace mkv {
namespace {

using ::testing::HasSubstr;

Windows tiny_windows(const Model& model, size_t context, size_t count) {
  Windows windows{.context = context, .tokens = {}};
  windows.tokens = random_tokens(context * count, model.config().vocab_size, 5);
  return windows;
}

// -ln p of every token of a window but the first, token by token.
std::vector<double> reference_nll(const Model& model, std::span<const TokenId> window) {
  Workers workers(1);
  Scratch scratch;
  KvCache cache = model.exact_cache(window.size());
  Matrix<float> hidden, logits(1, model.config().vocab_size);
  std::vector<double> out;
  for (size_t t = 0; t + 1 < window.size(); ++t) {
    const SequenceSlice slice{window.subspan(t, 1), &cache};
    EXPECT_TRUE(model.forward({&slice, 1}, hidden, scratch, workers));
    model.logits(hidden.view(), logits.view(), workers);
    long double sum = 0;
    for (const float x : logits.row(0)) sum += std::exp(static_cast<long double>(x));
    out.push_back(static_cast<double>(std::log(sum)) -
                  logits.at(0, static_cast<size_t>(window[t + 1])));
  }
  return out;
}

TEST(Perplexity, EqualsTheDirectComputation) {
  const Model model = tiny_model();
  const Windows windows = tiny_windows(model, 32, 3);
  Workers workers(2);
  const PerplexityReport got =
      must(evaluate_perplexity(model, CacheFactory::exact(model), windows,
                               {.chunk = 10, .logit_rows = 4, .progress = {}}, workers));
  double sum = 0.0;
  for (size_t w = 0; w < windows.count(); ++w) {
    const std::vector<double> nll = reference_nll(model, windows.window(w));
    for (size_t t = 16; t < 31; ++t) sum += nll[t];
  }
  EXPECT_EQ(got.tokens, 45u);
  EXPECT_EQ(got.windows, 3u);
  EXPECT_NEAR(std::log(got.perplexity), sum / 45.0, 2e-4);  // the cache is f16
  EXPECT_GT(got.perplexity_stderr, 0.0);
}

TEST(Perplexity, ReportsTheCachesBytes) {
  const Model model = tiny_model();
  const Windows windows = tiny_windows(model, 256, 1);
  Workers workers(1);
  const PerplexityReport exact =
      must(evaluate_perplexity(model, CacheFactory::exact(model), windows, {}, workers));
  const double values = static_cast<double>(model.config().kv_shape().values_per_token());
  EXPECT_NEAR(exact.kv.bits_per_value, 16.0, 0.5);
  EXPECT_NEAR(exact.kv.kv_bytes_per_token, 2.0 * values, 0.05 * values);
  EXPECT_EQ(exact.kv.coded_bits_per_value, 16.0);

  const Nest nest = identity_nest(model, 0);
  Ranks half = nest.full_ranks();
  for (uint16_t& rank : half) rank = static_cast<uint16_t>(rank / 2);
  const CacheFactory caches = must(CacheFactory::coded(model, nest, half));
  const PerplexityReport coded = must(evaluate_perplexity(model, caches, windows, {}, workers));
  EXPECT_DOUBLE_EQ(coded.kv.coded_bits_per_value, 8.0);
  EXPECT_GT(coded.kv.bits_per_value, 8.0);  // sinks, block padding
  EXPECT_LT(coded.kv.bits_per_value, 9.0);
}

TEST(Kl, OfTheExactCacheIsZero) {
  const Model model = tiny_model();
  Workers workers(2);
  const BaseHidden base = must(BaseHidden::compute(model, tiny_windows(model, 64, 2), {}, workers));
  const KlReport got = must(evaluate_kl(model, base, CacheFactory::exact(model), {}, workers));
  EXPECT_EQ(got.kl, 0.0);
  EXPECT_EQ(got.kl_stderr, 0.0);
  EXPECT_EQ(got.log_ratio_stderr, 0.0);
  EXPECT_EQ(got.top1_agreement, 1.0);
  EXPECT_EQ(got.perplexity, got.perplexity_base);
  EXPECT_EQ(got.tokens, 62u);
}

TEST(Kl, OfAFullRankNestIsRoundingAndOfACutIsNot) {
  const Model model = tiny_model();
  Workers workers(2);
  const BaseHidden base =
      must(BaseHidden::compute(model, tiny_windows(model, 128, 2), {}, workers));
  const Nest nest = identity_nest(model, 0);
  const CacheFactory full = must(CacheFactory::coded(model, nest, nest.full_ranks()));
  const KlReport rounding = must(evaluate_kl(model, base, full, {}, workers));
  EXPECT_LT(rounding.kl, 1e-5);
  Ranks quarter = nest.full_ranks();
  for (uint16_t& rank : quarter) rank = static_cast<uint16_t>(rank / 4);
  const CacheFactory cut = must(CacheFactory::coded(model, nest, quarter));
  const KlReport loss = must(evaluate_kl(model, base, cut, {}, workers));
  EXPECT_GT(loss.kl, 10.0 * rounding.kl);
  EXPECT_LT(loss.top1_agreement, 1.0);
  EXPECT_GT(loss.log_ratio_stderr, 10.0 * rounding.log_ratio_stderr);
  EXPECT_GT(rounding.log_ratio_stderr, 0.0);
}

TEST(Kl, TheExactCachesOwnReportNeedsNoSecondPass) {
  const Model model = tiny_model();
  Workers workers(2);
  const BaseHidden base = must(BaseHidden::compute(model, tiny_windows(model, 64, 2), {}, workers));
  const KlReport second = must(evaluate_kl(model, base, CacheFactory::exact(model), {}, workers));
  const KlReport got = report_exact(model, base, {.logit_rows = 5, .progress = {}}, workers);
  EXPECT_EQ(got.kl, 0);
  EXPECT_EQ(got.top1_agreement, 1);
  EXPECT_EQ(got.tokens, second.tokens);
  EXPECT_EQ(got.windows, 2u);
  // Logits of five rows at a time are sums of floats in another order.
  EXPECT_NEAR(got.perplexity, second.perplexity, 1e-6 * second.perplexity);
  EXPECT_EQ(got.perplexity, got.perplexity_base);
  EXPECT_EQ(got.kv.kv_bytes_per_token, second.kv.kv_bytes_per_token);
  EXPECT_EQ(got.kv.coded_bits_per_value, second.kv.coded_bits_per_value);
}

TEST(Kl, OfATextsEndIsThatOfItsWindow) {
  const Model model = tiny_model();
  const Windows windows = tiny_windows(model, 64, 1);
  const Nest nest = identity_nest(model, 0);
  Workers workers(2);
  const CacheFactory caches = must(CacheFactory::coded(model, nest, cut_ranks(nest, 0.5)));
  const BaseHidden base = must(BaseHidden::compute(model, windows, {}, workers));
  const KlReport window = must(evaluate_kl(model, base, caches, {}, workers));
  const auto of_text = [&](size_t first) {
    return text_kl(model, caches, windows.tokens, first, {}, workers);
  };
  EXPECT_NEAR(must(of_text(windows.first_scored() + 1)), window.kl, 1e-6 * window.kl);
  EXPECT_TRUE(of_text(63));
  EXPECT_FALSE(of_text(0));
  EXPECT_FALSE(of_text(64));
}

TEST(Kl, IsTheSameForAnyNumberOfWorkersAndRows) {
  const Model model = tiny_model();
  const Nest nest = identity_nest(model, 64);
  Ranks ranks = nest.full_ranks();
  for (uint16_t& rank : ranks) rank = static_cast<uint16_t>(rank / 2);
  const CacheFactory caches = must(CacheFactory::coded(model, nest, ranks));
  std::vector<KlReport> reports;
  for (const size_t threads : {1u, 2u, 3u}) {
    Workers workers(threads);
    const BaseHidden base =
        must(BaseHidden::compute(model, tiny_windows(model, 200, 2), {}, workers));
    reports.push_back(must(evaluate_kl(model, base, caches, {}, workers)));
  }
  EXPECT_GT(reports[0].kl, 0.0);
  for (const KlReport& other : reports) {
    EXPECT_EQ(other.kl, reports[0].kl);
    EXPECT_EQ(other.perplexity, reports[0].perplexity);
  }
}

// The honest view: how many tokens go through the model at once changes nothing but rounding.
TEST(Kl, DoesNotDependOnTheChunk) {
  const Model model = tiny_model();
  Workers workers(2);
  const Nest nest = identity_nest(model, 64);
  Ranks ranks = nest.full_ranks();
  for (uint16_t& rank : ranks) rank = static_cast<uint16_t>(rank / 4);
  const CacheFactory caches = must(CacheFactory::coded(model, nest, ranks));
  const BaseHidden base =
      must(BaseHidden::compute(model, tiny_windows(model, 300, 1), {}, workers));
  std::vector<double> kl;
  for (const size_t chunk : {512u, 100u, 7u, 1u}) {
    kl.push_back(
        must(evaluate_kl(model, base, caches, {.chunk = chunk, .progress = {}}, workers)).kl);
  }
  for (const double other : kl) EXPECT_NEAR(other, kl[0], 1e-3 * kl[0]);
}

TEST(Evaluation, RefusesWhatCannotBeEvaluated) {
  const Model model = tiny_model();
  Workers workers(1);
  const auto too_long = evaluate_perplexity(model, CacheFactory::exact(model),
                                            tiny_windows(model, 1024, 1), {}, workers);
  ASSERT_FALSE(too_long);
  EXPECT_THAT(too_long.error().message, HasSubstr("1024"));
  EXPECT_THAT(too_long.error().message, HasSubstr("512"));
  EXPECT_FALSE(evaluate_perplexity(model, CacheFactory::exact(model), {}, {}, workers));

  NestConfig config;
  config.shape = {7, 2, 16};
  const Nest other = must(Nest::create(config));
  const auto mismatch = CacheFactory::coded(model, other, other.full_ranks());
  ASSERT_FALSE(mismatch);
  EXPECT_THAT(mismatch.error().message, HasSubstr("7 layers"));

  const Nest nest = identity_nest(model, 0);
  EXPECT_FALSE(CacheFactory::coded(model, nest, {1, 2, 3}));
  Ranks high = nest.full_ranks();
  ++high[3];
  EXPECT_FALSE(CacheFactory::coded(model, nest, high));
  Windows foreign = tiny_windows(model, 32, 1);
  foreign.tokens[5] = 100000;
  EXPECT_FALSE(BaseHidden::compute(model, foreign, {}, workers));
}

// The peers' caches: more error with fewer bits, and the bytes that they would store.
TEST(Evaluation, RoundingCachesReportThePeersBytes) {
  const Model model = tiny_model();
  Workers workers(1);
  const BaseHidden base =
      must(BaseHidden::compute(model, tiny_windows(model, 128, 2), {}, workers));
  const auto kl = [&](Rounding rounding) {
    return must(
        evaluate_kl(model, base, must(CacheFactory::rounded(model, rounding)), {}, workers));
  };
  const KlReport eight = kl(Rounding::q8_0), four = kl(Rounding::q4_0);
  EXPECT_GT(eight.kl, 0.0);
  EXPECT_GT(four.kl, 10.0 * eight.kl);
  EXPECT_EQ(eight.kv.bits_per_value, 8.5);
  EXPECT_EQ(four.kv.coded_bits_per_value, 4.5);
  EXPECT_EQ(four.kv.kv_bytes_per_token,
            static_cast<double>(model.config().kv_shape().values_per_token()) * 4.5 / 8.0);
}

}  // namespace
}  // namespace mkv
