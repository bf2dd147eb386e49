// The real Gemma 3 270M against transformers (tests/golden/make_gemma3_logits.py), over more tokens
// than its sliding window sees.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>

#include "model/golden.h"

namespace mkv {
namespace {

std::filesystem::path model_path() {
  const char* const home = std::getenv("HOME");
  return std::filesystem::path(home == nullptr ? "" : home) /
         ".cache/mkv-models/gemma-3-270m-q4_k_m.gguf";
}

struct Expected {
  std::vector<TokenId> ids;
  std::vector<size_t> positions, vocabulary, argmax;
  std::vector<std::vector<float>> logits;  // [positions][vocabulary]
};

Expected read_expected() {
  const auto json =
      read_json_file(golden::kFolder / "logits" / "gemma3_270m.json", size_t{1} << 20);
  EXPECT_TRUE(json) << json.error().message;
  Expected expected;
  json->at("ids").get_to(expected.ids);
  json->at("positions").get_to(expected.positions);
  json->at("vocabulary").get_to(expected.vocabulary);
  json->at("argmax").get_to(expected.argmax);
  json->at("logits").get_to(expected.logits);
  return expected;
}

TEST(Gemma3Real, LogitsAreThoseOfTransformers) {
  if (!std::filesystem::exists(model_path())) {
    GTEST_SKIP() << "no Gemma 3 in ~/.cache/mkv-models: get_model.sh --model gemma3";
  }
  const Model model = golden::load(model_path());
  EXPECT_EQ(model.config().layer_types.of(4).window, 512u);
  EXPECT_EQ(model.config().layer_types.of(5).window, kWholeContext);
  const Expected expected = read_expected();
  Workers workers(2);
  KvCache cache = model.exact_cache(expected.ids.size(), {.exact = DType::f32});
  Scratch scratch;
  Matrix<float> hidden, logits(1, model.config().vocab_size);
  for (size_t begin = 0; begin < expected.ids.size(); begin += 300) {
    const size_t count = std::min<size_t>(300, expected.ids.size() - begin);
    const SequenceSlice slice{std::span(expected.ids).subspan(begin, count), &cache};
    ASSERT_TRUE(model.forward({&slice, 1}, hidden, scratch, workers));
    for (size_t i = 0; i < expected.positions.size(); ++i) {
      const size_t position = expected.positions[i];
      if (position < begin || position >= begin + count) continue;
      model.logits(hidden.view().rows_from(position - begin, 1), logits.view(), workers);
      std::vector<float> found;
      for (const size_t id : expected.vocabulary) found.push_back(logits.at(0, id));
      // Activations are rounded to 16 bits here, and not there.
      EXPECT_LT(golden::relative_error(found, expected.logits[i]), 2e-3) << position;
      const size_t best =
          static_cast<size_t>(std::ranges::max_element(logits.row(0)) - logits.row(0).begin());
      EXPECT_EQ(best, expected.argmax[i]) << position;
    }
  }
}

}  // namespace
}  // namespace mkv
