// What tokenizer.json may ask for, and what is refused.
#include "text/tokenizer_loading.h"

#include "golden.h"

namespace mkv {
namespace {

using ::testing::HasSubstr;

class HfFolder : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto* const test = ::testing::UnitTest::GetInstance()->current_test_info();
    folder_ = std::filesystem::path(testing::TempDir()) / (std::string("mkv_hf_") + test->name());
    std::filesystem::create_directories(folder_);
    tokenizer_ = OrderedJson::parse(read_text(golden_path("models/llama3/tokenizer.json")));
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  void write(const std::string& name, const std::string& text) {
    std::ofstream(folder_ / name, std::ios::binary) << text;
  }
  Result<TokenizerData> load() {
    write("tokenizer.json", tokenizer_.dump());
    return tokenizer_data_from_hf(folder_);
  }
  std::string load_error() {
    const Result<TokenizerData> data = load();
    return data ? "" : data.error().message;
  }

  std::filesystem::path folder_;
  OrderedJson tokenizer_;
};

TEST_F(HfFolder, TokenizerJsonAloneIsEnough) {
  const Result<TokenizerData> data = load();
  ASSERT_TRUE(data) << data.error().message;
  EXPECT_EQ(data->model, TokenizerModel::byte_bpe);
  EXPECT_TRUE(data->ignore_merges);
  EXPECT_TRUE(data->special.add_bos);
  EXPECT_TRUE(data->chat_template.empty());
}

TEST_F(HfFolder, UnsupportedPartsAreNamed) {
  const auto with = [this](const char* part, const char* json) {
    const OrderedJson kept = tokenizer_[part];
    tokenizer_[part] = OrderedJson::parse(json);
    const std::string error = load_error();
    tokenizer_[part] = kept;
    return error;
  };
  EXPECT_THAT(with("normalizer", R"({"type": "Precompiled"})"), HasSubstr("Precompiled"));
  EXPECT_THAT(with("normalizer", R"({"type":"Replace","pattern":{"Regex":"a+"},"content":"b"})"),
              HasSubstr("Regex"));
  EXPECT_THAT(with("pre_tokenizer", R"({"type": "UnicodeScripts"})"), HasSubstr("UnicodeScripts"));
  EXPECT_THAT(with("pre_tokenizer", R"({"type":"Sequence","pretokenizers":[
                   {"type":"ByteLevel"},{"type":"Digits"}]})"),
              HasSubstr("Digits after ByteLevel"));
  EXPECT_THAT(with("pre_tokenizer", R"({"type":"Split","pattern":{"String":"a"},
                   "behavior":"Sideways"})"),
              HasSubstr("Sideways"));
  EXPECT_THAT(with("post_processor", R"({"type": "BertProcessing"})"), HasSubstr("BertProcessing"));
  EXPECT_THAT(with("post_processor", R"({"type":"TemplateProcessing","single":[
                   {"Sequence":{"id":"A"}},{"SpecialToken":{"id":"</s>"}}],"special_tokens":{}})"),
              HasSubstr("TemplateProcessing"));
  EXPECT_THAT(with("model", R"({"type": "Unigram", "vocab": []})"), HasSubstr("Unigram"));
  EXPECT_THAT(with("model", R"({"type": "BPE", "dropout": 0.1})"), HasSubstr("dropout"));
  EXPECT_THAT(with("model", R"({"type": "BPE", "end_of_word_suffix": "</w>"})"),
              HasSubstr("end_of_word_suffix"));
  EXPECT_THAT(with("model", R"({"type": "BPE", "vocab": {"a": 99999999}, "merges": []})"),
              HasSubstr("99999999"));
  EXPECT_THAT(with("model", R"({"type": "BPE", "vocab": {"a": 1, "b": 1}, "merges": []})"),
              HasSubstr("id 1 is both"));
  EXPECT_THAT(with("model", R"({"type": "BPE", "vocab": {"a": -1}, "merges": []})"),
              HasSubstr("vocab a"));
  EXPECT_THAT(with("model", R"({"type": "BPE", "vocab": {"a": 0}, "merges": ["a"]})"),
              HasSubstr("merge 0"));
  EXPECT_THAT(with("added_tokens", R"([{"id": 1}])"), HasSubstr("content"));
  for (const char* json : {"3", "[]", "\"x\"", "{}"}) {
    EXPECT_NE(with("model", json), "") << json;
    EXPECT_NE(with("pre_tokenizer", json), "") << json;
  }
  EXPECT_EQ(load_error(), "");
}

TEST_F(HfFolder, BothFormsOfMerges) {
  for (OrderedJson& merge : tokenizer_["model"]["merges"]) {
    if (merge.is_string()) {
      const std::string text = merge.get<std::string>();
      merge = {text.substr(0, text.find(' ')), text.substr(text.find(' ') + 1)};
    } else {
      merge = merge[0].get<std::string>() + " " + merge[1].get<std::string>();
    }
  }
  const Result<TokenizerData> other = load();
  ASSERT_TRUE(other);
  EXPECT_EQ(other->merges, load_data(golden_path("models/llama3"))->merges);
}

TEST_F(HfFolder, ConfigFiles) {
  const std::string known = tokenizer_["added_tokens"][0]["content"].get<std::string>();
  const OrderedJson config = {
      {"eos_token", {{"content", known}}},
      {"chat_template",
       {{{"name", "tool"}, {"template", "T"}}, {{"name", "default"}, {"template", "D"}}}}};
  write("tokenizer_config.json", config.dump());
  write("generation_config.json", R"({"eos_token_id": [5, 6]})");
  Result<TokenizerData> data = load();
  ASSERT_TRUE(data) << data.error().message;
  EXPECT_EQ(data->chat_template, "D");
  EXPECT_EQ(data->tokens[static_cast<size_t>(*data->special.eos)], known);
  EXPECT_THAT(data->special.end_of_generation,
              testing::IsSupersetOf({TokenId{5}, TokenId{6}, *data->special.eos}));
  write("chat_template.jinja", "J");
  EXPECT_EQ(load()->chat_template, "J");
  write("generation_config.json", R"({"eos_token_id": 4000})");
  EXPECT_THAT(load_error(), HasSubstr("4000"));
  write("generation_config.json", "{");
  EXPECT_THAT(load_error(), HasSubstr("generation_config.json"));
  write("generation_config.json", "{}");
  write("tokenizer_config.json", R"({"eos_token": "<nowhere>"})");
  EXPECT_THAT(load_error(), HasSubstr("<nowhere>"));
}

TEST_F(HfFolder, MissingFolder) {
  const Result<TokenizerData> data = tokenizer_data_from_hf(folder_ / "none");
  ASSERT_FALSE(data);
  EXPECT_THAT(data.error().message, HasSubstr("tokenizer.json"));
}

TEST(GgufTokenizer, SpecialTokens) {
  const Result<TokenizerData> data = load_data(golden_path("models/llama.gguf"));
  ASSERT_TRUE(data) << data.error().message;
  ASSERT_TRUE(data->special.eos);
  EXPECT_THAT(data->special.end_of_generation, ::testing::Contains(*data->special.eos));
  EXPECT_FALSE(data->chat_template.empty());
}

TEST(GgufTokenizer, NoTokenizerIsAnError) {
  const std::string header = std::string("GGUF\x03\0\0\0", 8) + std::string(16, '\0');
  const auto file = GgufFile::parse(std::as_bytes(std::span(header)), "empty.gguf");
  ASSERT_TRUE(file) << file.error().message;
  const Result<TokenizerData> data = tokenizer_data_from_gguf(*file);
  ASSERT_FALSE(data);
  EXPECT_THAT(data.error().message, HasSubstr("tokenizer.ggml.model"));
}

}  // namespace
}  // namespace mkv
