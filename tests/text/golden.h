// Golden files and data folders of the text tests.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>

#include "text/chat_template.h"
#include "text/tokenizer_loading.h"

namespace mkv {

inline std::filesystem::path golden_path(const std::string& name) {
  return std::filesystem::path(MKV_SOURCE_DIR) / "tests/golden" / name;
}

inline std::string read_text(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in) << path;
  return {std::istreambuf_iterator<char>(in), {}};
}

// The golden files are ours: what is wrong with one is a failed test.
inline OrderedJson read_golden(const std::string& name) {
  const std::string text = read_text(golden_path(name));
  Result<OrderedJson> json = parse_ordered_json(text, name);
  EXPECT_TRUE(json) << (json ? "" : json.error().message);
  return json ? *std::move(json) : OrderedJson::object();
}

inline Result<TokenizerData> load_data(const std::filesystem::path& path) {
  if (path.extension() != ".gguf") return tokenizer_data_from_hf(path);
  MKV_ASSIGN(const GgufFile file, GgufFile::open(path));
  return tokenizer_data_from_gguf(file);
}

inline std::unique_ptr<Tokenizer> load_tokenizer(const std::filesystem::path& path) {
  Result<TokenizerData> data = load_data(path);
  EXPECT_TRUE(data) << (data ? "" : data.error().message);
  if (!data) return nullptr;
  Result<std::unique_ptr<Tokenizer>> tokenizer = make_tokenizer(*std::move(data));
  EXPECT_TRUE(tokenizer) << (tokenizer ? "" : tokenizer.error().message);
  return tokenizer ? *std::move(tokenizer) : nullptr;
}

// A real model, where scripts/get_model.sh puts it; empty if it is not there.
inline std::filesystem::path real_model(const std::string& file) {
  const char* const home = std::getenv("HOME");
  const std::filesystem::path path =
      std::filesystem::path(home == nullptr ? "" : home) / ".cache/mkv-models" / file;
  return std::filesystem::exists(path) ? path : std::filesystem::path();
}
inline std::filesystem::path smollm2_path() {
  return real_model("SmolLM2-135M-Instruct.Q4_1.gguf");
}
inline std::filesystem::path gemma3_path() { return real_model("gemma-3-270m-q4_k_m.gguf"); }

inline std::filesystem::path shared_data_path() {
  const std::filesystem::path path =
      std::filesystem::path(MKV_SOURCE_DIR).parent_path() / "shared/data";
  return std::filesystem::exists(path) ? path : std::filesystem::path();
}

}  // namespace mkv
