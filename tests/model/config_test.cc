// Configs: what each format may say, and what is refused with which words.
#include "model/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <numbers>

#include "model/rope_frequencies.h"
#include "store/gguf_builder.h"

namespace mkv {
namespace {

using ::testing::AllOf;
using testing::GgufBuilder;
using ::testing::HasSubstr;

Json llama_json() {
  return Json::parse(R"({"model_type": "llama", "vocab_size": 384, "hidden_size": 64,
    "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0})");
}

ModelDescription described(const Json& json) {
  auto description = describe_hf(json);
  EXPECT_TRUE(description) << description.error().message;
  return std::move(description).value();
}

TEST(ConfigHfTest, SizesAndDefaults) {
  Json json = llama_json();
  const ModelDescription d = described(json);
  EXPECT_EQ(d.config.head_dim, 16u);
  EXPECT_EQ(d.config.num_kv_heads, 2u);
  EXPECT_EQ(d.config.rotary(0).pairs(), 8u);
  EXPECT_FLOAT_EQ(d.config.attention_scale(), 0.25f);
  EXPECT_FALSE(d.tied_embeddings || d.qkv_bias || d.output_bias || d.mlp_bias || d.qk_norm);
  json.erase("num_key_value_heads");
  EXPECT_EQ(described(json).config.num_kv_heads, 4u);
  json["attention_bias"] = json["mlp_bias"] = json["tie_word_embeddings"] = true;
  const ModelDescription biased = described(json);
  EXPECT_TRUE(biased.tied_embeddings && biased.qkv_bias && biased.output_bias && biased.mlp_bias);
  json["model_type"] = "qwen3";
  json["num_key_value_heads"] = 2;
  json["head_dim"] = nullptr;
  EXPECT_EQ(described(json).config.head_dim, 128u);
}

TEST(ConfigHfTest, RopeOfBothVersions) {
  Json old_form = llama_json(), new_form = llama_json();
  old_form["rope_theta"] = 5e5;
  old_form["rope_scaling"] = {{"type", "linear"}, {"factor", 4.0}};
  new_form.erase("rope_theta");
  new_form["rope_parameters"] = {{"rope_type", "linear"}, {"factor", 4.0}, {"rope_theta", 5e5}};
  const ModelDescription a = described(old_form), b = described(new_form);
  for (size_t i = 0; i < 8; ++i) {
    const double expected = std::pow(5e5, -static_cast<double>(i) / 8) / 4;
    EXPECT_NEAR(a.config.rotary(0).inverse_frequency()[i], expected, 1e-12);
    EXPECT_NEAR(b.config.rotary(0).inverse_frequency()[i], expected, 1e-12);
  }
}

TEST(ConfigHfTest, SlidingWindowsThatChangeNothingAreIgnored) {
  Json json = llama_json();
  json["model_type"] = "mistral";
  json["sliding_window"] = nullptr;
  described(json);
  json["sliding_window"] = 512;
  described(json);
  json["model_type"] = "qwen2";
  json["sliding_window"] = 128;
  json["use_sliding_window"] = false;
  described(json);
  json["layer_types"] = {"full_attention", "full_attention"};
  described(json);
}

Json gemma_json() {
  Json json = llama_json();
  json.merge_patch(Json::parse(R"({"model_type": "gemma3_text", "num_hidden_layers": 7,
    "head_dim": 32, "query_pre_attn_scalar": 64, "sliding_window": 100, "rope_theta": 1e6,
    "rope_local_base_freq": 100.0, "rope_scaling": {"rope_type": "linear", "factor": 8}})"));
  return json;
}

void expect_layers(const ModelConfig& c, const std::vector<size_t>& windows) {
  for (size_t l = 0; l < windows.size(); ++l) EXPECT_EQ(c.layer_types.of(l).window, windows[l]);
}

TEST(ConfigHfTest, GemmaHasLayersOfTwoTypes) {
  const ModelDescription d = described(gemma_json());
  EXPECT_TRUE(d.qk_norm && d.post_norms && d.norms_less_one && d.tied_embeddings);
  EXPECT_EQ(d.config.hidden_activation, Activation::gelu_tanh);
  EXPECT_FLOAT_EQ(d.config.attention_scale(), 1.0f / 8);
  EXPECT_FLOAT_EQ(d.config.embedding_scale, 8.0f);
  expect_layers(d.config, {100, 100, 100, 100, 100, kWholeContext, 100});
  EXPECT_NEAR(d.config.rotary(5).inverse_frequency()[1], std::pow(1e6, -1.0 / 16) / 8, 1e-12);
  EXPECT_NEAR(d.config.rotary(6).inverse_frequency()[1], std::pow(1e2, -1.0 / 16), 1e-12);

  Json json = gemma_json();  // as transformers 5 writes it
  json.erase("rope_theta"), json.erase("rope_local_base_freq"), json.erase("rope_scaling");
  json["rope_parameters"] = {
      {"full_attention", {{"rope_type", "linear"}, {"factor", 8.0}, {"rope_theta", 1e6}}},
      {"sliding_attention", {{"rope_type", "default"}, {"rope_theta", 1e2}}}};
  json["layer_types"] = Json::array();
  for (size_t l = 0; l < 7; ++l) {
    json["layer_types"].push_back(l == 1 ? "full_attention" : "sliding_attention");
  }
  const ModelDescription other = described(json);
  expect_layers(other.config, {100, kWholeContext, 100});
  for (size_t i = 0; i < 16; ++i) {
    EXPECT_EQ(other.config.rotary(1).inverse_frequency()[i],
              d.config.rotary(5).inverse_frequency()[i]);
    EXPECT_EQ(other.config.rotary(0).inverse_frequency()[i],
              d.config.rotary(6).inverse_frequency()[i]);
  }
}

TEST(ConfigHfTest, GemmaRefusalsSayWhatIsWrong) {
  const std::pair<const char*, std::vector<std::string>> refusals[] = {
      {R"({"hidden_activation": "relu"})", {"hidden_activation", "relu", "gelu_pytorch_tanh"}},
      {R"({"final_logit_softcapping": 30})", {"final_logit_softcapping", "30"}},
      {R"({"use_bidirectional_attention": true})", {"use_bidirectional_attention"}},
      {R"({"sliding_window": 0})", {"sliding_window", "0"}},
      {R"({"query_pre_attn_scalar": -1})", {"query_pre_attn_scalar", "-1"}},
      {R"({"layer_types": ["full_attention"]})", {"layer_types", "1", "7"}},
      {R"({"num_hidden_layers": 1, "layer_types": ["chunked"]})", {"layer_types", "chunked"}},
  };
  for (const auto& [changes, words] : refusals) {
    Json json = gemma_json();
    json.merge_patch(Json::parse(changes));
    const auto description = describe_hf(json);
    ASSERT_FALSE(description) << changes;
    for (const std::string& word : words) {
      EXPECT_THAT(description.error().message, HasSubstr(word));
    }
  }
}

struct Refusal {
  const char* name;
  const char* changes;  // a JSON merge patch
  std::vector<std::string> words;
};

class HfRefusalTest : public ::testing::TestWithParam<Refusal> {};

TEST_P(HfRefusalTest, SaysWhatIsWrong) {
  Json json = llama_json();
  json.merge_patch(Json::parse(GetParam().changes));
  const auto description = describe_hf(json);
  ASSERT_FALSE(description);
  for (const std::string& word : GetParam().words) {
    EXPECT_THAT(description.error().message, HasSubstr(word));
  }
  EXPECT_EQ(description.error().message.find('\n'), std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(
    Refusals, HfRefusalTest,
    ::testing::Values(
        Refusal{"type", R"({"model_type": "phi3"})", {"model_type", "phi3", "qwen2"}},
        Refusal{"no_type", R"({"model_type": null})", {"model_type"}},
        Refusal{"type_of_type", R"({"model_type": 7})", {"model_type"}},
        Refusal{"no_layers", R"({"num_hidden_layers": 0})", {"num_hidden_layers", "0", "1024"}},
        Refusal{"many_layers", R"({"num_hidden_layers": 99999})", {"99999", "1024"}},
        Refusal{"negative", R"({"hidden_size": -64})", {"hidden_size"}},
        Refusal{"huge", R"({"vocab_size": 9007199254740992})", {"vocab_size", "4194304"}},
        Refusal{"no_heads", R"({"num_attention_heads": 0})", {"hidden_size", "0 heads"}},
        Refusal{"uneven_heads", R"({"num_attention_heads": 3})", {"64", "3 heads"}},
        Refusal{"uneven_kv", R"({"num_key_value_heads": 3})", {"4", "3 KV heads"}},
        Refusal{"odd_head_dim", R"({"head_dim": 15})", {"head_dim", "15", "even"}},
        Refusal{"activation", R"({"hidden_act": "gelu"})", {"hidden_act", "gelu", "silu"}},
        Refusal{"yarn",
                R"({"rope_scaling": {"rope_type": "yarn", "factor": 4}})",
                {"rope_type", "yarn", "llama3"}},
        Refusal{"no_factor", R"({"rope_scaling": {"type": "linear"}})", {"factor"}},
        Refusal{"zero_factor", R"({"rope_scaling": {"type": "linear", "factor": 0}})", {"factor"}},
        Refusal{"theta", R"({"rope_theta": -1})", {"rope_theta", "positive"}},
        Refusal{"partial", R"({"partial_rotary_factor": 0.5})", {"partial_rotary_factor", "0.5"}},
        Refusal{"epsilon", R"({"rms_norm_eps": -1})", {"rms_norm_eps"}},
        Refusal{"quantized", R"({"quantization_config": {"quant_method": "gptq"}})", {"gptq"}},
        Refusal{"mistral_window",
                R"({"model_type": "mistral", "sliding_window": 128})",
                {"sliding_window", "128", "512"}},
        Refusal{"qwen_window",
                R"({"model_type": "qwen2", "sliding_window": 128, "use_sliding_window": true})",
                {"sliding_window", "128", "512"}},
        Refusal{"layer_types",
                R"({"layer_types": ["full_attention", "chunked_attention"]})",
                {"layer_types", "chunked_attention"}}),
    [](const auto& test) { return test.param.name; });

TEST(ConfigHfTest, OtherJsonIsAnError) {
  for (const char* text : {"[]", "7", "null", "\"llama\"", "{}"}) {
    EXPECT_FALSE(describe_hf(Json::parse(text))) << text;
  }
}

// A llama GGUF's metadata and embedding, with one thing added or left out.
GgufBuilder llama_gguf(const std::string& without = "") {
  using B = GgufBuilder;
  B builder;
  builder.string("general.architecture", "llama");
  const std::pair<const char*, uint32_t> sizes[] = {
      {"llama.context_length", 512},      {"llama.embedding_length", 64},
      {"llama.block_count", 2},           {"llama.feed_forward_length", 96},
      {"llama.attention.head_count", 4},  {"llama.attention.head_count_kv", 2},
      {"llama.rope.dimension_count", 16},
  };
  for (const auto& [key, value] : sizes) {
    if (key != without) builder.scalar<uint32_t>(key, B::kU32, value);
  }
  builder.scalar<float>("llama.attention.layer_norm_rms_epsilon", B::kF32, 1e-5f);
  builder.tensor("token_embd.weight", 0, {64, 384}, 64 * 384 * 4);
  return builder;
}

Result<ModelDescription> describe(const GgufBuilder& builder) {
  const std::string bytes = builder.build();
  const auto file = GgufFile::parse(testing::bytes_of(bytes), "test.gguf");
  EXPECT_TRUE(file) << file.error().message;
  return describe_gguf(*file);
}

TEST(ConfigGgufTest, SizesAndDefaults) {
  const auto d = describe(llama_gguf());
  ASSERT_TRUE(d) << d.error().message;
  EXPECT_EQ(d->config.vocab_size, 384u);
  EXPECT_EQ(d->config.head_dim, 16u);
  EXPECT_TRUE(d->interleaved_qk && d->tied_embeddings);
  EXPECT_FALSE(d->qkv_bias);
  const auto no_gqa = describe(llama_gguf("llama.attention.head_count_kv"));
  ASSERT_TRUE(no_gqa);
  EXPECT_EQ(no_gqa->config.num_kv_heads, 4u);
}

TEST(ConfigGgufTest, LinearScaling) {
  GgufBuilder builder = llama_gguf();
  builder.string("llama.rope.scaling.type", "linear")
      .scalar<float>("llama.rope.scaling.factor", GgufBuilder::kF32, 2.0f);
  const auto d = describe(builder);
  ASSERT_TRUE(d) << d.error().message;
  EXPECT_DOUBLE_EQ(d->config.rotary(0).inverse_frequency()[0], 0.5);
}

TEST(ConfigGgufTest, GemmaHasLayersOfTwoTypes) {
  using B = GgufBuilder;
  const auto gemma = [](size_t layers) {
    B builder;
    builder.string("general.architecture", "gemma3");
    const std::pair<const char*, uint32_t> sizes[] = {{"gemma3.context_length", 512},
                                                      {"gemma3.embedding_length", 64},
                                                      {"gemma3.feed_forward_length", 96},
                                                      {"gemma3.attention.head_count", 4},
                                                      {"gemma3.attention.key_length", 32}};
    for (const auto& [key, value] : sizes) builder.scalar<uint32_t>(key, B::kU32, value);
    builder.scalar<uint32_t>("gemma3.block_count", B::kU32, static_cast<uint32_t>(layers));
    builder.scalar<float>("gemma3.attention.layer_norm_rms_epsilon", B::kF32, 1e-6f);
    builder.scalar<float>("gemma3.rope.freq_base", B::kF32, 1e6f);
    builder.tensor("token_embd.weight", 0, {64, 384}, 64 * 384 * 4);
    return builder;
  };
  const auto whole = describe(gemma(7));
  ASSERT_TRUE(whole) << whole.error().message;
  expect_layers(whole->config, {kWholeContext, kWholeContext});
  EXPECT_TRUE(whole->qk_norm && whole->post_norms && !whole->norms_less_one);
  EXPECT_FALSE(whole->interleaved_qk);
  EXPECT_FLOAT_EQ(whole->config.attention_scale(), 1.0f / std::sqrt(32.0f));
  EXPECT_FLOAT_EQ(whole->config.embedding_scale, 8.0f);
  const auto six =
      describe(gemma(7).scalar<uint32_t>("gemma3.attention.sliding_window", B::kU32, 100));
  ASSERT_TRUE(six) << six.error().message;
  expect_layers(six->config, {100, 100, 100, 100, 100, kWholeContext, 100});
  EXPECT_NEAR(six->config.rotary(0).inverse_frequency()[1], std::pow(1e4, -1.0 / 16), 1e-12);
  EXPECT_NEAR(six->config.rotary(5).inverse_frequency()[1], std::pow(1e6, -1.0 / 16), 1e-12);
  const auto two =
      describe(gemma(62)
                   .scalar<uint32_t>("gemma3.attention.sliding_window", B::kU32, 100)
                   .scalar<uint32_t>("gemma3.attention.sliding_window_pattern", B::kU32, 2)
                   .scalar<float>("gemma3.rope.freq_base_swa", B::kF32, 100.0f));
  ASSERT_TRUE(two) << two.error().message;
  expect_layers(two->config, {100, kWholeContext, 100, kWholeContext});
  EXPECT_NEAR(two->config.rotary(0).inverse_frequency()[1], std::pow(1e2, -1.0 / 16), 1e-12);
  EXPECT_FLOAT_EQ(two->config.attention_scale(), 0.25f);  // of 27B: hidden / heads
  const auto capped =
      describe(gemma(7).scalar<float>("gemma3.final_logit_softcapping", B::kF32, 30.0f));
  ASSERT_FALSE(capped);
  EXPECT_THAT(capped.error().message, AllOf(HasSubstr("test.gguf"), HasSubstr("softcapping")));
}

TEST(ConfigGgufTest, RefusalsNameTheFileTheKeyAndTheNumbers) {
  using B = GgufBuilder;
  struct Change {
    std::function<void(B&)> apply;
    std::vector<std::string> words;
    std::string without = {};
  };
  const Change changes[] = {
      {[](B&) {}, {"llama.block_count"}, "llama.block_count"},
      {[](B& b) { b.scalar<uint32_t>("llama.block_count", B::kU32, 0); },
       {"num_hidden_layers", "0"},
       "llama.block_count"},
      {[](B& b) { b.scalar<uint32_t>("llama.attention.head_count", B::kU32, 0); },
       {"head_count", "0"},
       "llama.attention.head_count"},
      {[](B& b) { b.string("llama.block_count", "two"); },
       {"llama.block_count"},
       "llama.block_count"},
      {[](B& b) {
         b.array<int32_t>("llama.block_count", B::kI32, {2, 3});
       },
       {"llama.block_count", "2 and 3"},
       "llama.block_count"},
      {[](B& b) { b.scalar<uint32_t>("llama.rope.dimension_count", B::kU32, 8); },
       {"rope.dimension_count", "8", "16"},
       "llama.rope.dimension_count"},
      {[](B& b) { b.scalar<uint32_t>("llama.expert_count", B::kU32, 8); }, {"expert_count", "8"}},
      {[](B& b) { b.scalar<uint32_t>("llama.attention.value_length", B::kU32, 32); },
       {"value_length", "32", "16"}},
      {[](B& b) { b.scalar<uint32_t>("llama.attention.sliding_window", B::kU32, 100); },
       {"sliding_window", "100", "512"}},
      {[](B& b) { b.string("llama.rope.scaling.type", "yarn"); }, {"rope.scaling.type", "yarn"}},
      {[](B& b) { b.tensor("rope_freqs.weight", 0, {7}, 28); }, {"rope_freqs", "[7]", "[8]"}},
  };
  for (const Change& change : changes) {
    GgufBuilder builder = llama_gguf(change.without);
    change.apply(builder);
    const auto d = describe(builder);
    ASSERT_FALSE(d) << change.words[0];
    EXPECT_THAT(d.error().message, HasSubstr("test.gguf"));
    for (const std::string& word : change.words) EXPECT_THAT(d.error().message, HasSubstr(word));
  }
}

TEST(ConfigGgufTest, UnknownArchitectureIsNamed) {
  GgufBuilder builder;
  builder.string("general.architecture", "mamba");
  const auto d = describe(builder);
  ASSERT_FALSE(d);
  EXPECT_EQ(d.error().code, ErrorCode::unsupported);
  EXPECT_THAT(d.error().message, AllOf(HasSubstr("mamba"), HasSubstr("qwen3")));
}

// The three branches of transformers' _compute_llama3_parameters.
TEST(RopeFrequenciesTest, Llama3) {
  std::vector<double> f = {1.0, 2 * std::numbers::pi / 32, 2 * std::numbers::pi / 640};
  ASSERT_TRUE(scale_llama3(f, {8.0, 1.0, 4.0, 64.0}));
  EXPECT_DOUBLE_EQ(f[0], 1.0);
  const double smooth = (64.0 / 32 - 1) / (4 - 1);
  EXPECT_NEAR(f[1], 2 * std::numbers::pi / 32 * ((1 - smooth) / 8 + smooth), 1e-12);
  EXPECT_NEAR(f[2], 2 * std::numbers::pi / 640 / 8, 1e-12);
  EXPECT_FALSE(scale_llama3(f, {8.0, 4.0, 4.0, 64.0}));
}

}  // namespace
}  // namespace mkv
