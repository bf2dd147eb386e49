// Against the `tokenizers` library: see tests/golden/make_tokenizer_cases.py.
#include "golden.h"

namespace mkv {
namespace {

using Ids = std::vector<TokenId>;

// One case through one tokenizer. `without_nfc`: a GGUF does not say that its model wants NFC.
void check_case(const Tokenizer& tokenizer, const OrderedJson& entry, bool without_nfc) {
  const auto expected = [&](const std::string& key) {
    const std::string nfc_free = key + "_without_nfc";
    return entry.at(without_nfc && entry.contains(nfc_free) ? nfc_free : key).get<Ids>();
  };
  const std::string text = entry.at("text").get<std::string>();
  SCOPED_TRACE(entry.at("name").get<std::string>());
  const Result<Ids> ids = tokenizer.encode(text, {.add_special = false, .parse_special = false});
  ASSERT_TRUE(ids) << ids.error().message;
  EXPECT_EQ(*ids, expected("ids"));
  const Result<Ids> special = tokenizer.encode(text, {.add_special = false, .parse_special = true});
  ASSERT_TRUE(special) << special.error().message;
  EXPECT_EQ(*special, expected(entry.contains("ids_special") ? "ids_special" : "ids"));
  const bool changed = entry.contains("ids_without_nfc") && without_nfc;
  const std::string decoded = entry.value("decoded", text);
  if (!changed) {
    EXPECT_EQ(tokenizer.decode_all(*ids, true), decoded);
  }
}

class TokenizerGolden : public ::testing::TestWithParam<std::string> {};

void check_all(const std::string& name, const std::filesystem::path& path) {
  const std::unique_ptr<Tokenizer> tokenizer = load_tokenizer(path);
  ASSERT_NE(tokenizer, nullptr);
  const OrderedJson golden = read_golden("tokenizer/" + name + ".json");
  EXPECT_EQ(tokenizer->special().add_bos, golden.at("adds_bos").get<bool>());
  ASSERT_GE(golden.at("cases").size(), 50u);
  for (const OrderedJson& entry : golden.at("cases")) {
    check_case(*tokenizer, entry, path.extension() == ".gguf");
  }
}

TEST_P(TokenizerGolden, FromFolder) { check_all(GetParam(), golden_path("models") / GetParam()); }

TEST_P(TokenizerGolden, FromGguf) {
  check_all(GetParam(), golden_path("models") / (GetParam() + ".gguf"));
}

INSTANTIATE_TEST_SUITE_P(TinyModels, TokenizerGolden,
                         ::testing::Values("llama", "llama3", "mistral", "qwen2", "qwen3",
                                           "llama_spm", "gemma3"),
                         [](const auto& test) { return test.param; });

TEST(TokenizerGoldenReal, SmolLm2) {
  if (smollm2_path().empty()) GTEST_SKIP() << "no SmolLM2 in ~/.cache/mkv-models: get_model.sh";
  check_all("smollm2", smollm2_path());
}

TEST(TokenizerGoldenReal, Gemma3) {
  if (gemma3_path().empty()) GTEST_SKIP() << "no Gemma 3 in ~/.cache/mkv-models: get_model.sh";
  check_all("gemma3_270m", gemma3_path());
}

}  // namespace
}  // namespace mkv
