// The config in a GGUF file's metadata: keys `ARCHITECTURE.name` (ggml's docs/gguf.md).
#include <cmath>
#include <string>
#include <utility>

#include "model/config.h"
#include "model/rope_frequencies.h"
#include "model/weights.h"
#include "store/message.h"

namespace mkv {
namespace {

constexpr size_t kGemmaPeriod = 6;   // five layers with a sliding window, one without
constexpr size_t kLayersOf27B = 62;  // the one Gemma 3 whose scores are scaled by hidden / heads

class GgufDescriber {
 public:
  GgufDescriber(const GgufFile& file, std::string architecture)
      : file_(file), metadata_(file.metadata()), architecture_(std::move(architecture)) {}

  Result<ModelDescription> describe() {
    MKV_TRY(refuse_unsupported());
    MKV_TRY(read_sizes());
    MKV_TRY(located(check_config(description_.config)));
    MKV_ASSIGN(Rotary rotary, read_rotary());
    if (is_gemma()) {
      MKV_TRY(read_gemma(std::move(rotary)));
    } else {
      description_.config.layer_types = LayerTypes(std::move(rotary));
    }
    MKV_TRY(read_structure());
    return std::move(description_);
  }

 private:
  bool is_gemma() const { return architecture_ == "gemma3"; }
  std::string key(std::string_view name) const { return concat(architecture_, ".", name); }

  Error unsupported(std::string_view name, std::string_view found,
                    std::string_view expected) const {
    return in_context(file_.path(), bad_value(ErrorCode::unsupported, key(name), found, expected));
  }
  Error corrupt(std::string_view name, std::string_view found, std::string_view expected) const {
    return in_context(file_.path(), bad_value(ErrorCode::corrupt, key(name), found, expected));
  }
  // Names the file in errors of functions that do not know it.
  template <class T>
  Result<T> located(Result<T> result) const {
    if (result) return result;
    return in_context(file_.path(), std::move(result).error());
  }

  // Some models give one value a layer; those of the supported architectures agree on one.
  Result<size_t> size(std::string_view name) const {
    const std::string full = key(name);
    if (!metadata_.is_array(full)) {
      MKV_ASSIGN(const uint64_t value, metadata_.get<uint64_t>(full));
      return static_cast<size_t>(value);
    }
    MKV_ASSIGN(const auto values, metadata_.get<std::vector<int32_t>>(full));
    for (int32_t value : values) {
      if (value < 0 || value != values.front()) {
        return unsupported(name, concat(values.front(), " and ", value), "one for all layers");
      }
    }
    return values.empty() ? 0 : static_cast<size_t>(values.front());
  }
  Result<size_t> size_or(std::string_view name, size_t fallback) const {
    return metadata_.contains(key(name)) ? size(name) : Result<size_t>(fallback);
  }

  Result<void> refuse_unsupported() const {
    MKV_ASSIGN(const size_t experts, size_or("expert_count", 0));
    if (experts != 0) {
      return unsupported("expert_count", std::to_string(experts),
                         "0: mixtures of experts are not supported");
    }
    MKV_ASSIGN(const size_t window, size_or("attention.sliding_window", 0));
    MKV_ASSIGN(const size_t context, size("context_length"));
    if (window != 0 && window < context && !is_gemma()) {
      return unsupported("attention.sliding_window", std::to_string(window),
                         concat("at least the context length ", context, ", or none"));
    }
    return {};
  }

  Result<void> read_sizes() {
    ModelConfig& c = description_.config;
    c.architecture = architecture_;
    MKV_ASSIGN(c.max_position_embeddings, size("context_length"));
    MKV_ASSIGN(c.hidden_size, size("embedding_length"));
    MKV_ASSIGN(c.num_layers, size("block_count"));
    MKV_ASSIGN(c.intermediate_size, size("feed_forward_length"));
    MKV_ASSIGN(c.num_heads, size("attention.head_count"));
    MKV_ASSIGN(c.num_kv_heads, size_or("attention.head_count_kv", c.num_heads));
    if (c.num_heads == 0) {
      return corrupt("attention.head_count", "0", "1 ... 1024");
    }
    MKV_ASSIGN(c.head_dim, size_or("attention.key_length", c.hidden_size / c.num_heads));
    if (!metadata_.contains(key("attention.key_length")) && c.hidden_size % c.num_heads != 0) {
      return corrupt("embedding_length", std::to_string(c.hidden_size),
                     concat("a multiple of ", c.num_heads, " heads"));
    }
    MKV_ASSIGN(const size_t value_length, size_or("attention.value_length", c.head_dim));
    if (value_length != c.head_dim) {
      return unsupported("attention.value_length", std::to_string(value_length),
                         concat("the key length ", c.head_dim));
    }
    MKV_ASSIGN(const double epsilon,
               metadata_.get<double>(key("attention.layer_norm_rms_epsilon")));
    c.rms_norm_epsilon = static_cast<float>(epsilon);
    MKV_ASSIGN(const std::string_view name, metadata_.get_or<std::string_view>("general.name", {}));
    c.name = printable(name);
    // The vocabulary is as long as the embedding: files may pad it beyond their list of tokens.
    MKV_ASSIGN(const TensorView* embedding, file_.get("token_embd.weight"));
    if (embedding->shape.size() == 2) c.vocab_size = embedding->shape[0];
    return {};
  }

  // Of the layers that see the whole context.
  Result<Rotary> read_rotary() const {
    const ModelConfig& c = description_.config;
    MKV_ASSIGN(const size_t rotated, size_or("rope.dimension_count", c.head_dim));
    if (rotated != c.head_dim) {
      return unsupported("rope.dimension_count", std::to_string(rotated),
                         concat("the head's ", c.head_dim));
    }
    MKV_ASSIGN(const double theta, metadata_.get_or<double>(key("rope.freq_base"), 10000.0));
    MKV_ASSIGN(std::vector<double> frequencies, located(rope_frequencies(c.head_dim, theta)));

    // As llama.cpp reads it: linear unless it says otherwise, 0 and no factor meaning 1; an older
    // key for the same comes second.
    MKV_ASSIGN(const std::string_view type,
               metadata_.get_or<std::string_view>(key("rope.scaling.type"), "linear"));
    MKV_ASSIGN(double factor, metadata_.get_or<double>(key("rope.scale_linear"), 0.0));
    MKV_ASSIGN(factor, metadata_.get_or<double>(key("rope.scaling.factor"), factor));
    if (type != "none" && type != "linear") {
      return unsupported("rope.scaling.type", type, "none or linear");
    }
    if (type == "linear" && factor != 0) {
      MKV_TRY(located(scale_linear(frequencies, factor)));
    }
    MKV_ASSIGN(const TensorView* divisors, file_.find("rope_freqs.weight"));
    if (divisors != nullptr) {
      MKV_ASSIGN(const auto values,
                 load_vector(file_.tensors(), "rope_freqs.weight", frequencies.size()));
      MKV_TRY(located(divide_frequencies(frequencies, values)));
    }
    return Rotary(std::move(frequencies));
  }

  // What llama.cpp takes for granted in a gemma3 file, and the layers' types.
  Result<void> read_gemma(Rotary whole) {
    ModelConfig& c = description_.config;
    for (const char* name : {"attn_logit_softcapping", "final_logit_softcapping"}) {
      MKV_ASSIGN(const double cap, metadata_.get_or<double>(key(name), 0.0));
      if (cap != 0.0) return unsupported(name, std::to_string(cap), "0 or none");
    }
    c.hidden_activation = Activation::gelu_tanh;
    c.embedding_scale = std::sqrt(static_cast<float>(c.hidden_size));
    if (c.num_layers == kLayersOf27B) {
      c.query_pre_attn_scalar = static_cast<double>(c.hidden_size / c.num_heads);
    }
    MKV_ASSIGN(const size_t window, size_or("attention.sliding_window", 0));
    if (window == 0) {
      c.layer_types = LayerTypes(std::move(whole));
      return {};
    }
    MKV_ASSIGN(const double theta, metadata_.get_or<double>(key("rope.freq_base_swa"), 10000.0));
    MKV_ASSIGN(std::vector<double> local, located(rope_frequencies(c.head_dim, theta)));
    MKV_ASSIGN(const size_t period, size_or("attention.sliding_window_pattern", kGemmaPeriod));
    std::vector<uint8_t> sliding(c.num_layers);
    for (size_t l = 0; l < c.num_layers; ++l) sliding[l] = period == 0 || (l + 1) % period != 0;
    c.layer_types = LayerTypes({{.rotary = std::move(whole), .window = kWholeContext},
                                {.rotary = Rotary(std::move(local)), .window = window}},
                               std::move(sliding));
    return {};
  }

  // GGUF metadata does not say which optional tensors there are: they are there or not.
  Result<void> read_structure() {
    ModelDescription& d = description_;
    d.interleaved_qk = architecture_ == "llama";
    d.qk_norm = architecture_ == "qwen3" || is_gemma();
    d.post_norms = is_gemma();
    MKV_ASSIGN(const TensorView* output, file_.find("output.weight"));
    d.tied_embeddings = output == nullptr;
    MKV_ASSIGN(const TensorView* qkv_bias, file_.find("blk.0.attn_q.bias"));
    d.qkv_bias = qkv_bias != nullptr || architecture_ == "qwen2";
    MKV_ASSIGN(const TensorView* output_bias, file_.find("blk.0.attn_output.bias"));
    d.output_bias = output_bias != nullptr;
    MKV_ASSIGN(const TensorView* mlp_bias, file_.find("blk.0.ffn_gate.bias"));
    d.mlp_bias = mlp_bias != nullptr;
    return {};
  }

  const GgufFile& file_;
  const GgufMetadata& metadata_;
  const std::string architecture_;
  ModelDescription description_;
};

}  // namespace

Result<ModelDescription> describe_gguf(const GgufFile& file) {
  MKV_ASSIGN(const std::string_view architecture,
             file.metadata().get<std::string_view>("general.architecture"));
  if (architecture != "llama" && architecture != "qwen2" && architecture != "qwen3" &&
      architecture != "gemma3") {
    return in_context(file.path(), bad_value(ErrorCode::unsupported, "general.architecture",
                                             architecture, "llama, qwen2, qwen3 or gemma3"));
  }
  return GgufDescriber(file, std::string(architecture)).describe();
}

}  // namespace mkv
