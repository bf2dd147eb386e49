// The real tokenizer over all of the shared data: see tests/golden/make_tokenizer_cases.py.
#include <ctime>

#include "golden.h"
#include "text/utf8.h"

namespace mkv {
namespace {

struct Hash {
  uint64_t value = 0xcbf29ce484222325u;
  void add(TokenId id) {
    for (int shift = 0; shift < 32; shift += 8) {
      value = (value ^ ((static_cast<uint32_t>(id) >> shift) & 0xFFu)) * 0x100000001b3u;
    }
  }
  std::string hex() const {
    std::string digits;
    for (int shift = 60; shift >= 0; shift -= 4)
      digits += "0123456789abcdef"[(value >> shift) & 15];
    return digits;
  }
};

// The texts of a file as the golden file defines them.
std::vector<std::string> texts_of(const std::filesystem::path& path) {
  const std::string bytes = read_text(path);
  if (path.extension() != ".jsonl") return {bytes};
  std::vector<std::string> texts;
  for (size_t at = 0; at < bytes.size();) {
    const size_t end = std::min(bytes.find('\n', at), bytes.size());
    const std::string line = bytes.substr(at, end - at);
    at = end + 1;
    if (line.empty()) continue;
    const OrderedJson json = OrderedJson::parse(line);
    const bool has_text = json.contains("text") && json.at("text").is_string();
    texts.push_back(has_text ? json.at("text").get<std::string>() : line);
  }
  return texts;
}

// The vocabulary has no token for these bytes (control characters, unassigned planes): they are
// lost, as in the original tokenizer.
bool loses_bytes(std::string_view text) {
  return text.find_first_of("\x04\x06\x13\x14\x16\x1d\xf1\xf2") != std::string_view::npos;
}

// Returns the bytes that were encoded. `keeps_all`: decoding gives any text back.
size_t check_files(const std::filesystem::path& model, const std::string& golden_file,
                   bool keeps_all) {
  const std::unique_ptr<Tokenizer> tokenizer = load_tokenizer(model);
  if (tokenizer == nullptr) return 0;
  const OrderedJson golden = read_golden(golden_file);
  size_t total_bytes = 0;
  double seconds = 0;
  for (const auto& [name, expected] : golden.at("files").items()) {
    SCOPED_TRACE(name);
    EXPECT_TRUE(std::filesystem::exists(shared_data_path() / name));
    size_t count = 0;
    Hash hash;
    for (const std::string& text : texts_of(shared_data_path() / name)) {
      const std::clock_t start = std::clock();  // not the wall's: machines may be busy
      const auto ids = tokenizer->encode(text, {.add_special = false, .parse_special = false});
      seconds += static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
      EXPECT_TRUE(ids) << ids.error().message;
      if (!ids) return 0;
      count += ids->size();
      total_bytes += text.size();
      for (const TokenId id : *ids) hash.add(id);
      if (keeps_all || !loses_bytes(text)) {
        EXPECT_EQ(tokenizer->decode_all(*ids, true), text);
      }
    }
    EXPECT_EQ(count, expected.at("ids").get<size_t>());
    EXPECT_EQ(hash.hex(), expected.at("fnv1a64").get<std::string>());
  }
  ::testing::Test::RecordProperty("bytes", std::to_string(total_bytes));
  ::testing::Test::RecordProperty("encode_seconds", std::to_string(seconds));
  return total_bytes;
}

TEST(TokenizerFiles, AllOfTheSharedData) {
  if (smollm2_path().empty()) GTEST_SKIP() << "no SmolLM2 in ~/.cache/mkv-models: get_model.sh";
  if (shared_data_path().empty()) GTEST_SKIP() << "no ../shared/data beside the repository";
  EXPECT_GT(check_files(smollm2_path(), "tokenizer/smollm2_files.json", false), 10'000'000u);
}

TEST(TokenizerFiles, TextAndCodeByGemma3) {
  if (gemma3_path().empty()) GTEST_SKIP() << "no Gemma 3 in ~/.cache/mkv-models: get_model.sh";
  if (shared_data_path().empty()) GTEST_SKIP() << "no ../shared/data beside the repository";
  EXPECT_GT(check_files(gemma3_path(), "tokenizer/gemma3_270m_files.json", true), 2'000'000u);
}

}  // namespace
}  // namespace mkv
