// When a refit is made, tried and kept; and a flight in which one takes over.
#include "pilot/refit.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <thread>

#include "eval/identity_nest.h"
#include "pilot/stream.h"

namespace mkv {
namespace {

constexpr size_t kText = 10;  // tokens

Nest measured_nest(const Model& model) {
  Nest nest = identity_nest(model, 0);
  const size_t cuts = nest.ladder().cuts.size();
  nest.measurements() = {{0, 16, 0.001, 0}, {cuts / 4, 12, 0.5, 0.1}, {cuts / 2, 8, 1, 0.2}};
  return nest;
}

class RefitTest : public ::testing::Test {
 protected:
  Refit make(size_t tokens = 4 * kText) {
    RefitOptions options;
    options.make = [this](std::vector<std::vector<TokenId>> texts) -> Result<Nest> {
      texts_ = std::move(texts);
      thread_ = std::this_thread::get_id();
      release_.get_future().wait();
      if (!failure_.empty()) return make_error(ErrorCode::invalid_argument, failure_);
      return measured_nest(model_);
    };
    options.tokens = tokens;
    options.requests = 3;
    options.trial = 2;
    return Refit(options);
  }

  // Requests first ... last - 1, whose text is their number.
  static void serve(Refit& refit, size_t first, size_t last) {
    for (size_t i = first; i < last; ++i) {
      refit.step(i);
      refit.remember(std::vector<TokenId>(kText, static_cast<TokenId>(i)));
    }
  }

  Model model_ = tiny_model();
  std::vector<std::vector<TokenId>> texts_;  // that the refit saw
  std::thread::id thread_;
  std::promise<void> release_;
  std::string failure_;
};

TEST_F(RefitTest, IsMadeInTheBackgroundOfTextSinceTheChange) {
  Refit refit = make();
  serve(refit, 0, 20);
  refit.ask(19, 2);   // the text changed with request 18
  refit.ask(19, 20);  // one at a time
  serve(refit, 20, 22);
  EXPECT_FALSE(refit.trial());
  serve(refit, 22, 25);  // begun at 22; these are served although the fit stands still
  EXPECT_FALSE(refit.trial());
  release_.set_value();
  serve(refit, 25, 26);
  ASSERT_TRUE(refit.trial());
  EXPECT_NE(thread_, std::this_thread::get_id());
  ASSERT_EQ(texts_.size(), 4u);  // 18 ... 21
  EXPECT_EQ(texts_.front(), std::vector<TokenId>(kText, 18));
  EXPECT_EQ(texts_.back(), std::vector<TokenId>(kText, 21));

  EXPECT_FALSE(refit.observe(25, 0.02, 0.03));
  EXPECT_TRUE(refit.observe(26, 0.02, 0.005));
  EXPECT_FALSE(refit.trial());
  EXPECT_EQ(refit.levels().size(), 3u);
  EXPECT_EQ(refit.take().spaces(), measured_nest(model_).spaces());
  const RefitRecord record = refit.finish().at(0);
  EXPECT_EQ(record.asked, 19u);
  EXPECT_EQ(record.made, 22u);
  EXPECT_EQ(record.tokens, 4 * kText);
  EXPECT_EQ(record.tried, 25u);
  EXPECT_EQ(record.decided, 26u);
  EXPECT_DOUBLE_EQ(record.kl_before, 0.02);
  EXPECT_DOUBLE_EQ(record.kl_after, 0.0175);
  EXPECT_TRUE(record.kept);
}

TEST_F(RefitTest, IsDroppedWhereItIsNoBetterAndAnotherMayFollow) {
  Refit refit = make();
  serve(refit, 0, 10);
  refit.ask(9, 10);
  release_.set_value();
  serve(refit, 10, 14);
  ASSERT_TRUE(refit.trial());
  EXPECT_FALSE(refit.observe(13, 0.01, 0.01));
  EXPECT_FALSE(refit.observe(14, 0.01, 0.01));
  EXPECT_FALSE(refit.trial());
  refit.ask(30, 1);
  const std::vector<RefitRecord> records = refit.finish();
  ASSERT_EQ(records.size(), 2u);
  EXPECT_FALSE(records[0].kept);
  EXPECT_EQ(records[1].made, std::nullopt);
}

TEST_F(RefitTest, AFailureLeavesTheOldNest) {
  failure_ = "no memory";
  Refit refit = make();
  serve(refit, 0, 10);
  refit.ask(9, 10);
  release_.set_value();
  serve(refit, 10, 14);
  EXPECT_FALSE(refit.trial());
  EXPECT_EQ(refit.finish().at(0).failed, "no memory");
}

TEST_F(RefitTest, TheStreamMayEndBeforeItIsReady) {
  Refit refit = make();
  serve(refit, 0, 10);
  refit.ask(9, 10);
  serve(refit, 10, 12);
  release_.set_value();
  const RefitRecord record = refit.finish().at(0);
  EXPECT_EQ(record.made, 10u);
  EXPECT_EQ(record.tried, std::nullopt);
  EXPECT_FALSE(record.kept);
}

TEST(RefitWithoutAFunction, OnlyRecommends) {
  Refit refit{RefitOptions{}};
  refit.remember(std::vector<TokenId>(5, 1));
  refit.ask(0, 1);
  refit.step(1);
  EXPECT_TRUE(refit.finish().empty());
}

// A nest that gives back a part of every value: worse than the identity at every rung.
Nest spoilt_nest(const Model& model) {
  Nest nest = measured_nest(model);
  for (size_t space = 0; space < nest.spaces(); ++space) {
    Basis& basis = nest.basis(nest.unflat(space));
    for (size_t row = 0; row < basis.decode.rows(); ++row) {
      for (float& value : basis.decode.row(row)) value *= 0.7f;
    }
  }
  return nest;
}

TEST(StreamWithRefit, TheBetterNestTakesOverAndTheTraceIsTheSame) {
  const Model model = tiny_model();
  const Nest nest = spoilt_nest(model);
  const WindowOptions cut{.context = 64, .limit = 0};
  const auto part = [&](const char* name, size_t vocabulary) {
    return StreamPart{name, must(cut_windows(model.tokenizer().special(),
                                             random_tokens(64 * 60, vocabulary, 1), cut))};
  };
  const std::vector<StreamPart> parts{part("few words", 3),
                                      part("many words", model.config().vocab_size)};
  StreamOptions options;
  std::atomic<size_t> made = 0;
  options.refit = {.make = [&](const std::vector<std::vector<TokenId>>& texts) -> Result<Nest> {
                     EXPECT_EQ(texts.size(), 8u);
                     ++made;
                     return measured_nest(model);
                   },
                   .tokens = 8 * 64,
                   .requests = 5,
                   .trial = 4};
  const auto fly = [&](size_t threads) {
    Workers workers(threads);
    Autopilot autopilot = must(
        Autopilot::create(must(autopilot_levels(nest)), {.tolerance = 1e9, .refit_factor = 0.1}));
    return must(run_stream(model, nest, parts, std::move(autopilot), options, workers));
  };
  const StreamReport report = fly(2), again = fly(1);
  ASSERT_EQ(report.refits.size(), 1u);
  EXPECT_EQ(made, 2u);
  const RefitRecord& refit = report.refits[0];
  ASSERT_TRUE(refit.decided);
  EXPECT_GE(refit.asked, 60u);
  EXPECT_EQ(*refit.tried, *refit.made + 5);
  EXPECT_EQ(*refit.decided, *refit.tried + 3);
  EXPECT_LT(refit.kl_after, refit.kl_before);
  ASSERT_TRUE(refit.kept);
  double before = 0, after = 0;  // of the same kind of text
  const size_t count = 120 - *refit.decided - 1;
  ASSERT_GT(count, 5u);
  for (size_t i = 0; i < count; ++i) {
    before += report.requests[*refit.decided - i].kl;
    after += report.requests[*refit.decided + 1 + i].kl;
  }
  EXPECT_LT(after, before);
  ASSERT_EQ(report.requests.size(), again.requests.size());
  for (size_t i = 0; i < report.requests.size(); ++i) {
    EXPECT_EQ(report.requests[i].kl, again.requests[i].kl) << i;
    EXPECT_EQ(report.requests[i].shadowed, again.requests[i].shadowed) << i;
    EXPECT_EQ(report.requests[i].level.rung, again.requests[i].level.rung) << i;
  }

  options.refit.trial = 0;
  Workers workers(1);
  EXPECT_FALSE(run_stream(model, nest, parts,
                          must(Autopilot::create(must(autopilot_levels(nest)), {})), options,
                          workers));
}

}  // namespace
}  // namespace mkv
