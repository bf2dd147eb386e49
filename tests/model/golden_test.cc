// Every architecture from both formats against the logits that transformers computes in float32.
#include "model/golden.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "ops/instruction_set.h"

namespace mkv {
namespace {

struct Case {
  std::string name;
  bool gguf = false;
  friend std::ostream& operator<<(std::ostream& out, const Case& c) {
    return out << c.name << (c.gguf ? "_gguf" : "_hf");
  }
};

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  for (const std::string& name : golden::kNames) {
    cases.push_back({name, false});
    cases.push_back({name, true});
  }
  return cases;
}

class GoldenTest : public ::testing::TestWithParam<Case> {
 protected:
  GoldenTest()
      : model_(golden::load(GetParam().gguf ? golden::gguf_of(GetParam().name)
                                            : golden::folder_of(GetParam().name))),
        golden_(golden::read_logits(GetParam().name)) {}

  Model model_;
  golden::Logits golden_;
};

// Causal attention in float64 over unrounded keys and values: what transformers computes.
void attend_exactly(const LayerObservation& o, const ModelConfig& config, Matrix<float>& out) {
  const size_t head_dim = config.head_dim;
  const float scale = config.attention_scale();
  const LayerType& type = config.layer_types.of(o.layer);
  const size_t heads = o.queries.cols / head_dim, repeats = o.queries.cols / o.keys.cols;
  for (size_t h = 0; h < heads; ++h) {
    const size_t from = h / repeats * head_dim;
    for (size_t t = 0; t < o.queries.rows; ++t) {
      std::vector<double> sums(head_dim);
      double total = 0;
      for (size_t j = type.first_seen(t); j <= t; ++j) {
        double score = 0;
        for (size_t c = 0; c < head_dim; ++c) {
          score += static_cast<double>(o.queries.at(t, h * head_dim + c)) *
                   static_cast<double>(o.keys.at(j, from + c));
        }
        const double weight = std::exp(score * static_cast<double>(scale));
        total += weight;
        for (size_t c = 0; c < head_dim; ++c) {
          sums[c] += weight * static_cast<double>(o.values.at(j, from + c));
        }
      }
      for (size_t c = 0; c < head_dim; ++c) {
        out.at(t, h * head_dim + c) = static_cast<float>(sums[c] / total);
      }
    }
  }
}

// All but the cache. The observer comes between attention and W_O, so that it can replace what the
// 16-bit cache gave, in the scratch that the test owns. Quantised weights (of one of the files)
// take activations rounded to 16 bits, but for the scalar set, where all products are of floats.
TEST_P(GoldenTest, LogitsWithExactAttention) {
  for (const std::string_view set : instruction_sets()) {
    ASSERT_TRUE(set_instruction_set(set));
    Workers workers(2);
    KvCache cache = model_.exact_cache(golden_.ids.size());
    Scratch scratch;
    Matrix<float> hidden, logits(golden_.ids.size(), model_.config().vocab_size);
    const SequenceSlice slice{golden_.ids, &cache};
    ASSERT_TRUE(model_.forward({&slice, 1}, hidden, scratch, workers, [&](const auto& observation) {
      attend_exactly(observation, model_.config(), scratch.attended);
    }));
    model_.logits(hidden.view(), logits.view(), workers);
    double worst = 0;
    for (size_t i = 0; i < golden_.positions.size(); ++i) {
      worst = std::max(worst,
                       golden::relative_error(logits.row(golden_.positions[i]), golden_.logits[i]));
    }
    // Largest difference by root mean square; measured: below 1e-5 for floats, 4e-4 for integers.
    const bool integers = GetParam().gguf && GetParam().name == "qwen2" && set != "scalar";
    EXPECT_LT(worst, integers ? 1e-3 : 1e-4) << set;
  }
  ASSERT_TRUE(set_instruction_set("auto"));
}

// The cache at full precision: what is left is the order of sums.
TEST_P(GoldenTest, LogitsThroughTheFloat32Cache) {
  for (size_t chunk : {golden_.ids.size(), size_t{1}, size_t{7}}) {
    const Matrix<float> logits = golden::run(model_, golden_.ids, chunk, 2, {.exact = DType::f32});
    double worst = 0;
    for (size_t i = 0; i < golden_.positions.size(); ++i) {
      worst = std::max(worst,
                       golden::relative_error(logits.row(golden_.positions[i]), golden_.logits[i]));
    }
    EXPECT_LT(worst, 1e-3) << chunk;  // largest difference by root mean square
  }
}

// Keys and values rounded to 16 bits (relative 2^-12) move logits by a thousandth of their size;
// the same rounding in float64 attention gives the same differences to three digits.
TEST_P(GoldenTest, LogitsThroughTheCache) {
  for (size_t chunk : {golden_.ids.size(), size_t{1}, size_t{7}}) {
    const Matrix<float> logits = golden::run(model_, golden_.ids, chunk);
    double square = 0, difference = 0;
    for (size_t i = 0; i < golden_.positions.size(); ++i) {
      for (size_t c = 0; c < logits.cols(); ++c) {
        const double expected = static_cast<double>(golden_.logits[i][c]);
        const double d = static_cast<double>(logits.at(golden_.positions[i], c)) - expected;
        square += expected * expected;
        difference += d * d;
      }
    }
    // Measured with two layers: below 1.2e-3; the layers' differences add up as noise does.
    const double layers = static_cast<double>(model_.config().num_layers);
    EXPECT_LT(std::sqrt(difference / square), 2e-3 * std::sqrt(layers / 2)) << chunk;
    double nll = 0;
    for (size_t i = 0; i < golden_.ids.size(); ++i) {
      const auto row = logits.row(i);
      EXPECT_EQ(std::ranges::max_element(row) - row.begin(),
                static_cast<std::ptrdiff_t>(golden_.argmax[i]));
      if (i + 1 == golden_.ids.size()) break;
      double sum = 0;
      for (float logit : row) sum += std::exp(static_cast<double>(logit));
      nll += std::log(sum) - static_cast<double>(row[static_cast<size_t>(golden_.ids[i + 1])]);
    }
    EXPECT_NEAR(nll / static_cast<double>(golden_.ids.size() - 1), golden_.mean_nll, 1e-3);
  }
}

TEST_P(GoldenTest, DecodeOneByOneEqualsPrefill) {
  // In float32: a sum in another order may round a key to the other 16-bit neighbour. Q8_0 weights
  // have activations of 16 bits when decoding, and more when many tokens are multiplied at once.
  const KvOptions options{.exact = DType::f32};
  const Matrix<float> prefill = golden::run(model_, golden_.ids, golden_.ids.size(), 2, options);
  for (size_t chunk : {size_t{1}, size_t{7}}) {
    const Matrix<float> pieces = golden::run(model_, golden_.ids, chunk, 2, options);
    EXPECT_LT(golden::relative_error(pieces.span(), prefill.span()), 1e-3) << chunk;
  }
}

std::vector<TokenId> repeated(std::span<const TokenId> ids, size_t count) {
  std::vector<TokenId> out;
  for (size_t i = 0; i < count; ++i) out.push_back(ids[i % ids.size()]);
  return out;
}

// Linear layers take long chunks piece by piece.
TEST_P(GoldenTest, ALongChunkIsItsParts) {
  const std::vector<TokenId> ids = repeated(golden_.ids, 300);
  const KvOptions options{.exact = DType::f32};
  const Matrix<float> whole = golden::run(model_, ids, 300, 2, options);
  const Matrix<float> parts = golden::run(model_, ids, 90, 2, options);
  EXPECT_LT(golden::relative_error(whole.span(), parts.span()), 1e-3);
}

TEST_P(GoldenTest, TheLastTokenAloneIsTheLastOfAll) {
  const KvOptions options{.exact = DType::f32};
  const std::span<const TokenId> ids(golden_.ids);
  const Matrix<float> expected = golden::run(model_, ids, ids.size(), 2, options);
  Workers workers(2);
  Scratch scratch;
  Matrix<float> hidden;
  std::vector<KvCache> caches;
  for (int i = 0; i < 4; ++i) caches.push_back(model_.exact_cache(ids.size(), options));
  const SequenceSlice slices[] = {{ids.first(9), &caches[0], true},
                                  {ids.first(3), &caches[1]},
                                  {ids.first(0), &caches[2], true},
                                  {ids.first(1), &caches[3], true}};
  ASSERT_TRUE(model_.forward(slices, hidden, scratch, workers));
  ASSERT_EQ(hidden.rows(), 5u);
  Matrix<float> logits(5, model_.config().vocab_size);
  model_.logits(hidden.view(), logits.view(), workers);
  const size_t tokens[] = {8, 0, 1, 2, 0};
  for (size_t i = 0; i < 5; ++i) {
    EXPECT_LT(golden::relative_error(logits.row(i), expected.row(tokens[i])), 1e-3) << i;
  }
  const SequenceSlice next{ids.subspan(9), &caches[0], true};
  ASSERT_TRUE(model_.forward({&next, 1}, hidden, scratch, workers));
  ASSERT_EQ(hidden.rows(), 1u);
  model_.logits(hidden.view(), logits.view().rows_from(0, 1), workers);
  EXPECT_LT(golden::relative_error(logits.row(0), expected.row(ids.size() - 1)), 1e-3);
}

// One piece of 190 tokens that ask, among more that go in two.
TEST_P(GoldenTest, PiecesOfThoseThatAskMayBeLarger) {
  const KvOptions options{.exact = DType::f32};
  const std::vector<TokenId> ids = repeated(golden_.ids, 189);
  const Matrix<float> expected = golden::run(model_, ids, ids.size(), 2, options);
  KvCache first = model_.exact_cache(200, options), second = model_.exact_cache(200, options);
  const std::span<const TokenId> some(ids);
  const SequenceSlice slices[] = {{some.first(4), &first, true}, {some, &second}};
  Workers workers(2);
  Scratch scratch;
  Matrix<float> hidden, logits(190, model_.config().vocab_size);
  ASSERT_TRUE(model_.forward(slices, hidden, scratch, workers));
  ASSERT_EQ(hidden.rows(), 190u);
  model_.logits(hidden.view(), logits.view(), workers);
  EXPECT_LT(golden::relative_error(logits.row(0), expected.row(3)), 1e-3);
  EXPECT_LT(golden::relative_error(logits.span().subspan(logits.cols()), expected.span()), 1e-3);
}

TEST_P(GoldenTest, SameBitsForAnyNumberOfWorkers) {
  for (size_t chunk : {size_t{1}, golden_.ids.size()}) {
    const Matrix<float> one = golden::run(model_, golden_.ids, chunk, 1);
    const Matrix<float> two = golden::run(model_, golden_.ids, chunk, 2);
    const Matrix<float> three = golden::run(model_, golden_.ids, chunk, 3);
    EXPECT_TRUE(std::ranges::equal(one.span(), two.span()));
    EXPECT_TRUE(std::ranges::equal(one.span(), three.span()));
  }
}

INSTANTIATE_TEST_SUITE_P(Models, GoldenTest, ::testing::ValuesIn(all_cases()),
                         testing::PrintToStringParamName());

}  // namespace
}  // namespace mkv
