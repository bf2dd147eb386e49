#include "text/utf8.h"

#include <gtest/gtest.h>

#include "base/rng.h"

namespace mkv {
namespace {

constexpr char kBad[] = "\xEF\xBF\xBD";  // U+FFFD

TEST(Utf8, ReadsCodePointsAndRefusesWhatIsNotOne) {
  EXPECT_EQ(code_point_at("\xC3\xA9", 0).value, U'\u00E9');
  EXPECT_EQ(code_point_at("\xF0\x9F\x98\x80", 0).value, U'\U0001F600');
  for (const char* bad :
       {"\x80", "\xC0\x80", "\xC1\xBF", "\xE0\x80\x80", "\xED\xA0\x80", "\xF0\x80\x80\x80",
        "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF", "\xE2\x82", "\xF0\x9F\x98"}) {
    EXPECT_FALSE(code_point_at(bad, 0).valid) << bad;
    EXPECT_EQ(code_point_at(bad, 0).bytes, 1) << bad;
    EXPECT_FALSE(is_valid_utf8(bad)) << bad;
  }
  EXPECT_EQ(code_point_at("", 0).bytes, 0);
  EXPECT_EQ(code_point_before("a\xE2\x82\xAC", 4).value, U'\u20AC');
  EXPECT_FALSE(code_point_before("a\x82\xAC", 3).valid);
  EXPECT_EQ(code_point_before("", 0).bytes, 0);
}

TEST(Utf8, WritesWhatItReads) {
  for (char32_t c = 0; c <= 0x10FFFF; c += c < 0x10000 ? 1 : 97) {
    if (c >= 0xD800 && c < 0xE000) continue;
    std::string text;
    append_utf8(text, c);
    const CodePoint read = code_point_at(text, 0);
    ASSERT_TRUE(read.valid);
    ASSERT_EQ(read.value, c);
    ASSERT_EQ(read.bytes, text.size());
  }
}

TEST(Utf8, RunsCoverTheText) {
  const std::string text = std::string("ab\xFF\xFE") + "\xC3\xA9" + "\xE2\x82";
  const std::vector<Utf8Run> runs = utf8_runs(text);
  ASSERT_EQ(runs.size(), 4u);
  EXPECT_EQ(runs[0].text, "ab");
  EXPECT_FALSE(runs[1].valid);
  EXPECT_EQ(runs[2].text, "\xC3\xA9");
  EXPECT_EQ(runs[3].text, "\xE2\x82");
}

TEST(Utf8Stream, HoldsBackWhatIsNotComplete) {
  Utf8Stream stream;
  EXPECT_EQ(stream.push("a\xF0"), "a");
  EXPECT_EQ(stream.push("\x9F\x98"), "");
  EXPECT_EQ(stream.push("\x80"
                        "b"),
            "\xF0\x9F\x98\x80"
            "b");
  EXPECT_EQ(stream.push("\xE2\x82"), "");
  EXPECT_EQ(stream.finish(), kBad);
  EXPECT_EQ(stream.finish(), "");
}

TEST(Utf8Stream, ReplacesEachMaximalPartOnce) {
  // The examples of the Unicode standard, chapter 3, tables 3-8 and 3-11.
  EXPECT_EQ(replace_invalid_utf8("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41"),
            std::string(kBad) + kBad + kBad + kBad + kBad + kBad + kBad + kBad + "A");
  EXPECT_EQ(replace_invalid_utf8("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41"),
            std::string(kBad) + kBad + kBad + kBad + "A");
}

TEST(Utf8Stream, SplitsDoNotMatter) {
  Rng rng(7);
  for (int round = 0; round < 2000; ++round) {
    std::string bytes;
    for (size_t i = rng.below(24); i > 0; --i) {
      if (rng.below(3) == 0) append_utf8(bytes, static_cast<char32_t>(0xA0 + rng.below(0xD000)));
      bytes += static_cast<char>(rng.below(256));
    }
    Utf8Stream stream;
    std::string text;
    for (size_t at = 0; at < bytes.size();) {
      const size_t size = 1 + rng.below(4);
      const std::string part = stream.push(std::string_view(bytes).substr(at, size));
      ASSERT_TRUE(is_valid_utf8(part));
      text += part;
      at += size;
    }
    text += stream.finish();
    ASSERT_EQ(text, replace_invalid_utf8(bytes));
    if (is_valid_utf8(bytes)) {
      ASSERT_EQ(text, bytes);
    }
  }
}

}  // namespace
}  // namespace mkv
