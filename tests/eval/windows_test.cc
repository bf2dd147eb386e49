#include "eval/windows.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace mkv {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr TokenId kBos = 1000;

// One token a byte, BOS in front when asked.
class ByteTokenizer : public Tokenizer {
 public:
  explicit ByteTokenizer(bool add_bos) {
    special_.bos = kBos;
    special_.add_bos = add_bos;
  }
  Result<std::vector<TokenId>> encode(std::string_view text,
                                      const EncodeOptions& options) const override {
    EXPECT_FALSE(options.parse_special);
    std::vector<TokenId> tokens;
    if (options.add_special && special_.add_bos) tokens.push_back(kBos);
    for (const char c : text) tokens.push_back(static_cast<TokenId>(c));
    return tokens;
  }
  std::string decode(TokenId, bool) const override { return {}; }
  size_t vocab_size() const override { return 1001; }
  const SpecialTokens& special() const override { return special_; }
  std::optional<TokenId> find(std::string_view) const override { return std::nullopt; }
  std::string decode_all(std::span<const TokenId>, bool) const override { return {}; }

 private:
  SpecialTokens special_;
};

Result<Windows> cut(bool add_bos, const std::vector<std::string>& documents,
                    const WindowOptions& options) {
  return make_windows(ByteTokenizer(add_bos), documents, options);
}

TEST(Windows, DropsOneLineFeedAndTheTail) {
  const auto windows = cut(false, {"abcdefghi\n\n"}, {.context = 5, .limit = 0});
  ASSERT_TRUE(windows);
  EXPECT_EQ(windows->count(), 2u);  // nine letters and one line feed
  EXPECT_THAT(windows->window(1), ElementsAre('f', 'g', 'h', 'i', '\n'));
  const auto shorter = cut(false, {"abcdefghi\n"}, {.context = 5, .limit = 0});
  EXPECT_EQ(shorter->count(), 1u);
}

TEST(Windows, BosReplacesTheFirstTokenOfEveryWindow) {
  const auto windows = cut(true, {"abcdefghi"}, {.context = 5, .limit = 0});
  ASSERT_TRUE(windows);
  EXPECT_THAT(windows->window(0), ElementsAre(kBos, 'a', 'b', 'c', 'd'));
  EXPECT_THAT(windows->window(1), ElementsAre(kBos, 'f', 'g', 'h', 'i'));  // BOS for 'e'
}

TEST(Windows, SecondHalfIsScored) {
  const auto windows = cut(false, {"abcdefghijkl"}, {.context = 6, .limit = 1});
  ASSERT_TRUE(windows);
  EXPECT_EQ(windows->count(), 1u);
  EXPECT_EQ(windows->first_scored(), 3u);
  EXPECT_EQ(windows->scored(), 2u);  // llama.cpp: context - 1 - context / 2, 255 of 512
  EXPECT_EQ(windows->targets(0)[0], 'e');
  EXPECT_EQ(windows->targets(0)[1], 'f');
}

TEST(Windows, DocumentsAreJoinedInOrder) {
  const auto windows = cut(true, {"abc\n", "de"}, {.context = 7, .limit = 0});
  ASSERT_TRUE(windows);
  EXPECT_THAT(windows->window(0), ElementsAre(kBos, 'a', 'b', 'c', kBos, 'd', 'e'));
}

TEST(Windows, ShortTextNamesBothNumbers) {
  const auto windows = cut(false, {"abcdef"}, {.context = 1024, .limit = 8});
  ASSERT_FALSE(windows);
  EXPECT_THAT(windows.error().message, HasSubstr("6 tokens"));
  EXPECT_THAT(windows.error().message, HasSubstr("1024"));
}

TEST(Windows, TinyContextIsAnError) {
  for (const size_t context : {0u, 1u, 3u}) {
    const auto windows = cut(false, {"abcdef"}, {.context = context, .limit = 0});
    ASSERT_FALSE(windows);
    EXPECT_EQ(windows.error().code, ErrorCode::invalid_argument);
  }
}

}  // namespace
}  // namespace mkv
