// The config in a Hugging Face config.json, of transformers 4 (rope_theta, rope_scaling) or
// 5 (rope_parameters). Keys that are absent have the defaults of transformers' config classes.
#include <cmath>
#include <string>
#include <utility>

#include "model/config.h"
#include "model/rope_frequencies.h"
#include "store/message.h"

namespace mkv {
namespace {

constexpr size_t kQwen3HeadDim = 128, kGemmaHeadDim = 256;
constexpr size_t kMistralWindow = 4096;

Error unsupported(std::string_view key, std::string_view found, std::string_view expected) {
  return bad_value(ErrorCode::unsupported, key, found, expected);
}

bool is_set(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && !found->is_null();
}

class HfDescriber {
 public:
  HfDescriber(const Json& json, std::string model_type)
      : json_(json), model_type_(std::move(model_type)) {}

  Result<ModelDescription> describe() {
    MKV_TRY(refuse_unsupported());
    MKV_TRY(read_sizes());
    MKV_TRY(check_config(description_.config));
    if (is_gemma()) {
      MKV_TRY(read_gemma());
    } else {
      MKV_TRY(refuse_sliding_window());
      MKV_ASSIGN(Rotary rotary, read_rotary());
      description_.config.layer_types = LayerTypes(std::move(rotary));
    }
    MKV_TRY(read_structure());
    return std::move(description_);
  }

 private:
  bool is_gemma() const { return model_type_ == "gemma3_text"; }

  Result<void> refuse_unsupported() const {
    const char* key = is_gemma() ? "hidden_activation" : "hidden_act";
    const char* expected = is_gemma() ? "gelu_pytorch_tanh" : "silu";
    MKV_ASSIGN(const std::string activation, get_string_or(json_, key, expected));
    if (activation != expected) return unsupported(key, activation, expected);
    if (is_set(json_, "quantization_config")) {
      const Json& quantization = json_.at("quantization_config");
      MKV_ASSIGN(const std::string method, quantization.is_object()
                                               ? get_string_or(quantization, "quant_method", "one")
                                               : Result<std::string>("one"));
      return unsupported("quantization_config", method, "none: f32, f16 or bf16 weights");
    }
    return {};
  }

  Result<void> read_sizes() {
    ModelConfig& c = description_.config;
    c.architecture = model_type_;
    MKV_ASSIGN(c.name, get_string_or(json_, "_name_or_path", ""));
    MKV_ASSIGN(c.vocab_size, get_size(json_, "vocab_size"));
    MKV_ASSIGN(c.hidden_size, get_size(json_, "hidden_size"));
    MKV_ASSIGN(c.intermediate_size, get_size(json_, "intermediate_size"));
    MKV_ASSIGN(c.num_layers, get_size(json_, "num_hidden_layers"));
    MKV_ASSIGN(c.num_heads, get_size(json_, "num_attention_heads"));
    MKV_ASSIGN(c.max_position_embeddings, get_size(json_, "max_position_embeddings"));
    if (model_type_ == "llama") {
      MKV_ASSIGN(c.num_kv_heads, get_size_or(json_, "num_key_value_heads", c.num_heads));
    } else {
      MKV_ASSIGN(c.num_kv_heads, get_size(json_, "num_key_value_heads"));
    }
    MKV_ASSIGN(const double epsilon, get_double_or(json_, "rms_norm_eps", 1e-6));
    c.rms_norm_epsilon = static_cast<float>(epsilon);
    return read_head_dim();
  }

  Result<void> read_head_dim() {
    ModelConfig& c = description_.config;
    if (is_set(json_, "head_dim") || model_type_ == "qwen3" || is_gemma()) {
      MKV_ASSIGN(c.head_dim,
                 get_size_or(json_, "head_dim", is_gemma() ? kGemmaHeadDim : kQwen3HeadDim));
      return {};
    }
    if (c.num_heads == 0 || c.hidden_size % c.num_heads != 0) {
      return bad_value(ErrorCode::corrupt, "hidden_size", std::to_string(c.hidden_size),
                       concat("a multiple of ", c.num_heads, " heads"));
    }
    c.head_dim = c.hidden_size / c.num_heads;
    return {};
  }

  // A window as long as the longest text changes nothing; a shorter one would need another cache.
  Result<void> refuse_sliding_window() const {
    const size_t longest = description_.config.max_position_embeddings;
    const bool absent = json_.find("sliding_window") == json_.end();
    MKV_ASSIGN(const size_t window,
               get_size_or(json_, "sliding_window",
                           model_type_ == "mistral" && absent ? kMistralWindow : longest));
    MKV_ASSIGN(const bool uses, get_bool_or(json_, "use_sliding_window", model_type_ == "mistral"));
    if (uses && window < longest) {
      return unsupported("sliding_window", std::to_string(window),
                         concat("at least max_position_embeddings ", longest, ", or null"));
    }
    if (!is_set(json_, "layer_types")) return {};
    MKV_ASSIGN(const Json* types, get_array(json_, "layer_types"));
    for (const Json& type : *types) {
      const std::string name = type.is_string() ? type.get<std::string>() : type.type_name();
      const bool full =
          name == "full_attention" || (name == "sliding_attention" && window >= longest);
      if (!full) return unsupported("layer_types", name, "full_attention");
    }
    return {};
  }

  // Of two layer types: every full_attention of the list (or the last of every six) sees the whole
  // context.
  Result<void> read_gemma() {
    ModelConfig& c = description_.config;
    for (const char* key : {"attn_logit_softcapping", "final_logit_softcapping"}) {
      if (is_set(json_, key)) return unsupported(key, json_.at(key).dump(), "null");
    }
    MKV_ASSIGN(const bool both_ways, get_bool_or(json_, "use_bidirectional_attention", false));
    if (both_ways) return unsupported("use_bidirectional_attention", "true", "false");
    c.hidden_activation = Activation::gelu_tanh;
    c.embedding_scale = std::sqrt(static_cast<float>(c.hidden_size));
    MKV_ASSIGN(c.query_pre_attn_scalar, get_double_or(json_, "query_pre_attn_scalar", 256.0));
    if (!(c.query_pre_attn_scalar > 0.0)) {
      return bad_value(ErrorCode::corrupt, "query_pre_attn_scalar",
                       std::to_string(c.query_pre_attn_scalar), "a positive number");
    }
    MKV_ASSIGN(const size_t window, get_size_or(json_, "sliding_window", 4096));
    if (window == 0) return bad_value(ErrorCode::corrupt, "sliding_window", "0", "at least 1");
    MKV_ASSIGN(Rotary whole, gemma_rotary("full_attention", "rope_theta", 1e6));
    MKV_ASSIGN(Rotary local, gemma_rotary("sliding_attention", "rope_local_base_freq", 1e4));
    MKV_ASSIGN(std::vector<uint8_t> sliding, sliding_layers());
    c.layer_types = LayerTypes({{.rotary = std::move(whole), .window = kWholeContext},
                                {.rotary = std::move(local), .window = window}},
                               std::move(sliding));
    return {};
  }

  // transformers 5 has rope_parameters of each layer type, 4 a base of each and one rope_scaling,
  // which is for the layers that see everything.
  Result<Rotary> gemma_rotary(const char* type, const char* old_base, double base) const {
    static const Json kNone = Json::object();
    const Json* parameters = &kNone;
    MKV_ASSIGN(base, get_double_or(json_, old_base, base));
    if (is_set(json_, "rope_parameters")) {
      MKV_ASSIGN(const Json* by_type, get_object(json_, "rope_parameters"));
      if (is_set(*by_type, type)) {
        MKV_ASSIGN(parameters, get_object(*by_type, type));
      }
    } else if (is_set(json_, "rope_scaling") && std::string_view(type) == "full_attention") {
      MKV_ASSIGN(parameters, get_object(json_, "rope_scaling"));
    }
    return read_rotary(*parameters, base);
  }

  Result<std::vector<uint8_t>> sliding_layers() const {
    const size_t layers = description_.config.num_layers;
    std::vector<uint8_t> sliding(layers);
    if (!is_set(json_, "layer_types")) {
      MKV_ASSIGN(const size_t period, get_size_or(json_, "sliding_window_pattern", 6));
      for (size_t l = 0; l < layers; ++l) sliding[l] = period == 0 || (l + 1) % period != 0;
      return sliding;
    }
    MKV_ASSIGN(const Json* types, get_array(json_, "layer_types"));
    if (types->size() != layers) {
      return bad_value(ErrorCode::corrupt, "layer_types", concat(types->size(), " types"),
                       concat("one for each of ", layers, " layers"));
    }
    for (size_t l = 0; l < layers; ++l) {
      const Json& type = (*types)[l];
      const std::string name = type.is_string() ? type.get<std::string>() : type.type_name();
      if (name != "full_attention" && name != "sliding_attention") {
        return unsupported("layer_types", name, "full_attention or sliding_attention");
      }
      sliding[l] = name == "sliding_attention";
    }
    return sliding;
  }

  Result<Rotary> read_rotary() const {
    static const Json kNone = Json::object();
    const Json* parameters = &kNone;
    for (const char* key : {"rope_scaling", "rope_parameters"}) {
      if (!is_set(json_, key)) continue;
      MKV_ASSIGN(parameters, get_object(json_, key));
    }
    MKV_ASSIGN(const double base, get_double_or(json_, "rope_theta", 10000.0));
    return read_rotary(*parameters, base);
  }

  // `base` is what stands outside of the parameters.
  Result<Rotary> read_rotary(const Json& parameters, double base) const {
    const size_t head_dim = description_.config.head_dim;
    MKV_ASSIGN(const double theta, get_double_or(parameters, "rope_theta", base));
    MKV_ASSIGN(const double outer_part, get_double_or(json_, "partial_rotary_factor", 1.0));
    MKV_ASSIGN(const double part, get_double_or(parameters, "partial_rotary_factor", outer_part));
    if (part != 1.0) return unsupported("partial_rotary_factor", std::to_string(part), "1");
    MKV_ASSIGN(std::vector<double> frequencies, rope_frequencies(head_dim, theta));
    MKV_TRY(scale(parameters, frequencies));
    return Rotary(std::move(frequencies));
  }

  Result<void> scale(const Json& parameters, std::vector<double>& frequencies) const {
    MKV_ASSIGN(const std::string old_name, get_string_or(parameters, "type", "default"));
    MKV_ASSIGN(const std::string type, get_string_or(parameters, "rope_type", old_name));
    if (type == "default") return {};
    if (type != "linear" && type != "llama3") {
      return unsupported("rope_type", type, "default, linear or llama3");
    }
    MKV_ASSIGN(const double factor, get_double(parameters, "factor"));
    if (type == "linear") return scale_linear(frequencies, factor);
    Llama3Scaling scaling;
    scaling.factor = factor;
    MKV_ASSIGN(scaling.low_frequency_factor, get_double(parameters, "low_freq_factor"));
    MKV_ASSIGN(scaling.high_frequency_factor, get_double(parameters, "high_freq_factor"));
    MKV_ASSIGN(scaling.original_context,
               get_double(parameters, "original_max_position_embeddings"));
    return scale_llama3(frequencies, scaling);
  }

  Result<void> read_structure() {
    ModelDescription& d = description_;
    MKV_ASSIGN(d.tied_embeddings, get_bool_or(json_, "tie_word_embeddings", is_gemma()));
    MKV_ASSIGN(const bool attention_bias, get_bool_or(json_, "attention_bias", false));
    MKV_ASSIGN(const bool mlp_bias, get_bool_or(json_, "mlp_bias", false));
    const bool has_option = model_type_ == "llama" || model_type_ == "qwen3" || is_gemma();
    d.output_bias = has_option && attention_bias;
    d.qkv_bias = d.output_bias || model_type_ == "qwen2";
    d.mlp_bias = model_type_ == "llama" && mlp_bias;
    d.qk_norm = model_type_ == "qwen3" || is_gemma();
    d.post_norms = d.norms_less_one = is_gemma();
    return {};
  }

  const Json& json_;
  const std::string model_type_;
  ModelDescription description_;
};

}  // namespace

Result<ModelDescription> describe_hf(const Json& json) {
  MKV_ASSIGN(const std::string type, get_string(json, "model_type"));
  if (type != "llama" && type != "mistral" && type != "qwen2" && type != "qwen3" &&
      type != "gemma3_text") {
    return unsupported("model_type", type, "llama, mistral, qwen2, qwen3 or gemma3_text");
  }
  return HfDescriber(json, type).describe();
}

}  // namespace mkv
