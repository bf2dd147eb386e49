#include "engine/stop_strings.h"

#include <gtest/gtest.h>

#include "base/rng.h"

namespace mkv {
namespace {

TEST(StopStringsTest, NothingIsHeldWithoutStops) {
  StopStrings stops({});
  EXPECT_EQ(stops.push("abc"), "abc");
  EXPECT_EQ(stops.finish(), "");
}

TEST(StopStringsTest, HoldsWhatMayBegin) {
  StopStrings stops({"END"});
  EXPECT_EQ(stops.push("the E"), "the ");
  EXPECT_EQ(stops.push("N"), "");
  EXPECT_EQ(stops.push("Emy"), "ENEmy");
  EXPECT_EQ(stops.push(" EN"), " ");
  EXPECT_EQ(stops.finish(), "EN");
  EXPECT_FALSE(stops.found());
}

TEST(StopStringsTest, StopsInFrontOfTheFirst) {
  StopStrings stops({"two", "one", ""});
  EXPECT_EQ(stops.push("zero on"), "zero ");
  EXPECT_EQ(stops.push("e two"), "");
  EXPECT_TRUE(stops.found());
  EXPECT_EQ(stops.push("more"), "");
  EXPECT_EQ(stops.finish(), "");
}

TEST(StopStringsTest, OverlappingBeginnings) {
  StopStrings stops({"aab"});
  EXPECT_EQ(stops.push("aa"), "");
  EXPECT_EQ(stops.push("a"), "a");
  EXPECT_EQ(stops.push("b"), "");
  EXPECT_TRUE(stops.found());
}

// However the text is cut, the result is that of the whole.
TEST(StopStringsTest, CutsDoNotMatter) {
  Rng rng(3);
  for (int round = 0; round < 500; ++round) {
    std::string text;
    for (size_t i = rng.below(24); i > 0; --i) text += static_cast<char>('a' + rng.below(2));
    const std::string stop = std::string("abbab").substr(0, 1 + rng.below(5));
    StopStrings stops({stop});
    std::string out;
    for (size_t at = 0; at < text.size();) {
      const size_t n = 1 + rng.below(3);
      out += stops.push(std::string_view(text).substr(at, n));
      at += n;
    }
    out += stops.finish();
    EXPECT_EQ(out, text.substr(0, text.find(stop))) << text << " / " << stop;
  }
}

}  // namespace
}  // namespace mkv
