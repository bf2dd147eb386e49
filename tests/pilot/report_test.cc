// A whole pilot of a tiny model: its parts, its JSON and its page.
#include "pilot/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "eval/identity_nest.h"
#include "text/utf8.h"

namespace mkv {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class Pilot : public ::testing::Test {
 protected:
  Pilot() {
    // A model of random weights does worse on random text when its cache is cut; on English better.
    documents_.push_back(replace_invalid_utf8(
        model_.tokenizer().decode_all(random_tokens(2000, model_.config().vocab_size, 7), false)));
    options_.windows = {.context = 128, .limit = 2};
    options_.quality.shares = {1, 0.5, 0.25, 0.1};
    options_.quality.refinements = 1;
    options_.quality.tolerance = 0.2;
    options_.speed = {.depths = {0, 256, 100000},
                      .lengths = {.prefill = 8, .decode = 4},
                      .repetitions = 2,
                      .progress = {}};
    options_.answers = {.prompts = 2, .excerpt_tokens = 96, .tokens = 8, .progress = {}};
  }

  PilotResult run() { return must(run_pilot(model_, nest_, documents_, options_, workers_)); }

  Json report(const PilotResult& result) const {
    PilotContext context;
    context.nest_path = "my nest";
    context.texts = {"text.txt"};
    context.threads = 2;
    context.preparation_seconds = recorded_seconds(nest_);
    return pilot_json(model_, nest_, result, options_, context);
  }

  Model model_ = tiny_model();
  Nest nest_ = identity_nest(model_, 64);
  Workers workers_{2};
  std::vector<std::string> documents_;
  PilotOptions options_;
};

TEST_F(Pilot, MeasuresAllParts) {
  const PilotResult result = run();
  ASSERT_TRUE(result.recommended);
  const QualityPoint& chosen = result.quality[*result.recommended];
  EXPECT_LE(chosen.perplexity_increase(0), 0.2);
  ASSERT_EQ(result.speed.size(), 3u);
  EXPECT_EQ(result.speed[0].budget, "exact");
  EXPECT_EQ(result.speed[1].budget, chosen.budget);
  for (const SpeedSeries& series : result.speed) {
    ASSERT_EQ(series.depths.size(), 2u);  // 100000 is beyond the model's limit
    EXPECT_EQ(series.depths[1].depth, 256u);
    EXPECT_EQ(series.depths[1].decode.values.size(), 2u);
    EXPECT_GT(series.depths[1].decode.median(), 0);
  }
  EXPECT_LT(result.speed[2].depths[1].kv_bytes, result.speed[0].depths[1].kv_bytes);
  ASSERT_EQ(result.answers.size(), 2u);
  for (const AnswerSet& set : result.answers) {
    ASSERT_EQ(set.answers.size(), 4u);
    EXPECT_EQ(set.answers.front().differs, "");
    EXPECT_EQ(set.answers.back().budget, "q4_0");
    for (const Answer& answer : set.answers) {
      EXPECT_LE(answer.agreed_tokens, answer.tokens);
      EXPECT_TRUE(set.answers.front().agreed.starts_with(answer.agreed)) << answer.agreed;
    }
  }
  EXPECT_GT(result.quality_seconds, 0);
}

TEST_F(Pilot, ReportsTheRecommendationAndItsFlags) {
  nest_.origin() = {{"fit_seconds", "90"}, {"search_seconds", "30"}, {"tokens", "5"}};
  const PilotResult result = run();
  const Json json = report(result);
  const Json& chosen = json.at("recommended");
  const std::string budget = chosen.at("budget");
  EXPECT_EQ(chosen.at("flags"), "--nest 'my nest' --budget " + budget);
  EXPECT_EQ(must(rung_for_budget(nest_, budget)), chosen.at("rung").get<size_t>());
  EXPECT_EQ(json.at("preparation").at("seconds"), 120);
  EXPECT_EQ(json.at("quality").size(), result.quality.size());
  EXPECT_FALSE(json.at("quality")[0].contains("rung"));
  EXPECT_EQ(json.at("quality")[3].at("ranks").size(), nest_.spaces());
  EXPECT_EQ(json.at("nest").at("full_slabs").size(), nest_.spaces());
  EXPECT_EQ(json.at("model").at("exact_bytes_per_token"),
            json.at("quality")[0].at("kv_bytes_per_token"));
}

TEST_F(Pilot, SaysWhenNothingKeepsTheTolerance) {
  options_.quality.tolerance = 0;
  options_.quality.shares = {0.1};
  options_.answers.tokens = 2;
  const PilotResult result = run();
  EXPECT_FALSE(result.recommended);
  ASSERT_EQ(result.speed.size(), 2u);  // exact and the largest
  const Json json = report(result);
  EXPECT_TRUE(json.at("recommended").is_null());
  EXPECT_TRUE(json.at("preparation").at("seconds").is_null());
}

TEST_F(Pilot, AShortTextHasNoAnswers) {
  options_.windows.context = 32;
  options_.answers.excerpt_tokens = 300;
  documents_ = {std::string(100, 'a')};
  EXPECT_TRUE(run().answers.empty());
  documents_ = {"a"};
  EXPECT_FALSE(run_pilot(model_, nest_, documents_, options_, workers_));
}

TEST(PilotPage, HoldsTheReportAndNothingOfTheTextIsMarkup) {
  const Json json{{"answer", "</script><script>alert(1)</script> /*{page.js}*/ <!-- \xE2\x82\xAC"}};
  const std::string page = must(pilot_page(json));
  EXPECT_THAT(page, HasSubstr("\\u003c/script>\\u003cscript>alert(1)"));
  EXPECT_THAT(page, Not(HasSubstr("<script>alert(1)")));
  EXPECT_THAT(page, HasSubstr("/*{page.js}*/ \\u003c!--"));  // the report's own, left alone
  EXPECT_THAT(page, HasSubstr("function drawAll"));
  EXPECT_THAT(page, HasSubstr("prefers-color-scheme"));
  EXPECT_THAT(page, Not(HasSubstr("/*{page.css}*/")));
  EXPECT_THAT(page, Not(HasSubstr("src=")));
  EXPECT_THAT(page, Not(HasSubstr("http")));
}

TEST(RecordedSeconds, AreThoseOfTheOrigin) {
  const Model model = tiny_model();
  Nest nest = identity_nest(model, 0);
  EXPECT_LT(recorded_seconds(nest), 0);
  nest.origin() = {{"fit_seconds", "12.5"}, {"train_seconds", "lots"}, {"seconds", "7"}};
  EXPECT_EQ(recorded_seconds(nest), 12.5);
}

}  // namespace
}  // namespace mkv
