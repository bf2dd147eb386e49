// Loading, and the promises of model.h that hold for every architecture.
#include "model/model.h"

#include <gmock/gmock.h>

#include <fstream>
#include <iterator>

#include "base/rng.h"
#include "model/golden.h"
#include "store/temp_dir.h"

namespace mkv {
namespace {

using ::testing::HasSubstr;

class LoadTest : public testing::TempDir {
 protected:
  std::string copy_bytes(const std::string& name) { return read(golden::gguf_of(name)); }

  void expect_refused(const std::filesystem::path& path, const std::vector<std::string>& words) {
    const auto model = Model::load(path);
    ASSERT_FALSE(model);
    for (const std::string& word : words) EXPECT_THAT(model.error().message, HasSubstr(word));
    EXPECT_EQ(model.error().message.find('\n'), std::string::npos);
  }
};

TEST_F(LoadTest, OtherThingsAreNamed) {
  expect_refused(dir_ / "nothing.gguf", {"nothing.gguf", "No such file"});
  expect_refused(dir_, {"a folder without a config.json"});
  expect_refused(write("zip.gguf", "PK\x03\x04..."), {"zip.gguf", "PK\\x03\\x04"});
  expect_refused(write("empty.gguf", ""), {"an empty file"});
}

TEST_F(LoadTest, AnyNameWillDoForAGguf) {
  EXPECT_TRUE(Model::load(write("model.bin", copy_bytes("llama"))));
}

TEST_F(LoadTest, TruncatedFilesAreErrors) {
  const std::string bytes = copy_bytes("llama3");
  for (size_t size : {size_t{4}, size_t{23}, size_t{200}, bytes.size() / 2, bytes.size() - 1}) {
    EXPECT_FALSE(Model::load(write("cut.gguf", bytes.substr(0, size)))) << size;
  }
}

// Replaces a text in the file by one of the same length.
std::string replaced(std::string bytes, const std::string& from, const std::string& to) {
  const size_t at = bytes.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return bytes.replace(at, from.size(), to);
}

TEST_F(LoadTest, MissingTensorsAreNamed) {
  const std::string bytes = copy_bytes("qwen3");
  expect_refused(write("a.gguf", replaced(bytes, "blk.1.ffn_down", "blk.1.ffn_dowx")),
                 {"a.gguf", "blk.1.ffn_down.weight"});
  expect_refused(write("b.gguf", replaced(bytes, "blk.0.attn_q_norm", "blk.0.attn_q_nork")),
                 {"b.gguf", "blk.0.attn_q_norm.weight"});
}

TEST_F(LoadTest, WrongShapesNameTheTensorAndBothShapes) {
  std::filesystem::copy(golden::folder_of("llama"), dir_, std::filesystem::copy_options::recursive);
  auto json = *read_json_file(dir_ / "config.json", 1 << 20);
  json["intermediate_size"] = 128;
  write("config.json", json.dump());
  expect_refused(dir_, {"model.layers.0.mlp.gate_proj.weight", "[96, 64]", "[128, 64]"});
  json["model_type"] = "gemma";
  write("config.json", json.dump());
  expect_refused(dir_, {"config.json", "gemma"});
  write("config.json", "{");
  expect_refused(dir_, {"config.json"});
}

// Bytes of the metadata and tensor list changed at random: an error or a model, never a crash.
TEST_F(LoadTest, DamagedFilesAreErrorsOrModels) {
  Workers workers(1);
  Rng rng(5);
  for (const char* name : {"llama3", "qwen2"}) {
    const std::string bytes = copy_bytes(name);
    for (int round = 0; round < 100; ++round) {
      std::string damaged = bytes;
      for (int i = 0; i < 4; ++i) damaged[rng.below(16384)] = static_cast<char>(rng.next());
      const auto model = Model::load(write("damaged.gguf", damaged));
      if (!model) {
        EXPECT_FALSE(model.error().message.empty());
        continue;
      }
      KvCache cache = model->exact_cache(8);
      golden::run(*model, std::vector<TokenId>{1, 2, 3}, 2, cache, workers);
    }
  }
}

TEST(ModelTest, ShapeAndCounts) {
  const Model model = golden::load(golden::gguf_of("mistral"));
  EXPECT_EQ(model.config().architecture, "llama");
  EXPECT_EQ(model.config().kv_shape(), (KvShape{2, 2, 32}));
  // embedding and output, then per layer: q and o, k and v, gate, up and down, norms.
  const size_t layer = 2 * 64 * 128 + 2 * 64 * 64 + 3 * 64 * 96 + 2 * 64;
  EXPECT_EQ(model.parameters(), 2 * 384 * 64 + 2 * layer + 64);
  EXPECT_EQ(model.output_projection(1).rows, 64u);
  EXPECT_EQ(model.output_projection(1).cols, 128u);
  EXPECT_TRUE(model.chat_template());
}

TEST(ModelTest, TiedEmbeddingsCountOnce) {
  const Model model = golden::load(golden::folder_of("qwen3"));
  const size_t layer = 2 * 64 * 128 + 2 * 64 * 64 + 3 * 64 * 96 + 2 * 64 + 2 * 32;
  EXPECT_EQ(model.parameters(), 384 * 64 + 2 * layer + 64);
}

TEST(ModelTest, HashIsOfTheWeights) {
  const Model a = golden::load(golden::gguf_of("llama"));
  const Model b = golden::load(golden::gguf_of("llama"));
  const Model other = golden::load(golden::gguf_of("llama3"));
  EXPECT_EQ(a.weights_hash().size(), 64u);
  EXPECT_EQ(a.weights_hash(), b.weights_hash());
  EXPECT_NE(a.weights_hash(), other.weights_hash());
}

TEST(ModelTest, ErrorsLeaveTheCacheAsItWas) {
  const Model model = golden::load(golden::gguf_of("llama"));
  Workers workers(1);
  KvCache cache = model.exact_cache(4);
  Scratch scratch;
  Matrix<float> hidden;
  auto forward = [&](std::vector<TokenId> tokens) {
    const SequenceSlice slice{tokens, &cache};
    return model.forward({&slice, 1}, hidden, scratch, workers);
  };
  ASSERT_TRUE(forward({1, 2, 3}));
  const auto full = forward({1, 2});
  ASSERT_FALSE(full);
  EXPECT_EQ(full.error().code, ErrorCode::capacity);
  EXPECT_THAT(full.error().message, AllOf(HasSubstr("4"), HasSubstr("5")));
  for (TokenId bad : {TokenId{-1}, TokenId{384}}) {
    const auto unknown = forward({bad});
    ASSERT_FALSE(unknown);
    EXPECT_THAT(unknown.error().message, AllOf(HasSubstr(std::to_string(bad)), HasSubstr("384")));
  }
  EXPECT_EQ(cache.length(), 3u);
  ASSERT_TRUE(forward({4}));
  EXPECT_EQ(cache.length(), 4u);
}

TEST(ModelTest, ABatchOfSlicesIsEachAlone) {
  const Model model = golden::load(golden::gguf_of("qwen2"));
  const golden::Logits g = golden::read_logits("qwen2");
  Workers workers(2);
  const std::span<const TokenId> ids(g.ids);
  KvCache a = model.exact_cache(64), b = model.exact_cache(64);
  golden::run(model, ids.first(5), 5, a, workers);
  Scratch scratch;
  Matrix<float> hidden;
  const SequenceSlice slices[] = {{ids.subspan(5, 3), &a}, {ids.first(9), &b}};
  ASSERT_TRUE(model.forward(slices, hidden, scratch, workers));
  Matrix<float> logits(12, model.config().vocab_size);
  model.logits(hidden.view(), logits.view(), workers);
  const Matrix<float> alone = golden::run(model, ids.first(9), 9);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_LT(golden::relative_error(logits.row(i), alone.row(5 + i)), 3e-3);
  }
  for (size_t i = 0; i < 9; ++i) {
    EXPECT_LT(golden::relative_error(logits.row(3 + i), alone.row(i)), 1e-5);
  }
}

TEST(ModelTest, PartsTogetherAreForward) {
  const Model model = golden::load(golden::folder_of("llama3"));
  const golden::Logits g = golden::read_logits("llama3");
  Workers workers(2);
  KvCache cache = model.exact_cache(64), other = model.exact_cache(64);
  Scratch scratch;
  Matrix<float> hidden, parts;
  const SequenceSlice whole{g.ids, &cache}, slice{g.ids, &other};
  ASSERT_TRUE(model.forward({&whole, 1}, hidden, scratch, workers));
  ASSERT_TRUE(model.embed(g.ids, parts));
  ASSERT_TRUE(model.run_layers({&slice, 1}, 0, 1, parts, scratch, workers));
  ASSERT_TRUE(model.run_layers({&slice, 1}, 1, 3, parts, scratch, workers));
  model.finish(parts);
  EXPECT_EQ(other.length(), 0u);
  EXPECT_TRUE(std::ranges::equal(hidden.span(), parts.span()));
}

TEST(ModelTest, ObserverSeesEachSliceOfEachLayer) {
  const Model model = golden::load(golden::gguf_of("llama"));
  Workers workers(2);
  const std::vector<TokenId> tokens = {5, 6, 7};
  KvCache a = model.exact_cache(8), b = model.exact_cache(8);
  golden::run(model, tokens, 3, a, workers);
  Scratch scratch;
  Matrix<float> hidden;
  const SequenceSlice slices[] = {{tokens, &a}, {std::span(tokens).first(2), &b}};
  std::vector<std::array<size_t, 3>> seen;
  auto observer = [&](const LayerObservation& o) {
    seen.push_back({o.layer, o.first_position, o.keys.rows});
    EXPECT_EQ(o.queries.cols, 64u);
    EXPECT_EQ(o.keys.cols, 32u);
    const bool moved = !std::ranges::equal(o.keys.row(1), o.keys_before_rope.row(1));
    EXPECT_TRUE(moved);  // no second token stands at position 0
    if (o.first_position == 0) {
      EXPECT_TRUE(std::ranges::equal(o.keys.row(0), o.keys_before_rope.row(0)));
    }
  };
  ASSERT_TRUE(model.forward(slices, hidden, scratch, workers, observer));
  const std::vector<std::array<size_t, 3>> expected = {{0, 3, 3}, {0, 0, 2}, {1, 3, 3}, {1, 0, 2}};
  EXPECT_EQ(seen, expected);
}

// The observed keys are in Hugging Face's order, whatever the file's.
TEST(ModelTest, BothFormatsShowTheSameKeys) {
  Workers workers(1);
  const golden::Logits g = golden::read_logits("llama");
  std::vector<std::vector<float>> keys(2);
  const std::filesystem::path paths[] = {golden::folder_of("llama"), golden::gguf_of("llama")};
  for (size_t i = 0; i < 2; ++i) {
    const Model model = golden::load(paths[i]);
    KvCache cache = model.exact_cache(64);
    Scratch scratch;
    Matrix<float> hidden;
    const SequenceSlice slice{g.ids, &cache};
    ASSERT_TRUE(
        model.forward({&slice, 1}, hidden, scratch, workers, [&](const LayerObservation& o) {
          if (o.layer != 0) return;
          for (size_t t = 0; t < o.keys.rows; ++t) {
            keys[i].insert(keys[i].end(), o.keys.row(t).begin(), o.keys.row(t).end());
          }
        }));
  }
  EXPECT_LT(golden::relative_error(keys[1], keys[0]), 1e-5);
}

}  // namespace
}  // namespace mkv
