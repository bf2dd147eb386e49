#include "eval/long_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "eval/identity_nest.h"

namespace mkv {
namespace {

using ::testing::HasSubstr;

std::vector<std::vector<TokenId>> random_pieces(const Model& model) {
  return {random_tokens(300, model.config().vocab_size, 1),
          random_tokens(170, model.config().vocab_size, 2)};
}

LongOptions small_options() {
  LongOptions options;
  options.context = 300;
  options.bucket = 128;
  return options;
}

TEST(LongText, BucketsAddUpToTheWhole) {
  const Model model = tiny_model();
  Workers workers(2);
  const LongReport got = must(evaluate_long(model, CacheFactory::exact(model), random_pieces(model),
                                            small_options(), workers));
  ASSERT_EQ(got.buckets.size(), 3u);
  EXPECT_EQ(got.buckets[0].tokens, 127u + 127u);
  EXPECT_EQ(got.buckets[1].tokens, 128u + 42u);
  EXPECT_EQ(got.buckets[2].tokens, 44u);
  EXPECT_EQ(got.buckets[2].end, 300u);
  EXPECT_EQ(got.all.tokens, 299u + 169u);
  double sum = 0;
  for (const LongBucket& bucket : got.buckets) {
    sum += bucket.nll.mean * static_cast<double>(bucket.tokens);
  }
  EXPECT_NEAR(std::log(got.all.perplexity), sum / 468.0, 1e-9);
  EXPECT_EQ(got.pieces, 2u);
}

TEST(LongText, DoesNotDependOnTheChunk) {
  const Model model = tiny_model();
  Workers workers(1);
  const Nest nest = identity_nest(model, 64);
  const CacheFactory caches = must(CacheFactory::coded(model, nest, cut_ranks(nest, 0.25)));
  LongOptions options = small_options();
  const LongReport one = must(evaluate_long(model, caches, random_pieces(model), options, workers));
  options.eval.chunk = 37;
  options.eval.logit_rows = 5;
  const LongReport two = must(evaluate_long(model, caches, random_pieces(model), options, workers));
  for (size_t b = 0; b < 3; ++b) {
    EXPECT_NEAR(one.buckets[b].nll.mean, two.buckets[b].nll.mean, 1e-3);
  }
}

// The first block and the recent window are exact, so a cut shows late and not early.
TEST(LongText, ACutShowsWhereTokensAreCoded) {
  const Model model = tiny_model();
  Workers workers(1);
  const Nest nest = identity_nest(model, 64);
  LongOptions options = small_options();
  options.bucket = 64;
  const auto pieces = random_pieces(model);
  const LongReport exact =
      must(evaluate_long(model, CacheFactory::exact(model), pieces, options, workers));
  const CacheFactory caches = must(CacheFactory::coded(model, nest, cut_ranks(nest, 0)));
  const LongReport cut = must(evaluate_long(model, caches, pieces, options, workers));
  EXPECT_NEAR(exact.buckets[0].nll.mean, cut.buckets[0].nll.mean, 1e-5);
  EXPECT_GT(std::abs(exact.buckets[3].nll.mean - cut.buckets[3].nll.mean), 1e-3);
}

TEST(LongText, CutsEveryDocumentAlone) {
  const Model model = tiny_model();
  LongOptions options;
  options.context = 10;
  std::string text;
  for (int i = 0; i < 40; ++i) text += "Once upon a time. ";
  const auto pieces =
      must(cut_documents(model, std::vector<std::string>{text, "Once upon"}, options));
  const SpecialTokens& special = model.tokenizer().special();
  for (const auto& piece : pieces) {
    EXPECT_LE(piece.size(), 10u);
    if (special.add_bos) {
      EXPECT_EQ(piece.front(), *special.bos);
    }
  }
  EXPECT_LT(pieces.back().size(), 10u);
  options.limit = 1;
  EXPECT_EQ(must(cut_documents(model, std::vector<std::string>{text, text}, options)).size(), 2u);
}

TEST(LongText, RefusesWhatDoesNotFit) {
  const Model model = tiny_model();
  LongOptions options;
  options.context = 100000;
  const auto error = cut_documents(model, std::vector<std::string>{"a b c"}, options);
  ASSERT_FALSE(error);
  EXPECT_THAT(error.error().message, HasSubstr("100000"));
  options.context = 100;
  EXPECT_FALSE(cut_documents(model, std::vector<std::string>{""}, options));
  options.bucket = 0;
  EXPECT_FALSE(cut_documents(model, std::vector<std::string>{"a b c"}, options));
}

}  // namespace
}  // namespace mkv
