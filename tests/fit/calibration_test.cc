#include "fit/calibration.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "eval/tiny_model.h"

namespace mkv {
namespace {

using ::testing::HasSubstr;

std::vector<std::string> stories() {
  std::vector<std::string> out;
  for (size_t i = 0; i < 20; ++i) {
    std::string text;
    for (size_t j = 0; j < 20 + 60 * (i % 4); ++j) {
      text += "Story " + std::to_string(i) + " sentence " + std::to_string(j) + ". ";
    }
    out.push_back(text);
  }
  return out;
}

TEST(Calibration, CutsToTheBudgetAndTheWindow) {
  const Model model = tiny_model();
  const CalibrationOptions options{.window = 64, .tokens = 1000, .least = 16, .seed = 1};
  const Sequences got = must(calibration_sequences(model.tokenizer(), stories(), options));
  EXPECT_EQ(count_tokens(got), 1000u);
  for (const auto& sequence : got) EXPECT_LE(sequence.size(), 64u);
  // The first round takes one window of each document.
  EXPECT_GE(got.size(), 15u);
}

TEST(Calibration, SeedDecidesTheOrder) {
  const Model model = tiny_model();
  CalibrationOptions options{.window = 64, .tokens = 500, .least = 16, .seed = 1};
  const Sequences one = must(calibration_sequences(model.tokenizer(), stories(), options));
  EXPECT_EQ(one, must(calibration_sequences(model.tokenizer(), stories(), options)));
  options.seed = 2;
  EXPECT_NE(one, must(calibration_sequences(model.tokenizer(), stories(), options)));
}

TEST(Calibration, TooLittleTextIsAnError) {
  const Model model = tiny_model();
  const std::vector<std::string> documents{"short", "", "also short"};
  const auto got = calibration_sequences(model.tokenizer(), documents, {});
  ASSERT_FALSE(got);
  EXPECT_THAT(got.error().message, HasSubstr("none of 3 documents"));
  EXPECT_FALSE(calibration_sequences(model.tokenizer(), {}, {}));
  EXPECT_FALSE(calibration_sequences(model.tokenizer(), stories(), {.window = 8, .least = 16}));
}

}  // namespace
}  // namespace mkv
