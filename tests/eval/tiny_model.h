// A golden model of a few kilobytes, tokens for it, and the answer of a Result that must not fail.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "base/rng.h"
#include "model/model.h"

namespace mkv {

inline Model tiny_model(const std::string& name = "llama") {
  auto model =
      Model::load(std::filesystem::path(MKV_SOURCE_DIR) / "tests/golden/models" / (name + ".gguf"));
  EXPECT_TRUE(model) << (model ? "" : model.error().message);
  return std::move(model).value();
}

inline std::vector<TokenId> random_tokens(size_t count, size_t vocab, uint64_t seed) {
  Rng rng(seed);
  std::vector<TokenId> tokens(count);
  for (TokenId& token : tokens) token = static_cast<TokenId>(rng.below(vocab));
  return tokens;
}

template <class T>
T must(Result<T> result) {
  EXPECT_TRUE(result.has_value()) << (result ? "" : result.error().message);
  return std::move(result).value();
}

}  // namespace mkv
