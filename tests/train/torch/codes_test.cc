// Nested codes with gradients: against the engine's cache, against differences with the codes as
// they are, and what a trained nest keeps.
#include "train/torch/codes.h"

#include <gtest/gtest.h>

#include <cmath>

#include "model/golden.h"
#include "nest/code_fixture.h"
#include "nest/slab_reference.h"
#include "ops/instruction_set.h"
#include "store/temp_dir.h"
#include "text/golden.h"
#include "train/torch/difference.h"
#include "train/torch/step.h"

namespace mkv::training {
namespace {

constexpr size_t kTokens = 200;

// Codebooks of the size of what they code: random ones would leave errors that hide all others.
Nest code_nest(const Model& model, size_t recent, size_t group_size, KeyMean key_mean) {
  NestConfig config;
  config.shape = model.config().kv_shape();
  config.group_size = group_size;
  config.key_mean = key_mean;
  config.recent = recent;
  Nest nest = make_code_nest(config, 12, 3);
  Codes(nest, {}, torch::kCPU).store(nest);  // encode becomes the inverse of what was rounded
  return nest;
}

std::vector<TokenId> some_tokens(const Model& model, size_t seed) {
  std::vector<TokenId> tokens;
  for (size_t i = 0; i < kTokens; ++i) {
    tokens.push_back(static_cast<TokenId>((i * 37 + seed * 7 + 11) % model.config().vocab_size));
  }
  return tokens;
}

void move_at_random(const Codes& codes, double size) {
  const torch::NoGradGuard none;
  for (const Parameters::Moved& moved : codes.moved()) {
    Tensor values = moved.values;
    values.normal_().mul_(size);
  }
}

// By the portable kernels: others round elsewhere, and how many tokens get another code would
// depend on the machine.
class CodedTwins : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override { ASSERT_TRUE(set_instruction_set(instruction_sets().back())); }
  void TearDown() override { ASSERT_TRUE(set_instruction_set("auto")); }
};

TEST_P(CodedTwins, LogitsAreTheEngines) {
  const Model model = golden::load(golden::gguf_of(GetParam()));
  const std::vector<TokenId> tokens = some_tokens(model, 0);
  const torch::NoGradGuard none;
  const Twin twin(model, {});
  Workers workers(1);
  torch::manual_seed(1);
  for (const KeyMean mean : {KeyMean::none, KeyMean::plain, KeyMean::position}) {
    for (const size_t recent : {size_t{0}, size_t{64}}) {
      const size_t group = recent == 64 ? model.config().num_kv_heads : 1;
      Nest nest = code_nest(model, recent, group, mean);
      const Codes codes(nest, {.bases = 1.0, .means = 1.0}, torch::kCPU);
      move_at_random(codes, 0.02);
      codes.store(nest);
      const Ranks ranks = nest.ranks_at(nest.spaces() * 4 + 1);
      const Codes stored(nest, {}, torch::kCPU);
      CacheCode code = stored.code(stored.made(), ranks);
      const auto apart = [&](DType exact) {
        KvCache cache(nest, ranks, model.config().layer_types, tokens.size(), {.exact = exact});
        code.rounded = exact == DType::f16;
        return difference(golden::run(model, tokens, tokens.size(), cache, workers),
                          twin.logits(twin.hidden(tokens, code)));
      };
      EXPECT_LT(apart(DType::f32).root_mean_square, 1e-4)
          << "recent " << recent << ", mean " << static_cast<int>(mean);
      // Where a key rounds the other way, a token between two entries may get the other one.
      // Without rounding it is six times this.
      EXPECT_LT(apart(DType::f16).root_mean_square, 5e-3)
          << "recent " << recent << ", mean " << static_cast<int>(mean);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, CodedTwins, ::testing::Values("llama", "qwen3", "llama_spm"));

// Later sinks, of which only a real model has some: the twin's are the engine's.
TEST(CodedTwinsReal, SeeLaterSinksAsTheEngineDoes) {
  if (smollm2_path().empty()) GTEST_SKIP() << "no SmolLM2 in ~/.cache/mkv-models: get_model.sh";
  const Model model = golden::load(smollm2_path());
  const std::filesystem::path source = MKV_SOURCE_DIR;
  const auto nest = Nest::load(source / "nests/SmolLM2-135M-Instruct");
  ASSERT_TRUE(nest) << nest.error().message;
  ASSERT_GT(nest->config().later_sinks, 0u);
  const auto encoded = model.tokenizer().encode(read_text(source / "docs/method.md"), {});
  ASSERT_TRUE(encoded);
  const std::span<const TokenId> tokens = std::span(*encoded).first(500);
  const Ranks ranks = nest->ranks_at(nest->ladder().rungs() / 2);
  const torch::NoGradGuard none;
  const Twin twin(model, {});
  Workers workers(2);
  KvCache cache(*nest, ranks, model.config().layer_types, tokens.size(), {.exact = DType::f32});
  const Matrix<float> engine = golden::run(model, tokens, tokens.size(), cache, workers);
  const Codes codes(*nest, {}, torch::kCPU);
  CacheCode code = codes.code(codes.made(), ranks);
  const auto apart = [&] {
    return difference(engine, twin.logits(twin.hidden(tokens, code))).root_mean_square;
  };
  const double with = apart();
  code.later_sinks = 0;
  EXPECT_LT(with, 0.2 * apart());
}

// A space of 12 columns of which the last four have no slab, and the codes that the scalar
// reference chooses.
struct Space {
  static constexpr int64_t kDims = 12, kRows = 100;
  Tensor latents, weights;  // [tokens x dims]
  SpaceSlabs slabs;
  std::vector<std::vector<unsigned>> chosen;  // [slab][token]

  Space() {
    torch::manual_seed(7);
    latents = torch::randn({kRows, kDims});
    weights = torch::randn({kRows, kDims});
    slabs.columns = torch::tensor({0, 4, 0}, torch::kLong);
    slabs.entries = torch::randn({3, 4, 16});
    slabs.scales = 1.0 + 0.2 * torch::rand({3, 4});
    choose();
  }
  void choose() {
    Tensor rows = torch::zeros({kDims, 128});
    rows.slice(1, 0, kRows).copy_(latents.t());
    for (int64_t s = 0; s < 3; ++s) {
      Codebook book;
      std::copy_n(slabs.entries[s].contiguous().data_ptr<float>(), 64, &book.entry[0][0]);
      std::vector<unsigned>& codes = chosen.emplace_back();
      for (int64_t block = 0; block < 2; ++block) {
        uint8_t packed[32];
        float* residual =
            rows.data_ptr<float>() + slabs.columns[s].item<int64_t>() * 128 + block * 64;
        reference::encode_slab(book, residual, 128, packed);
        for (size_t t = 0; t < 64; ++t) codes.push_back(reference::code_at(packed, t));
      }
    }
  }
  // What a token decodes to by the definition, the codes as they were chosen.
  double expected(const Tensor& entries, const Tensor& scales, int64_t t, int64_t c) const {
    double sum = 0, scale = 0;
    for (int64_t s = 0; s < 3; ++s) {
      const int64_t in_slab = c - slabs.columns[s].item<int64_t>();
      if (in_slab < 0 || in_slab >= 4) continue;
      const auto code =
          static_cast<int64_t>(chosen[static_cast<size_t>(s)][static_cast<size_t>(t)]);
      sum += entries[s][in_slab][code].item<double>();
      scale = scales[s][in_slab].item<double>();
    }
    return sum * scale;
  }
  double expected_loss(const Tensor& entries, const Tensor& scales) const {
    double sum = 0;
    for (int64_t t = 0; t < kRows; ++t) {
      for (int64_t c = 0; c < kDims; ++c) {
        sum += weights[t][c].item<double>() * expected(entries, scales, t, c);
      }
    }
    return sum;
  }
};

TEST(CodeLatents, DecodeWhatTheReferenceChooses) {
  const Space space;
  const Tensor out = code_latents(space.latents, space.slabs);
  for (int64_t t = 0; t < Space::kRows; ++t) {
    for (int64_t c = 0; c < Space::kDims; ++c) {
      EXPECT_NEAR(out[t][c].item<double>(),
                  space.expected(space.slabs.entries, space.slabs.scales, t, c), 1e-5);
    }
  }
}

TEST(CodeLatents, EntriesAndScalesHaveTheGradientOfTheCodesAsTheyAre) {
  Space space;
  space.slabs.entries.requires_grad_(true);
  space.slabs.scales.requires_grad_(true);
  (code_latents(space.latents, space.slabs) * space.weights).sum().backward();
  const Tensor entries = space.slabs.entries.detach().to(torch::kDouble);
  const Tensor scales = space.slabs.scales.detach().to(torch::kDouble);
  const auto slope = [&](bool of_entries, int64_t at) {
    double loss[2];
    for (const int sign : {0, 1}) {
      Tensor e = entries.clone(), s = scales.clone();
      (of_entries ? e : s).view({-1})[at] += sign == 0 ? 0.5 : -0.5;
      loss[sign] = space.expected_loss(e, s);
    }
    return loss[0] - loss[1];  // linear: any step is exact
  };
  for (int64_t i = 0; i < 12; ++i) {
    EXPECT_NEAR(space.slabs.scales.grad().view({-1})[i].item<double>(), slope(false, i), 1e-3);
  }
  for (int64_t i = 3; i < 192; i += 17) {
    EXPECT_NEAR(space.slabs.entries.grad().view({-1})[i].item<double>(), slope(true, i), 1e-3);
  }
  // The first slab's scales count for no column: another slab on them came later.
  EXPECT_EQ(space.slabs.scales.grad()[0].abs().max().item<double>(), 0.0);
  EXPECT_GT(space.slabs.scales.grad()[2].abs().min().item<double>(), 0.0);
}

TEST(CodeLatents, TheGradientOfLatentsPassesStraightThroughCodedColumns) {
  Space space;
  space.latents.requires_grad_(true);
  (code_latents(space.latents, space.slabs) * space.weights).sum().backward();
  const Tensor gradient = space.latents.grad();
  EXPECT_TRUE(torch::equal(gradient.slice(1, 0, 8), space.weights.slice(1, 0, 8)));
  EXPECT_EQ(gradient.slice(1, 8).abs().max().item<double>(), 0.0);

  const SpaceSlabs none{space.slabs.columns.slice(0, 0, 0), space.slabs.entries.slice(0, 0, 0),
                        space.slabs.scales.slice(0, 0, 0)};
  EXPECT_EQ(code_latents(space.latents, none).abs().max().item<double>(), 0.0);
}

// Through the whole model. Codes that choose others pass no true gradient, but nothing is coded
// after the last layer's scales.
TEST(CodesTest, TheLastLayersScalesAgreeWithFiniteDifferences) {
  const Model model = golden::load(golden::gguf_of("llama"));
  const Nest nest = code_nest(model, 64, 1, KeyMean::position);
  const Codes codes(nest, {.bases = 0.0, .means = 0.0}, torch::kCPU);
  const Twin twin(model, {});
  Workers workers(1);
  const std::vector<TokenId> tokens = some_tokens(model, 1);
  const std::vector<StepWindow> windows{{tokens, nest.ranks_at(nest.spaces() * 3)}};
  const auto step = [&] {
    return step_gradients(twin, codes, windows, {}, Objective::end_to_end, workers);
  };
  const StepResult at = step();
  ASSERT_EQ(at.gradients.size(), 2u);  // entries, scales
  const int64_t in_last =
      static_cast<int64_t>(nest.spaces() / nest.config().shape.layers) * 12;  // slabs
  Tensor direction = torch::zeros_like(at.gradients[1]);
  direction.slice(0, -in_last).copy_(at.gradients[1].slice(0, -in_last));
  const double slope = direction.norm().item<double>();
  ASSERT_GT(slope, 1e-4);
  Tensor scales = codes.moved()[1].values;
  constexpr double kStep = 0.02;
  scales.add_(direction, kStep / slope);
  const double above = step().kl[0];
  scales.sub_(direction, 2 * kStep / slope);
  const double below = step().kl[0];
  EXPECT_NEAR((above - below) / (2 * kStep) / slope, 1.0, 0.03);
}

TEST(CodesTest, GradientsAreBitEqualForAnyNumberOfWorkers) {
  const Model model = golden::load(golden::gguf_of("llama"));
  const Nest nest = code_nest(model, 64, 1, KeyMean::position);
  const Codes codes(nest, {.bases = 1.0, .means = 1.0}, torch::kCPU);
  const Twin twin(model, {});
  const std::vector<TokenId> tokens = some_tokens(model, 1), others = some_tokens(model, 2);
  const std::vector<StepWindow> windows{{tokens, nest.ranks_at(9)}, {others, nest.ranks_at(20)}};
  Workers one_worker(1), two_workers(2);
  const StepResult one =
      step_gradients(twin, codes, windows, {}, Objective::end_to_end, one_worker);
  const StepResult two =
      step_gradients(twin, codes, windows, {}, Objective::end_to_end, two_workers);
  EXPECT_EQ(one.kl, two.kl);
  ASSERT_EQ(one.gradients.size(), 4u);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_TRUE(torch::equal(one.gradients[i], two.gradients[i])) << i;
    EXPECT_GT(one.gradients[i].norm().item<double>(), 0.0) << i;
  }
}

class CodesFile : public mkv::testing::TempDir {};

TEST_F(CodesFile, WhatIsStoredIsSavedAndLoadedAsItIs) {
  const Model model = golden::load(golden::gguf_of("llama"));
  Nest nest = code_nest(model, 64, 2, KeyMean::position);
  const Nest before = nest.clone();
  const Codes codes(nest, {.bases = 1.0, .means = 1.0}, torch::kCPU);
  const auto same = [](const Nest& a, const Nest& b, GroupId id) {
    const Basis &x = a.basis(id), &y = b.basis(id);
    bool equal = std::ranges::equal(x.decode.span(), y.decode.span()) &&
                 std::ranges::equal(x.encode.span(), y.encode.span()) && x.mean == y.mean;
    for (size_t s = 0; s < x.slabs.size(); ++s) {
      equal = equal && std::ranges::equal(std::as_bytes(std::span(&x.slabs[s].codebook, 1)),
                                          std::as_bytes(std::span(&y.slabs[s].codebook, 1)));
      equal = equal && std::ranges::equal(x.slabs[s].scale, y.slabs[s].scale);
    }
    return equal;
  };
  codes.store(nest);
  for (size_t s = 0; s < nest.spaces(); ++s) EXPECT_TRUE(same(nest, before, nest.unflat(s))) << s;
  torch::manual_seed(2);
  move_at_random(codes, 0.05);
  codes.store(nest);
  EXPECT_LT(nest.orthogonality_error(), 1e-5);
  ASSERT_TRUE(nest.save(dir_ / "nest"));
  const Result<Nest> loaded = Nest::load(dir_ / "nest");
  ASSERT_TRUE(loaded) << loaded.error().message;
  EXPECT_EQ(loaded->ladder().cuts, before.ladder().cuts);
  for (size_t s = 0; s < nest.spaces(); ++s) {
    EXPECT_FALSE(same(nest, before, nest.unflat(s))) << s;
    EXPECT_TRUE(same(nest, *loaded, nest.unflat(s))) << s;
  }
}

}  // namespace
}  // namespace mkv::training
