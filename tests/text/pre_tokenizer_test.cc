#include "text/pre_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "text/normalizer.h"

namespace mkv {
namespace {

using ::testing::ElementsAre;
using Kind = PreTokenizerStep::Kind;

std::vector<std::string> cut(std::string_view text, std::vector<PreTokenizerStep> steps,
                             bool at_start = true) {
  const Result<PreTokenizer> pre_tokenizer = PreTokenizer::create(steps);
  EXPECT_TRUE(pre_tokenizer) << (pre_tokenizer ? "" : pre_tokenizer.error().message);
  if (!pre_tokenizer) return {};
  RegexScratch scratch;
  Pieces pieces;
  EXPECT_TRUE(pre_tokenizer->split(text, at_start, scratch, pieces));
  return {pieces.list.begin(), pieces.list.end()};
}

PreTokenizerStep split_step(std::string pattern, SplitBehavior behavior, bool invert = false) {
  PreTokenizerStep step = split_isolated(std::move(pattern));
  step.behavior = behavior;
  step.invert = invert;
  return step;
}

// The examples of the `tokenizers` documentation: "the-final--countdown" split on "-".
TEST(PreTokenizer, Behaviors) {
  const std::string text = "the-final--countdown";
  EXPECT_THAT(cut(text, {split_step("-", SplitBehavior::removed)}),
              ElementsAre("the", "final", "countdown"));
  EXPECT_THAT(cut(text, {split_step("-", SplitBehavior::isolated)}),
              ElementsAre("the", "-", "final", "-", "-", "countdown"));
  EXPECT_THAT(cut(text, {split_step("-", SplitBehavior::merged_with_previous)}),
              ElementsAre("the-", "final-", "-", "countdown"));
  EXPECT_THAT(cut(text, {split_step("-", SplitBehavior::merged_with_next)}),
              ElementsAre("the", "-final", "-", "-countdown"));
  EXPECT_THAT(cut(text, {split_step("-", SplitBehavior::contiguous)}),
              ElementsAre("the", "-", "final", "--", "countdown"));
  EXPECT_THAT(cut(text, {split_step("[a-z]+", SplitBehavior::removed, true)}),
              ElementsAre("the", "final", "countdown"));
}

TEST(PreTokenizer, DigitsAndMetaspace) {
  PreTokenizerStep digits;
  digits.kind = Kind::digits;
  EXPECT_THAT(cut("ab12\u0663c", {digits}), ElementsAre("ab", "1", "2", "\u0663", "c"));
  digits.behavior = SplitBehavior::contiguous;
  EXPECT_THAT(cut("ab12c", {digits}), ElementsAre("ab", "12", "c"));

  PreTokenizerStep space;
  space.kind = Kind::metaspace;
  space.replacement = "_";
  space.prepend = PrependScheme::first;
  EXPECT_THAT(cut("a b  c", {space}), ElementsAre("_a", "_b", "_", "_c"));
  EXPECT_THAT(cut("a b", {space}, false), ElementsAre("a", "_b"));
  EXPECT_THAT(cut(" a", {space}), ElementsAre("_a"));
  space.split_words = false;
  EXPECT_THAT(cut("a b", {space}), ElementsAre("_a_b"));
}

TEST(PreTokenizer, InvalidBytesArePiecesOfTheirOwn) {
  EXPECT_THAT(cut("ab \xFF\xFE cd", {split_isolated(kGpt2Pattern)}),
              ElementsAre("ab", " ", "\xFF\xFE", " cd"));
}

TEST(PreTokenizer, EmptyMatchesEnd) {
  EXPECT_THAT(cut("baac", {split_isolated("a*")}), ElementsAre("b", "aa", "c"));
}

TEST(PreTokenizer, NamesOfGguf) {
  for (const char* name : {"smollm", "gpt-2", "llama-bpe", "qwen2", "default"}) {
    const auto steps = pre_tokenizer_named(name);
    ASSERT_TRUE(steps) << name;
    EXPECT_THAT(cut("a bc", *steps), ElementsAre("a", " bc"));
  }
  const auto unknown = pre_tokenizer_named("chameleon");
  ASSERT_FALSE(unknown);
  EXPECT_THAT(unknown.error().message, ::testing::HasSubstr("chameleon"));
}

bool matches(const char* pattern, std::string_view text) {
  const Result<Regex> regex = Regex::compile(pattern);
  EXPECT_TRUE(regex) << (regex ? "" : regex.error().message);
  RegexScratch scratch;
  const Result<RegexMatch> match = regex->find(text, 0, scratch);
  return match && match->found && match->begin == 0 && match->end == text.size();
}

TEST(Regex, SpacesAreUnicodes) {
  for (const char* space : {" ", "\t", "\n", "\x0b", "\u0085", "\u00A0", "\u2003", "\u3000"}) {
    EXPECT_TRUE(matches(R"(\s)", space)) << space;
    EXPECT_TRUE(matches(R"([\s])", space)) << space;
    EXPECT_FALSE(matches(R"(\S)", space)) << space;
    EXPECT_FALSE(matches(R"([\S])", space)) << space;
    EXPECT_FALSE(matches(R"([^\s])", space)) << space;
  }
  EXPECT_FALSE(matches(R"(\s)", "\u180E"));  // PCRE2's own \s has it
  EXPECT_TRUE(matches(R"([^\s\p{L}])", "\u180E"));
  EXPECT_TRUE(matches(R"(\p{L}{2}\x{41}\u0042)", "abAB"));
}

TEST(Regex, RefusesWhatWouldMeanSomethingElse) {
  for (const char* pattern : {R"(\w+)", R"(\b)", R"(\h)", R"([a[bc]])", R"([[:alpha:]])",
                              R"([a&&b])", R"(\p{N}{1,3}+)", R"(\Ra)", R"(\Qa\E)"}) {
    const Result<Regex> regex = Regex::compile(pattern);
    ASSERT_FALSE(regex) << pattern;
    EXPECT_EQ(regex.error().code, ErrorCode::unsupported) << pattern;
  }
  for (const char* pattern :
       {"(", "a{2,1}", "[", "*", R"(\p{Nonsense})", R"(\)", R"(\p{)", R"(\x{)"}) {
    EXPECT_FALSE(Regex::compile(pattern)) << pattern;
  }
  EXPECT_FALSE(Regex::compile(std::string(100'000, 'a')));
}

TEST(Regex, BacktrackingEnds) {
  const Result<Regex> regex = Regex::compile("(a+)+$");
  ASSERT_TRUE(regex);
  RegexScratch scratch;
  const Result<RegexMatch> match = regex->find(std::string(64, 'a') + "b", 0, scratch);
  ASSERT_FALSE(match);
  EXPECT_EQ(match.error().code, ErrorCode::capacity);
}

std::string normal(std::string_view text, NormalizerStep::Kind kind) {
  NormalizerStep step;
  step.kind = kind;
  const Result<std::string> out = normalize(text, std::vector{step});
  return out ? *out : out.error().message;
}

TEST(Normalizer, UnicodeForms) {
  EXPECT_EQ(normal("e\u0301", NormalizerStep::Kind::nfc), "\u00E9");
  EXPECT_EQ(normal("\u00E9", NormalizerStep::Kind::nfd), "e\u0301");
  EXPECT_EQ(normal("\uFB01", NormalizerStep::Kind::nfkc), "fi");
  EXPECT_EQ(normal("\u1112\u1161\u11AB", NormalizerStep::Kind::nfc), "\uD55C");
  EXPECT_EQ(normal("\xFF"
                   "e\u0301\xC3",
                   NormalizerStep::Kind::nfc),
            "\xFF"
            "\u00E9\xC3");
}

}  // namespace
}  // namespace mkv
