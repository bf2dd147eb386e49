#include "text/tokenizer.h"

#include <ctime>
#include <set>

#include "base/rng.h"
#include "golden.h"
#include "text/byte_chars.h"
#include "text/utf8.h"

namespace mkv {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Ids = std::vector<TokenId>;

// Byte-level BPE with all 256 bytes (their own ids), a few merges, and whatever a test adds.
TokenizerData byte_data() {
  TokenizerData data;
  for (int byte = 0; byte < 256; ++byte) {
    data.tokens.push_back(bytes_to_chars(std::string(1, static_cast<char>(byte))));
  }
  for (const auto& [left, right] :
       {std::pair{"a", "b"}, {"ab", "c"}, {"b", "c"}, {"a", "a"}, {"aa", "aa"}, {"aaaa", "aaaa"}}) {
    data.merges.emplace_back(left, right);
    data.tokens.push_back(std::string(left) + right);
  }
  data.types.assign(data.tokens.size(), TokenType::normal);
  data.pre_tokenizer = {split_isolated(kGpt2Pattern)};
  return data;
}

AddedToken& add_token(TokenizerData& data, const std::string& content, bool special) {
  AddedToken& token = data.added.emplace_back();
  token.id = static_cast<TokenId>(data.tokens.size());
  token.content = content;
  token.special = special;
  data.tokens.push_back(content);
  data.types.push_back(special ? TokenType::control : TokenType::user_defined);
  return token;
}

std::unique_ptr<Tokenizer> make(TokenizerData data) {
  Result<std::unique_ptr<Tokenizer>> tokenizer = make_tokenizer(std::move(data));
  EXPECT_TRUE(tokenizer) << (tokenizer ? "" : tokenizer.error().message);
  return tokenizer ? *std::move(tokenizer) : nullptr;
}

// The written forms of the tokens of a text.
std::vector<std::string> pieces(const Tokenizer& tokenizer, std::string_view text,
                                bool parse_special = true) {
  const Result<Ids> ids =
      tokenizer.encode(text, {.add_special = false, .parse_special = parse_special});
  EXPECT_TRUE(ids);
  std::vector<std::string> out;
  for (const TokenId id : *ids) out.push_back(tokenizer.decode(id, true));
  return out;
}

std::string random_bytes(Rng& rng, size_t size) {
  std::string bytes;
  while (bytes.size() < size) {
    switch (rng.below(4)) {
      case 0:
        bytes += static_cast<char>(rng.below(256));
        break;
      case 1:
        append_utf8(bytes, static_cast<char32_t>(rng.below(0xD800)));
        break;
      case 2:
        bytes += " \n\t'a1"[rng.below(6)];
        break;
      default:
        bytes += static_cast<char>('a' + rng.below(3));
    }
  }
  return bytes;
}

TEST(Tokenizer, MergesByRank) {
  const auto tokenizer = make(byte_data());
  EXPECT_THAT(pieces(*tokenizer, "abc"), ElementsAre("abc"));
  EXPECT_THAT(pieces(*tokenizer, "bcabcb"), ElementsAre("bc", "abc", "b"));
  EXPECT_THAT(pieces(*tokenizer, "aaaaa"), ElementsAre("aaaa", "a"));
  EXPECT_THAT(pieces(*tokenizer, "a bc"), ElementsAre("a", " ", "bc"));
  EXPECT_EQ(tokenizer->find("abc"), TokenId{257});
  EXPECT_EQ(tokenizer->find("zzz"), std::nullopt);
  EXPECT_EQ(tokenizer->decode(100'000, true), "");
  EXPECT_EQ(tokenizer->decode(-1, true), "");
}

TEST(Tokenizer, AnyBytesComeBack) {
  std::vector<std::unique_ptr<Tokenizer>> tokenizers;
  tokenizers.push_back(make(byte_data()));
  for (const char* name : {"llama3", "qwen3"}) {
    tokenizers.push_back(load_tokenizer(golden_path("models") / name));
    tokenizers.push_back(load_tokenizer(golden_path("models") / (std::string(name) + ".gguf")));
  }
  Rng rng(11);
  for (int round = 0; round < 400; ++round) {
    const std::string text = random_bytes(rng, rng.below(200));
    for (const auto& tokenizer : tokenizers) {
      for (const bool parse_special : {false, true}) {
        const auto ids =
            tokenizer->encode(text, {.add_special = true, .parse_special = parse_special});
        ASSERT_TRUE(ids);
        ASSERT_EQ(tokenizer->decode_all(*ids, false), text);
      }
    }
  }
}

TEST(Tokenizer, SentencePieceGivesBytesBack) {
  for (const char* name : {"llama_spm", "llama_spm.gguf"}) {
    const auto tokenizer = load_tokenizer(golden_path("models") / name);
    Rng rng(13);
    for (int round = 0; round < 400; ++round) {
      std::string text = random_bytes(rng, rng.below(100));
      if (text.find("\u2581") != std::string::npos) continue;  // stands for the space itself
      const auto ids = tokenizer->encode(text, {.add_special = true, .parse_special = true});
      ASSERT_TRUE(ids);
      ASSERT_EQ(tokenizer->decode_all(*ids, false), text) << name;
    }
    const auto ids = tokenizer->encode("<s> a</s>b", {.add_special = true, .parse_special = true});
    ASSERT_TRUE(ids);
    EXPECT_EQ(tokenizer->decode_all(*ids, false), " ab");
  }
}

TEST(Tokenizer, TextNeverBecomesASpecialTokenUnlessAsked) {
  std::vector<std::filesystem::path> paths;
  for (const char* name : {"llama", "llama3", "mistral", "qwen2", "qwen3", "llama_spm"}) {
    paths.push_back(golden_path("models") / name);
    paths.push_back(golden_path("models") / (std::string(name) + ".gguf"));
  }
  for (const auto& path : paths) {
    const auto tokenizer = load_tokenizer(path);
    const Result<TokenizerData> data = load_data(path);
    std::string all;
    std::set<TokenId> special;
    for (const AddedToken& token : data->added) {
      all += token.content + "x " + token.content;
      if (token.special) special.insert(token.id);
    }
    ASSERT_FALSE(special.empty()) << path;
    const auto ids = tokenizer->encode(all, {.add_special = false, .parse_special = false});
    ASSERT_TRUE(ids);
    for (const TokenId id : *ids) EXPECT_EQ(special.count(id), 0u) << path << " " << id;
    EXPECT_EQ(tokenizer->decode_all(*ids, false), all) << path;
  }
}

TEST(Tokenizer, AddedTokens) {
  TokenizerData data = byte_data();
  add_token(data, "<x>", true);
  add_token(data, "<x><y>", true);
  add_token(data, "wow", false);
  add_token(data, "<l>", true).left_strip = true;
  add_token(data, "<r>", true).right_strip = true;
  add_token(data, "word", false).single_word = true;
  const auto tokenizer = make(data);
  EXPECT_THAT(pieces(*tokenizer, "c<x><y>c<x>c"), ElementsAre("c", "<x><y>", "c", "<x>", "c"));
  EXPECT_THAT(pieces(*tokenizer, "<x>", false), ElementsAre("<", "x", ">"));
  EXPECT_THAT(pieces(*tokenizer, "cwowc", false), ElementsAre("c", "wow", "c"));
  EXPECT_THAT(pieces(*tokenizer, "c  <l> c"), ElementsAre("c", "<l>", " ", "c"));
  EXPECT_THAT(pieces(*tokenizer, "c <r> \n c"), ElementsAre("c", " ", "<r>", "c"));
  EXPECT_THAT(pieces(*tokenizer, "word sword"), ElementsAre("word", " ", "s", "w", "o", "r", "d"));
  EXPECT_THAT(pieces(*tokenizer, "<r>  <l>"), ElementsAre("<r>", "<l>"));
  EXPECT_EQ(tokenizer->decode(*tokenizer->find("<x>"), false), "");
  EXPECT_EQ(tokenizer->decode(*tokenizer->find("wow"), false), "wow");
}

TEST(Tokenizer, NormalizedAddedTokensMatchTheNormalizedText) {
  TokenizerData data = byte_data();
  data.normalizer.emplace_back().kind = NormalizerStep::Kind::nfc;
  add_token(data, "\u1E0B", false).normalized = true;
  add_token(data, "\u1E45", false);
  const auto tokenizer = make(data);
  EXPECT_EQ(pieces(*tokenizer, "d\u0307").size(), 1u);
  EXPECT_EQ(pieces(*tokenizer, "n\u0307").size(), 3u);  // its bytes, after NFC
}

TEST(Tokenizer, BosIsAddedWhereTheModelWantsIt) {
  TokenizerData data = byte_data();
  data.special.bos = add_token(data, "<s>", true).id;
  data.special.add_bos = true;
  const auto tokenizer = make(data);
  EXPECT_EQ(tokenizer->encode("a", {}).value(), (Ids{*data.special.bos, 'a'}));
  EXPECT_EQ(tokenizer->encode("", {}).value(), Ids{*data.special.bos});
  EXPECT_EQ(tokenizer->encode("a", {.add_special = false}).value(), Ids{'a'});
}

TEST(Tokenizer, BytesWithoutATokenAreLeftOut) {
  TokenizerData data = byte_data();
  data.tokens['q'] = "";
  const auto tokenizer = make(data);
  EXPECT_THAT(pieces(*tokenizer, "aqb"), ElementsAre("ab"));
}

TEST(Tokenizer, LongRunsTakeLittleTime) {
  const auto byte_level = make(byte_data());
  const auto sentencepiece = load_tokenizer(golden_path("models/llama_spm.gguf"));
  for (const std::string_view unit : {"a", " ", "\n", "0", "!", "\xFF", "abc ", "<|", "\u00E9"}) {
    std::string text;
    while (text.size() < 1'000'000) text += unit;
    for (const Tokenizer* tokenizer : {byte_level.get(), sentencepiece.get()}) {
      const std::clock_t start = std::clock();  // not the wall's: machines may be busy
      const auto ids = tokenizer->encode(text, {.add_special = false, .parse_special = true});
      const double seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
      ASSERT_TRUE(ids) << ids.error().message;
      EXPECT_EQ(tokenizer->decode_all(*ids, true), text);
      EXPECT_LT(seconds, 30) << unit;  // quadratic would be hours
    }
  }
}

std::string error_of(TokenizerData data) {
  const auto tokenizer = make_tokenizer(std::move(data));
  return tokenizer ? "" : tokenizer.error().message;
}

TEST(Tokenizer, BadDataIsAnError) {
  EXPECT_THAT(error_of({}), HasSubstr("empty"));
  TokenizerData data = byte_data();
  data.types.pop_back();
  EXPECT_THAT(error_of(data), HasSubstr("262 tokens, but 261 token types"));
  data = byte_data();
  data.types[3] = static_cast<TokenType>(9);
  EXPECT_THAT(error_of(data), HasSubstr("token 3 has the unknown type 9"));
  data = byte_data();
  data.merges.emplace_back("a", "zz");
  EXPECT_THAT(error_of(data), HasSubstr("merge 6 (\"a\" \"zz\")"));
  data = byte_data();
  data.tokens[7] = "a";
  EXPECT_THAT(error_of(data), HasSubstr("written alike"));
  data = byte_data();
  data.special.eos = 262;
  EXPECT_THAT(error_of(data), HasSubstr("eos is token 262, but there are 262 tokens"));
  data = byte_data();
  data.special.add_bos = true;
  EXPECT_THAT(error_of(data), HasSubstr("BOS"));
  data = byte_data();
  data.added.push_back({.id = -1, .content = "x"});
  EXPECT_THAT(error_of(data), HasSubstr("-1"));
  data = byte_data();
  data.added.push_back({.id = 1, .content = std::string(5000, 'x')});
  EXPECT_THAT(error_of(data), HasSubstr("5000 bytes"));
  data = byte_data();
  data.pre_tokenizer = {split_isolated("(")};
  EXPECT_THAT(error_of(data), HasSubstr("does not compile"));
  data = byte_data();
  data.model = TokenizerModel::sentencepiece;
  EXPECT_THAT(error_of(data), HasSubstr("scores"));
  data.scores.assign(data.tokens.size(), 0);
  EXPECT_THAT(error_of(data), HasSubstr("no token for byte"));
}

}  // namespace
}  // namespace mkv
