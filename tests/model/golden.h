// The tiny random models of tests/golden and what transformers computes from them.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "model/model.h"
#include "store/json.h"

namespace mkv::golden {

inline const std::filesystem::path kFolder = std::filesystem::path(MKV_SOURCE_DIR) / "tests/golden";
inline const std::vector<std::string> kNames = {"llama", "llama3",    "mistral", "qwen2",
                                                "qwen3", "llama_spm", "gemma3"};

inline std::filesystem::path folder_of(const std::string& name) {
  return kFolder / "models" / name;
}
inline std::filesystem::path gguf_of(const std::string& name) {
  return kFolder / "models" / (name + ".gguf");
}

struct Logits {
  std::vector<TokenId> ids, prompt_ids, greedy_ids;
  std::vector<size_t> positions, argmax;
  std::vector<std::vector<float>> logits;  // [positions][vocab]
  double mean_nll = 0;
};

inline Logits read_logits(const std::string& name) {
  const auto read = read_json_file(kFolder / "logits" / (name + ".json"), size_t{1} << 24);
  EXPECT_TRUE(read) << read.error().message;
  const Json& json = *read;
  Logits golden;
  json.at("ids").get_to(golden.ids);
  json.at("prompt_ids").get_to(golden.prompt_ids);
  json.at("greedy_ids").get_to(golden.greedy_ids);
  json.at("positions").get_to(golden.positions);
  json.at("argmax").get_to(golden.argmax);
  json.at("logits").get_to(golden.logits);
  json.at("mean_nll").get_to(golden.mean_nll);
  return golden;
}

inline Model load(const std::filesystem::path& path) {
  auto model = Model::load(path);
  EXPECT_TRUE(model) << model.error().message;
  return std::move(model).value();
}

// Logits of every token, run in pieces of `chunk` tokens through `cache`.
inline Matrix<float> run(const Model& model, std::span<const TokenId> tokens, size_t chunk,
                         KvCache& cache, Workers& workers) {
  Matrix<float> logits(tokens.size(), model.config().vocab_size), hidden;
  Scratch scratch;
  for (size_t at = 0; at < tokens.size(); at += chunk) {
    const size_t count = std::min(chunk, tokens.size() - at);
    const SequenceSlice slice{tokens.subspan(at, count), &cache};
    const auto done = model.forward({&slice, 1}, hidden, scratch, workers);
    EXPECT_TRUE(done) << done.error().message;
    model.logits(hidden.view(), logits.view().rows_from(at, count), workers);
  }
  return logits;
}

inline Matrix<float> run(const Model& model, std::span<const TokenId> tokens, size_t chunk,
                         size_t workers_count = 2, KvOptions options = {}) {
  Workers workers(workers_count);
  KvCache cache = model.exact_cache(tokens.size(), options);
  return run(model, tokens, chunk, cache, workers);
}

// Largest difference, as a fraction of the root mean square of `expected`.
inline double relative_error(std::span<const float> found, std::span<const float> expected) {
  EXPECT_EQ(found.size(), expected.size());
  double largest = 0, square = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double difference = static_cast<double>(found[i]) - static_cast<double>(expected[i]);
    largest = std::max(largest, std::abs(difference));
    square += static_cast<double>(expected[i]) * static_cast<double>(expected[i]);
  }
  return largest / std::sqrt(square / static_cast<double>(expected.size()));
}

}  // namespace mkv::golden
