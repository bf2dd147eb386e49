#include "base/result.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>

namespace mkv {
namespace {

Result<int> half(int n) {
  if (n % 2 != 0) return make_error(ErrorCode::invalid_argument, std::to_string(n) + " is odd");
  return n / 2;
}

Result<void> check_even(int n) {
  MKV_TRY(half(n));
  return {};
}

Result<std::string> quarter(int n) {
  MKV_ASSIGN(const int first, half(n));
  int second = 0;
  MKV_ASSIGN(second, half(first));
  MKV_TRY(check_even(4));
  return std::to_string(second);
}

TEST(Result, CarriesAValueOrAnError) {
  EXPECT_EQ(*half(8), 4);
  EXPECT_TRUE(half(8).has_value());
  const auto odd = half(7);
  ASSERT_FALSE(odd);
  EXPECT_EQ(odd.error().code, ErrorCode::invalid_argument);
  EXPECT_EQ(odd.error().message, "7 is odd");
}

TEST(Result, MacrosPassErrorsOn) {
  EXPECT_EQ(*quarter(12), "3");
  EXPECT_EQ(quarter(12)->size(), 1u);
  EXPECT_EQ(quarter(7).error().message, "7 is odd");
  EXPECT_EQ(quarter(6).error().message, "3 is odd");
  EXPECT_TRUE(check_even(2));
  EXPECT_EQ(check_even(3).error().message, "3 is odd");
}

TEST(Result, MovesWhatCannotBeCopied) {
  Result<std::unique_ptr<int>> result(std::make_unique<int>(3));
  const std::unique_ptr<int> value = *std::move(result);
  EXPECT_EQ(*value, 3);
}

TEST(Result, ContextGoesInFront) {
  const Error error = in_context("a.gguf", in_context("key k", half(5).error()));
  EXPECT_EQ(error.message, "a.gguf: key k: 5 is odd");
  EXPECT_EQ(error.code, ErrorCode::invalid_argument);
}

TEST(ResultDeathTest, AskingForWhatIsNotThereIsABug) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(static_cast<void>(half(7).value()), "result.h:.*internal error");
  EXPECT_DEATH(static_cast<void>(half(8).error()), "internal error");
  EXPECT_DEATH(static_cast<void>(Result<void>().error()), "internal error");
}

}  // namespace
}  // namespace mkv
