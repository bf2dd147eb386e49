// Whole runs on a model of a few kilobytes.
#include "train/train.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "eval/tiny_model.h"
#include "fit/fit_codes.h"
#include "store/json.h"
#include "store/temp_dir.h"
#include "train/torch/column_nest.h"
#include "train/torch/half_rank.h"

namespace mkv {
namespace {

using ::testing::HasSubstr;

class TrainTest : public mkv::testing::TempDir {
 protected:
  TrainTest() : model_(tiny_model()) {
    sequences_ = windows(24);
    held_out_ = {.context = 96, .tokens = random_tokens(192, model_.config().vocab_size, 7)};
    options_.budgets = {"75%", "50%"};
    options_.steps_per_measurement = 4;
    options_.learning_rate = 0.02;
    options_.warmup_steps = 2;
  }
  std::vector<std::vector<TokenId>> windows(size_t count) const {
    std::vector<std::vector<TokenId>> out;
    for (size_t i = 0; i < count; ++i) {
      out.push_back(random_tokens(96, model_.config().vocab_size, 50 + i));
    }
    return out;
  }
  Nest start() const { return training::plain_column_nest(model_); }
  Nest start_of_codes() {
    CodeFitOptions options;
    options.group_size = 1;
    options.recent = 64;
    options.most_bits = 4;
    options.joint_rounds = 0;  // leaves training something to find
    return must(fit_code_nest(model_, windows(3), options, {}, workers_));
  }
  Result<TrainReport> train(Nest& nest) {
    return train_nest(model_, sequences_, held_out_, options_, nest, workers_);
  }
  // Losses of all steps, from the log.
  std::vector<std::string> logged_losses() const {
    std::ifstream file(options_.log);
    std::vector<std::string> out;
    for (std::string line; std::getline(file, line);) {
      const Json json = must(parse_json(line, "log"));
      if (json.contains("kl")) out.push_back(json.at("kl").dump());
    }
    return out;
  }

  Model model_;
  Workers workers_{2};
  std::vector<std::vector<TokenId>> sequences_;
  Windows held_out_;
  TrainOptions options_;
};

TEST_F(TrainTest, FindsTheHalfOfTheColumnsThatHoldsEverything) {
  model_ = training::half_rank_model(dir_ / "half");
  sequences_ = windows(240);
  options_.budgets = {"50%", "25%"};
  options_.schedule.floor = 0.25;
  options_.learning_rate = 0.05;
  options_.steps_per_measurement = 60;
  Nest nest = start();
  const TrainReport report = must(train(nest));
  EXPECT_TRUE(report.finished);
  EXPECT_EQ(report.steps, 120u);
  EXPECT_EQ(report.tokens, 240u * 96u);
  EXPECT_GT(report.kl_before[0], 1.0);
  EXPECT_LT(report.kl_best[0], 0.25 * report.kl_before[0]);  // measured: 0.135
  EXPECT_LT(report.kl_best[1], 0.85 * report.kl_before[1]);  // a quarter cannot hold it: 0.78
  EXPECT_LT(nest.orthogonality_error(), 1e-5);
}

// By what each layer's attention loses alone.
TEST_F(TrainTest, LayerwiseStepsFindThatHalfToo) {
  model_ = training::half_rank_model(dir_ / "half");
  sequences_ = windows(240);
  options_.budgets = {"50%"};
  options_.schedule.floor = 0.25;
  options_.learning_rate = 0.05;
  options_.steps_per_measurement = 60;
  options_.layerwise_steps = 120;
  options_.log = dir_ / "run.jsonl";
  Nest nest = start();
  const TrainReport report = must(train(nest));
  EXPECT_EQ(report.steps, 120u);
  EXPECT_LT(report.kl_best[0], 0.5 * report.kl_before[0]);
  EXPECT_TRUE(logged_losses().empty());  // layers' errors are no divergences
}

TEST_F(TrainTest, CodesGetCloserAtEveryBudget) {
  sequences_ = windows(240);
  options_.learning_rate = 0.015;
  options_.steps_per_measurement = 10;
  options_.budgets = {"2bits", "1bits"};
  Nest nest = start_of_codes();
  const Ladder ladder = nest.ladder();
  options_.basis_rate = 0.5;
  const TrainReport report = must(train(nest));
  EXPECT_TRUE(report.finished);
  EXPECT_LT(report.kl_best[0], 0.87 * report.kl_before[0]);  // measured: 0.83
  EXPECT_LT(report.kl_best[1], report.kl_before[1]);         // one bit a value of noise: 0.96
  EXPECT_EQ(nest.ladder().cuts, ladder.cuts);
  EXPECT_LT(nest.orthogonality_error(), 1e-4);
}

// Of both kinds.
class InterruptedTraining : public TrainTest, public ::testing::WithParamInterface<bool> {};

TEST_P(InterruptedTraining, GoesOnToTheSameLosses) {
  const auto start = [&] { return GetParam() ? start_of_codes() : TrainTest::start(); };
  options_.budgets = GetParam() ? std::vector<std::string>{"2bits", "1bits"} : options_.budgets;
  options_.schedule.schedule = PrefixSchedule::automatic;
  options_.train_means = true;
  options_.log = dir_ / "whole.jsonl";
  Nest whole = start();
  ASSERT_TRUE(train(whole));
  const std::vector<std::string> expected = logged_losses();
  ASSERT_EQ(expected.size(), 12u);

  options_.log = dir_ / "parts.jsonl";
  options_.checkpoint = dir_ / "run.state";
  options_.stop_after_seconds = 1e-9;  // after every step
  Nest parts = start();
  size_t calls = 0;
  for (bool finished = false; !finished; ++calls) {
    ASSERT_LT(calls, 20u);
    parts = start();
    finished = must(train(parts)).finished;
  }
  EXPECT_EQ(calls, 12u);
  EXPECT_EQ(logged_losses(), expected);
  for (size_t s = 0; s < whole.spaces(); ++s) {
    const auto a = whole.basis(whole.unflat(s)).decode.span();
    const auto b = parts.basis(parts.unflat(s)).decode.span();
    EXPECT_TRUE(std::ranges::equal(a, b)) << s;
  }
}

INSTANTIATE_TEST_SUITE_P(ColumnsAndCodes, InterruptedTraining, ::testing::Bool());

TEST_F(TrainTest, StopsWhenHeldOutTextGetsNoBetter) {
  options_.patience = 0;
  Nest whole = start();
  const size_t all_steps = must(train(whole)).steps;
  options_.learning_rate = 1e-12;
  options_.patience = 1;
  Nest nest = start();
  const TrainReport report = must(train(nest));
  EXPECT_TRUE(report.finished);
  EXPECT_TRUE(report.stopped_early);
  EXPECT_LT(report.steps, all_steps);
}

TEST_F(TrainTest, ACheckpointOfAnotherRunIsRefused) {
  options_.checkpoint = dir_ / "run.state";
  options_.stop_after_seconds = 1e-9;
  Nest nest = start();
  ASSERT_TRUE(train(nest));
  options_.learning_rate = 0.5;
  nest = start();
  const auto other = train(nest);
  ASSERT_FALSE(other);
  EXPECT_THAT(other.error().message, HasSubstr("learning_rate is 0.02 there, 0.5 here"));
  std::filesystem::resize_file(options_.checkpoint,
                               std::filesystem::file_size(options_.checkpoint) / 2);
  const auto damaged = train(nest);
  ASSERT_FALSE(damaged);
  EXPECT_THAT(damaged.error().message, HasSubstr("run.state"));
}

TEST_F(TrainTest, WhatCannotBeTrainedIsAnError) {
  Nest nest = start();
  options_.device = "abacus";
  EXPECT_FALSE(train(nest));
  options_.device = "cpu";
  options_.windows_per_step = 100;
  const auto few = train(nest);
  ASSERT_FALSE(few);
  EXPECT_THAT(few.error().message, HasSubstr("24 windows of text, one step takes 100"));
  NestConfig config = nest.config();
  config.slab_kind = SlabKind::code;
  Nest empty = must(Nest::create(config));
  options_.windows_per_step = 2;
  const auto refused = train(empty);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("no cut"));
}

}  // namespace
}  // namespace mkv
