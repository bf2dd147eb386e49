#include "model/weights.h"

#include <string>

#include "model/head_order.h"
#include "ops/ops.h"
#include "store/message.h"

namespace mkv {

const TensorNames kGgufNames = {
    .embedding = "token_embd",
    .output = "output",
    .final_norm = "output_norm",
    .layer_prefix = "blk.",
    .attention_norm = "attn_norm",
    .ffn_norm = "ffn_norm",
    .query = "attn_q",
    .key = "attn_k",
    .value = "attn_v",
    .attention_output = "attn_output",
    .gate = "ffn_gate",
    .up = "ffn_up",
    .down = "ffn_down",
    .query_norm = "attn_q_norm",
    .key_norm = "attn_k_norm",
    .attention_post_norm = "post_attention_norm",
    .ffn_post_norm = "post_ffw_norm",
};

const TensorNames kHuggingFaceNames = {
    .embedding = "model.embed_tokens",
    .output = "lm_head",
    .final_norm = "model.norm",
    .layer_prefix = "model.layers.",
    .attention_norm = "input_layernorm",
    .ffn_norm = "post_attention_layernorm",
    .query = "self_attn.q_proj",
    .key = "self_attn.k_proj",
    .value = "self_attn.v_proj",
    .attention_output = "self_attn.o_proj",
    .gate = "mlp.gate_proj",
    .up = "mlp.up_proj",
    .down = "mlp.down_proj",
    .query_norm = "self_attn.q_norm",
    .key_norm = "self_attn.k_norm",
    .attention_post_norm = {},
    .ffn_post_norm = {},
};

// The norm before the feed-forward has another name, and its old one is that after attention.
const TensorNames kHuggingFaceGemmaNames = [] {
  TensorNames names = kHuggingFaceNames;
  names.ffn_norm = "pre_feedforward_layernorm";
  names.attention_post_norm = "post_attention_layernorm";
  names.ffn_post_norm = "post_feedforward_layernorm";
  return names;
}();

namespace {

Result<const TensorView*> checked_tensor(const TensorTable& tensors, std::string_view name,
                                         const std::vector<size_t>& shape) {
  MKV_ASSIGN(const TensorView* tensor, tensors.get(name));
  const std::string where = concat(tensors.source(), ": tensor ", name);
  if (tensor->shape != shape) {
    return bad_value(ErrorCode::corrupt, where, shape_text(tensor->shape), shape_text(shape));
  }
  const DTypeInfo& type = info(tensor->type);
  if (shape.back() % type.block_elements != 0) {
    return bad_value(ErrorCode::corrupt, where, concat("rows of ", shape.back()),
                     concat("a multiple of ", type.block_elements, " for ", type.name));
  }
  size_t rows = 1;
  for (size_t i = 0; i + 1 < shape.size(); ++i) rows *= shape[i];
  const size_t bytes = rows * row_bytes(tensor->type, shape.back());
  if (tensor->size_bytes != bytes) {
    return bad_value(ErrorCode::corrupt, where, concat(tensor->size_bytes, " bytes"),
                     std::to_string(bytes));
  }
  return tensor;
}

class Loader {
 public:
  Loader(const ModelDescription& description, const TensorNames& names, const TensorTable& tensors)
      : description_(description), config_(description.config), names_(names), tensors_(tensors) {}

  Result<ModelWeights> load() const {
    const size_t vocab = config_.vocab_size, hidden = config_.hidden_size;
    ModelWeights weights;
    MKV_ASSIGN(weights.embedding, matrix(weight_name(names_.embedding), vocab, hidden));
    weights.output = weights.embedding;
    if (!description_.tied_embeddings) {
      MKV_ASSIGN(weights.output, matrix(weight_name(names_.output), vocab, hidden));
    }
    MKV_ASSIGN(weights.final_norm, norm(std::string(names_.final_norm), hidden));
    weights.layers.resize(config_.num_layers);
    for (size_t i = 0; i < config_.num_layers; ++i) {
      const std::string prefix = std::string(names_.layer_prefix) + std::to_string(i) + '.';
      MKV_TRY(load_attention(prefix, weights.layers[i]));
      MKV_TRY(load_ffn(prefix, weights.layers[i]));
    }
    return weights;
  }

 private:
  static std::string weight_name(std::string_view name) { return std::string(name) + ".weight"; }

  Result<Weight> matrix(const std::string& name, size_t rows, size_t cols) const {
    MKV_ASSIGN(const TensorView* tensor, checked_tensor(tensors_, name, {rows, cols}));
    return Weight{tensor->data, tensor->type, rows, cols};
  }

  Result<std::vector<float>> vector(const std::string& name, size_t size) const {
    return load_vector(tensors_, name, size);
  }

  Result<std::vector<float>> norm(const std::string& name, size_t size) const {
    MKV_ASSIGN(std::vector<float> weight, vector(weight_name(name), size));
    if (description_.norms_less_one) {
      for (float& w : weight) w += 1.0f;
    }
    return weight;
  }

  // A projection and, if there is one, its bias.
  Result<void> linear(const std::string& name, size_t rows, size_t cols, Weight& weight,
                      std::vector<float>* bias) const {
    MKV_ASSIGN(weight, matrix(name + ".weight", rows, cols));
    if (bias != nullptr) {
      MKV_ASSIGN(*bias, vector(name + ".bias", rows));
    }
    return {};
  }

  Result<void> load_attention(const std::string& prefix, LayerWeights& layer) const {
    const size_t hidden = config_.hidden_size, head_dim = config_.head_dim;
    const size_t query_width = config_.num_heads * head_dim;
    const size_t key_width = config_.num_kv_heads * head_dim;
    const bool bias = description_.qkv_bias;
    auto name = [&](std::string_view role) { return prefix + std::string(role); };
    MKV_ASSIGN(layer.attention_norm, norm(name(names_.attention_norm), hidden));
    MKV_TRY(linear(name(names_.query), query_width, hidden, layer.query,
                   bias ? &layer.query_bias : nullptr));
    MKV_TRY(
        linear(name(names_.key), key_width, hidden, layer.key, bias ? &layer.key_bias : nullptr));
    MKV_TRY(linear(name(names_.value), key_width, hidden, layer.value,
                   bias ? &layer.value_bias : nullptr));
    MKV_TRY(linear(name(names_.attention_output), hidden, query_width, layer.output,
                   description_.output_bias ? &layer.output_bias : nullptr));
    if (description_.qk_norm) {
      MKV_ASSIGN(layer.query_norm, norm(name(names_.query_norm), head_dim));
      MKV_ASSIGN(layer.key_norm, norm(name(names_.key_norm), head_dim));
    }
    if (description_.post_norms) {
      MKV_ASSIGN(layer.attention_post_norm, norm(name(names_.attention_post_norm), hidden));
    }
    if (description_.interleaved_qk) {
      std::vector<float> scratch(head_dim);
      separate_halves(layer.query_bias, head_dim, scratch);
      separate_halves(layer.key_bias, head_dim, scratch);
    }
    return {};
  }

  Result<void> load_ffn(const std::string& prefix, LayerWeights& layer) const {
    const size_t hidden = config_.hidden_size, inner = config_.intermediate_size;
    const bool bias = description_.mlp_bias;
    auto name = [&](std::string_view role) { return prefix + std::string(role); };
    MKV_ASSIGN(layer.ffn_norm, norm(name(names_.ffn_norm), hidden));
    if (description_.post_norms) {
      MKV_ASSIGN(layer.ffn_post_norm, norm(name(names_.ffn_post_norm), hidden));
    }
    MKV_TRY(
        linear(name(names_.gate), inner, hidden, layer.gate, bias ? &layer.gate_bias : nullptr));
    MKV_TRY(linear(name(names_.up), inner, hidden, layer.up, bias ? &layer.up_bias : nullptr));
    MKV_TRY(
        linear(name(names_.down), hidden, inner, layer.down, bias ? &layer.down_bias : nullptr));
    return {};
  }

  const ModelDescription& description_;
  const ModelConfig& config_;
  const TensorNames& names_;
  const TensorTable& tensors_;
};

}  // namespace

Result<std::vector<float>> load_vector(const TensorTable& tensors, std::string_view name,
                                       size_t size) {
  MKV_ASSIGN(const TensorView* tensor, checked_tensor(tensors, name, {size}));
  std::vector<float> values(size);
  dequantize_row(Weight{tensor->data, tensor->type, 1, size}, 0, values);
  return values;
}

WeightTotals count(const ModelWeights& weights) {
  WeightTotals totals;
  auto add_matrix = [&](const Weight& w) {
    totals.bytes += w.bytes();
    totals.parameters += w.rows * w.cols;
  };
  auto add_vector = [&](const std::vector<float>& v) {
    totals.bytes += v.size() * sizeof(float);
    totals.parameters += v.size();
  };
  add_matrix(weights.embedding);
  if (weights.output.data != weights.embedding.data) add_matrix(weights.output);
  add_vector(weights.final_norm);
  for (const LayerWeights& l : weights.layers) {
    for (const Weight* w : {&l.query, &l.key, &l.value, &l.output, &l.gate, &l.up, &l.down}) {
      add_matrix(*w);
    }
    for (const auto* v : {&l.attention_norm, &l.ffn_norm, &l.query_bias, &l.key_bias, &l.value_bias,
                          &l.output_bias, &l.gate_bias, &l.up_bias, &l.down_bias, &l.query_norm,
                          &l.key_norm, &l.attention_post_norm, &l.ffn_post_norm}) {
      add_vector(*v);
    }
  }
  return totals;
}

Result<ModelWeights> load_weights(const ModelDescription& description, const TensorNames& names,
                                  const TensorTable& tensors) {
  return Loader(description, names, tensors).load();
}

}  // namespace mkv
