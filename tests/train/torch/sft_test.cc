// Fine-tuning on a model of a few kilobytes.
#include "train/sft.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>

#include "eval/tiny_model.h"
#include "model/export.h"
#include "store/json.h"
#include "store/temp_dir.h"
#include "train/sft_examples.h"
#include "train/torch/column_nest.h"
#include "train/torch/sft_step.h"

namespace mkv {
namespace {

using ::testing::HasSubstr;
using training::Lora;
using training::Twin;

// A question of random tokens is answered by its last one, three times.
std::vector<ScoredTokens> repeats(size_t count, size_t vocab, uint64_t seed) {
  std::vector<ScoredTokens> out;
  for (size_t i = 0; i < count; ++i) {
    ScoredTokens example{.tokens = random_tokens(12, vocab, seed + i), .first = 12};
    example.tokens.back() = static_cast<TokenId>(i % 7);
    for (int k = 0; k < 3; ++k) example.tokens.push_back(example.tokens[11]);
    out.push_back(example);
  }
  return out;
}

class SftTest : public mkv::testing::TempDir {
 protected:
  SftTest() : model_(tiny_model()) {
    examples_ = repeats(60, model_.config().vocab_size, 100);
    held_out_ = repeats(14, model_.config().vocab_size, 900);
    options_.lora_steps = 40;
    options_.joint_steps = 20;
    options_.examples_per_step = 6;
    options_.lora_rate = 0.02;
    options_.joint_lora_rate = 0.005;
    options_.basis_rate = 0.01;
    options_.steps_per_measurement = 10;
    options_.warmup_steps = 2;
    options_.schedule.floor = 0.25;
  }
  Nest start() const { return training::plain_column_nest(model_); }
  Result<SftReport> tune(Nest* nest) {
    return fine_tune(model_, examples_, held_out_, options_, nest, workers_);
  }
  std::vector<std::string> logged_losses() const {
    std::ifstream file(options_.log);
    std::vector<std::string> out;
    for (std::string line; std::getline(file, line);) {
      const Json json = must(parse_json(line, "log"));
      const char* key = json.contains("cross_entropy") ? "cross_entropy" : "held_out_cross_entropy";
      out.push_back(json.at(key).dump());
    }
    return out;
  }

  Model model_;
  Workers workers_{2};
  std::vector<ScoredTokens> examples_, held_out_;
  SftOptions options_;
};

// Adapters that do something.
Lora random_lora(const Model& model, const SftOptions& options) {
  Lora lora = must(Lora::create(model.config(), options));
  torch::manual_seed(2);
  for (torch::Tensor& tensor : lora.tensors()) tensor.copy_(0.2 * torch::randn_like(tensor));
  return lora;
}

TEST_F(SftTest, AMergedModelIsTheTwinWithAdapters) {
  const torch::NoGradGuard none;
  const std::vector<TokenId> tokens = random_tokens(40, model_.config().vocab_size, 3);
  const Lora lora = random_lora(model_, options_);
  const Twin twin(model_, {});
  const torch::Tensor adapted = twin.logits(twin.hidden(tokens, {}, lora.adapters(lora.tensors())));
  const auto source = std::filesystem::path(MKV_SOURCE_DIR) / "tests/golden/models/llama.gguf";
  ASSERT_TRUE(export_model(model_, source, lora.changes(), DType::f32, dir_ / "merged.gguf"));
  const Model merged = must(Model::load(dir_ / "merged.gguf"));
  const Twin other(merged, {});
  const torch::Tensor logits = other.logits(other.hidden(tokens, {}));
  const torch::Tensor before = twin.logits(twin.hidden(tokens, {}));
  EXPECT_LT((logits - adapted).abs().max().item<double>(),
            1e-4 * adapted.abs().max().item<double>());
  EXPECT_GT((before - adapted).abs().max().item<double>(),
            0.05 * adapted.abs().max().item<double>());
}

TEST_F(SftTest, FreshAdaptersChangeNothing) {
  const torch::NoGradGuard none;
  const Lora lora = must(Lora::create(model_.config(), options_));
  const Twin twin(model_, {});
  const auto& tokens = examples_[0].tokens;
  EXPECT_TRUE(torch::equal(twin.hidden(tokens, {}, lora.adapters(lora.tensors())),
                           twin.hidden(tokens, {})));
}

// Of the cross-entropy of two examples' answers, one exact and one coded, along random directions.
TEST_F(SftTest, GradientsAgreeWithFiniteDifferences) {
  const Twin twin(model_, {});
  Lora lora = random_lora(model_, options_);
  const Nest nest = start();
  training::Bases bases(nest, false, torch::kCPU);
  const training::SftModel model{twin, lora, &bases};
  const Ranks half = nest.ranks_at(*rung_for_budget(nest, "50%"));
  const std::vector<training::SftExample> examples{{&examples_[0], {}}, {&examples_[1], half}};
  const size_t answers = 6;
  const training::LossWeights weights{.kl = 0, .cross_entropy = 1};
  const auto loss = [&] {
    return (answer_nats(model, std::span(examples_).subspan(0, 1), {}, workers_) +
            answer_nats(model, std::span(examples_).subspan(1, 1), half, workers_)) /
           static_cast<double>(answers);
  };
  const auto sums = sft_gradients(model, examples, weights, answers, workers_);
  std::vector<torch::Tensor> parameters = lora.tensors(), gradients = sums.lora;
  parameters.push_back(bases.turns());
  gradients.push_back(sums.turns[0]);
  ASSERT_EQ(parameters.size(), gradients.size());
  for (const bool rotations : {false, true}) {
    double expected = 0.0;
    std::vector<torch::Tensor> directions;
    for (size_t i = 0; i < parameters.size(); ++i) {
      const bool moves = rotations == (i + 1 == parameters.size());
      torch::Tensor d = torch::randn_like(parameters[i]);
      directions.push_back(moves ? d : torch::zeros_like(d));
      expected += (gradients[i] * directions[i]).sum().item<double>();
    }
    const double step = 2e-4;  // the curvature is large
    const auto move = [&](double by) {
      for (size_t i = 0; i < parameters.size(); ++i) parameters[i].add_(directions[i], by);
    };
    move(step);
    const double above = loss();
    move(-2 * step);
    const double below = loss();
    move(step);
    EXPECT_NEAR((above - below) / (2 * step), expected, 0.02 * std::abs(expected) + 2e-3);
  }
}

// However many are one pass: examples of several lengths, enough for two passes, exact and coded.
TEST_F(SftTest, ExamplesTogetherAreExamplesAlone) {
  const Twin twin(model_, {});
  Lora lora = random_lora(model_, options_);
  const Nest nest = start();
  training::Bases bases(nest, false, torch::kCPU);
  const training::SftModel model{twin, lora, &bases};
  std::vector<ScoredTokens> texts;
  std::vector<training::SftExample> examples;
  size_t answers = 0;
  for (size_t i = 0; i < 8; ++i) {
    const size_t length = 20 + 7 * i;
    texts.push_back({.tokens = random_tokens(length, model_.config().vocab_size, 40 + i),
                     .first = length - 1 - i});
    answers += 1 + i;
  }
  for (size_t i = 0; i < texts.size(); ++i) {
    const Ranks ranks = i % 3 == 0 ? Ranks() : nest.ranks_at(1 + i * nest.ladder().rungs() / 9);
    examples.push_back({&texts[i], ranks});
  }
  const training::LossWeights weights{.kl = 0.25, .cross_entropy = 0.75};
  const auto together = sft_gradients(model, examples, weights, answers, workers_);
  ASSERT_EQ(together.kl.size(), examples.size());
  std::vector<torch::Tensor> lora_sum;
  torch::Tensor turns_sum = torch::zeros_like(bases.turns());
  for (size_t i = 0; i < examples.size(); ++i) {
    const auto alone =
        sft_gradients(model, std::span(examples).subspan(i, 1), weights, answers, workers_);
    EXPECT_NEAR(together.kl[i], alone.kl[0], 1e-5 + 1e-4 * alone.kl[0]);
    EXPECT_EQ(i % 3 != 0, alone.kl[0] > 1e-4);
    EXPECT_NEAR(together.cross_entropy[i], alone.cross_entropy[0], 1e-4);
    if (i == 0) lora_sum = alone.lora;
    for (size_t k = 0; i > 0 && k < lora_sum.size(); ++k) lora_sum[k].add_(alone.lora[k]);
    turns_sum.add_(alone.turns[0]);
  }
  const auto apart = [](const torch::Tensor& a, const torch::Tensor& b) {
    return ((a - b).norm() / b.norm()).item<double>();
  };
  EXPECT_LT(apart(together.turns[0], turns_sum), 1e-3);
  for (size_t k = 0; k < lora_sum.size(); ++k) {
    EXPECT_LT(apart(together.lora[k], lora_sum[k]), 1e-3) << k;
  }
  const Ranks half = nest.ranks_at(*rung_for_budget(nest, "50%"));
  double nats = 0.0;
  for (const ScoredTokens& text : texts) {
    nats += answer_nats(model, std::span(&text, 1), half, workers_);
  }
  EXPECT_NEAR(answer_nats(model, texts, half, workers_), nats, 1e-4 * nats);
}

TEST_F(SftTest, BothStagesLearnTheAnswers) {
  Nest nest = start();
  const SftReport report = must(tune(&nest));
  EXPECT_TRUE(report.finished);
  ASSERT_EQ(report.lora.before.size(), 1u);
  EXPECT_LT(report.lora.best[0], 0.7 * report.lora.before[0]);
  ASSERT_EQ(report.joint.before.size(), 3u);  // exact, 50%, 25%
  EXPECT_LT(report.joint.best[1] + report.joint.best[2],
            0.97 * (report.joint.before[1] + report.joint.before[2]));
  EXPECT_LT(nest.orthogonality_error(), 1e-5);
  EXPECT_EQ(report.changes.size(), model_.config().num_layers * kProjections);
}

TEST_F(SftTest, AnInterruptedRunGoesOnToTheSameLosses) {
  options_.lora_steps = 5;
  options_.joint_steps = 5;
  options_.steps_per_measurement = 2;
  options_.patience = 0;
  options_.log = dir_ / "whole.jsonl";
  Nest whole = start();
  ASSERT_TRUE(tune(&whole));
  const std::vector<std::string> expected = logged_losses();
  ASSERT_EQ(expected.size(), 10u + 8u);
  options_.log = dir_ / "parts.jsonl";
  options_.checkpoint = dir_ / "run.state";
  options_.stop_after_seconds = 1e-9;  // after every step
  Nest parts = start();
  size_t calls = 0;
  for (bool finished = false; !finished; ++calls) {
    ASSERT_LT(calls, 20u);
    parts = start();
    finished = must(tune(&parts)).finished;
  }
  EXPECT_EQ(calls, 11u);  // the last only finds that nothing is left
  EXPECT_EQ(logged_losses(), expected);
  for (size_t s = 0; s < whole.spaces(); ++s) {
    EXPECT_TRUE(std::ranges::equal(whole.basis(whole.unflat(s)).decode.span(),
                                   parts.basis(parts.unflat(s)).decode.span()));
  }
  options_.lora_alpha = 5;
  const auto other = tune(&parts);
  ASSERT_FALSE(other);
  EXPECT_THAT(other.error().message, HasSubstr("lora_alpha is 16 there, 5 here"));
}

TEST_F(SftTest, AStageStopsWhenHeldOutAnswersGetNoBetter) {
  options_.lora_rate = 1e-12;
  options_.joint_steps = 0;
  options_.steps_per_measurement = 5;
  options_.patience = 2;
  const SftReport report = must(tune(nullptr));
  EXPECT_TRUE(report.finished);
  EXPECT_TRUE(report.lora.stopped_early);
  EXPECT_LT(report.lora.steps, options_.lora_steps);
}

TEST_F(SftTest, WhatCannotBeTunedIsAnError) {
  const auto message = [&](Nest* nest) {
    const auto tuned = tune(nest);
    return tuned ? "no error" : tuned.error().message;
  };
  EXPECT_THAT(message(nullptr), HasSubstr("needs a nest"));
  options_.joint_steps = 0;
  options_.projections = {"q_proj", "x_proj"};
  EXPECT_THAT(message(nullptr), HasSubstr("projection x_proj"));
  options_.projections = {"q_proj"};
  options_.lora_rank = 0;
  EXPECT_THAT(message(nullptr), HasSubstr("rank 0"));
  options_.lora_rank = 2;
  examples_[3].first = 99;
  EXPECT_THAT(message(nullptr), HasSubstr("token 99 of 15"));
  examples_.clear();
  EXPECT_THAT(message(nullptr), HasSubstr("0 examples"));
}

TEST_F(SftTest, ReadsPromptsAndTasks) {
  const auto file = write("a.jsonl", R"({"prompt": "One two\n", "text": "One two\nthree"})"
                                     "\n");
  const auto task =
      write("b.jsonl", R"({"context": "Q: a\nA:", "choices": [" no", " yes"], "label": 1})"
                       "\n");
  SftExamples found;
  ASSERT_TRUE(read_sft_examples(file, model_.tokenizer(), 512, found));
  ASSERT_TRUE(read_sft_examples(task, model_.tokenizer(), 512, found));
  ASSERT_EQ(found.examples.size(), 2u);
  const auto answer = [&](size_t i) {
    const ScoredTokens& e = found.examples[i];
    return model_.tokenizer().decode_all(std::span(e.tokens).subspan(e.first), false);
  };
  EXPECT_THAT(answer(0), HasSubstr("three"));
  EXPECT_THAT(answer(1), HasSubstr("yes"));
  const auto& end = model_.tokenizer().special().end_of_generation;
  EXPECT_TRUE(std::ranges::count(end, found.examples[0].tokens.back()) == 1);
  ASSERT_TRUE(read_sft_examples(task, model_.tokenizer(), 2, found));
  EXPECT_EQ(found.too_long, 1u);
  const auto bad = read_sft_examples(write("c.jsonl", R"({"prompt": "One", "text": "Two"})"),
                                     model_.tokenizer(), 512, found);
  ASSERT_FALSE(bad);
  EXPECT_THAT(bad.error().message, HasSubstr("c.jsonl:1: text does not begin with prompt"));
}

}  // namespace
}  // namespace mkv
