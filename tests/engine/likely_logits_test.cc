// What is drawn from likely logits is what is drawn from all of them.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "engine/sampler.h"
#include "model/golden.h"
#include "ops/ops.h"
#include "text/golden.h"

namespace mkv {
namespace {

struct Found {
  size_t exact = 0, tokens = 0;  // logits that are as they should be
  double log_sums = 0;           // differences of ln sum exp
  size_t draws = 0, same = 0;
};

// Hidden rows of tokens, one by one: their likely logits beside all.
Found compare(const Model& model, std::span<const TokenId> tokens, const SamplingOptions& options) {
  Workers workers(2);
  Scratch scratch;
  Matrix<float> hidden;
  KvCache cache = model.exact_cache(tokens.size());
  const SequenceSlice slice{tokens, &cache};
  EXPECT_TRUE(model.forward({&slice, 1}, hidden, scratch, workers));
  auto first = Sampler::create(options), second = Sampler::create(options);
  const float within = first->exact_within();
  const size_t vocab = model.config().vocab_size;
  std::vector<float> all(vocab), likely(vocab);
  Found found;
  for (size_t t = 0; t < tokens.size(); ++t) {
    model.logits(hidden.view().rows_from(t, 1), {all.data(), 1, vocab}, workers);
    model.likely_logits(hidden.row(t), within, likely, workers);
    const float top = all[index_of_largest(all)];
    for (size_t i = 0; i < vocab; ++i) {
      EXPECT_TRUE(likely[i] == all[i] || all[i] < top - within) << "token " << t;
      found.exact += likely[i] == all[i] ? 1 : 0;
    }
    found.tokens += vocab;
    found.log_sums += std::abs(static_cast<double>(log_sum_exp(likely) - log_sum_exp(all)));
    const auto expected = first->sample(all, tokens), drawn = second->sample(likely, tokens);
    EXPECT_TRUE(expected && drawn);
    ++found.draws;
    found.same += *expected == *drawn ? 1 : 0;
  }
  found.log_sums /= static_cast<double>(found.draws);
  return found;
}

TEST(LikelyLogits, OfSmallModels) {
  for (const char* name : {"llama", "llama3", "mistral", "qwen2", "qwen3"}) {
    const Model model = golden::load(golden::gguf_of(name));
    const golden::Logits golden = golden::read_logits(name);
    for (const SamplingOptions& options : {SamplingOptions::greedy(), SamplingOptions{}}) {
      const Found found = compare(model, golden.ids, options);
      EXPECT_EQ(found.same, found.draws) << name;
    }
  }
}

TEST(LikelyLogits, OfTheRealModel) {
  if (smollm2_path().empty()) GTEST_SKIP() << "no SmolLM2 in ~/.cache/mkv-models: get_model.sh";
  const Model model = golden::load(smollm2_path());
  const std::filesystem::path source = MKV_SOURCE_DIR;
  auto tokens = model.tokenizer().encode(read_text(source / "docs/method.md"), {});
  ASSERT_TRUE(tokens);
  tokens->resize(300);
  const Found greedy = compare(model, *tokens, SamplingOptions::greedy());
  EXPECT_EQ(greedy.same, greedy.draws);
  EXPECT_LT(greedy.exact, greedy.tokens / 8);
  const Found sampled = compare(model, *tokens, SamplingOptions{});
  EXPECT_GE(sampled.same, sampled.draws - 1);  // top-p's sum may tip one
  EXPECT_LT(sampled.exact, sampled.tokens / 3);
  EXPECT_LT(sampled.log_sums, 0.05);
  const Found unbiased = compare(model, *tokens, SamplingOptions::unbiased(1));
  EXPECT_EQ(unbiased.exact, unbiased.tokens);
  RecordProperty("greedy_exact_share", std::to_string(static_cast<double>(greedy.exact) /
                                                      static_cast<double>(greedy.tokens)));
  RecordProperty("sampled_exact_share", std::to_string(static_cast<double>(sampled.exact) /
                                                       static_cast<double>(sampled.tokens)));
  RecordProperty("sampled_log_sum_difference", std::to_string(sampled.log_sums));
}

}  // namespace
}  // namespace mkv
