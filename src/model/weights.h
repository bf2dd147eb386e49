// A model's tensors by role. Matrices are views into the mapped file, in the type they have there,
// until pack_weights brings them into tiles; vectors (norms, biases) are small and copied to
// float32, in Hugging Face order.
#pragma once

#include <string_view>
#include <vector>

#include "base/result.h"
#include "model/config.h"
#include "ops/weight.h"
#include "store/tensor_table.h"

namespace mkv {

// An empty vector means that the model has none.
struct LayerWeights {
  std::vector<float> attention_norm, ffn_norm;  // [hidden]
  Weight query, key, value;                     // [heads*head_dim | kv_heads*head_dim x hidden]
  Weight output;                                // [hidden x heads*head_dim]
  Weight gate, up;                              // [intermediate x hidden]
  Weight down;                                  // [hidden x intermediate]
  std::vector<float> query_bias, key_bias, value_bias, output_bias;
  std::vector<float> gate_bias, up_bias, down_bias;
  std::vector<float> query_norm, key_norm;                // [head_dim]
  std::vector<float> attention_post_norm, ffn_post_norm;  // [hidden], of what is added
};

struct ModelWeights {
  Weight embedding;  // [vocab x hidden]
  Weight output;     // [vocab x hidden]; the embedding when tied
  std::vector<float> final_norm;
  std::vector<LayerWeights> layers;
};

// A tied output projection counts once.
struct WeightTotals {
  size_t bytes = 0, parameters = 0;
};
WeightTotals count(const ModelWeights& weights);

// How a file format names the tensors; a layer's names follow its prefix and number.
struct TensorNames {
  std::string_view embedding, output, final_norm, layer_prefix;
  std::string_view attention_norm, ffn_norm, query, key, value, attention_output, gate, up, down,
      query_norm, key_norm, attention_post_norm, ffn_post_norm;
};
extern const TensorNames kGgufNames, kHuggingFaceNames, kHuggingFaceGemmaNames;

// Errors name the file, the tensor, the shape found and the one that the config asks for.
Result<ModelWeights> load_weights(const ModelDescription& description, const TensorNames& names,
                                  const TensorTable& tensors);

// A vector of any type as float32; it must have exactly `size` elements.
Result<std::vector<float>> load_vector(const TensorTable& tensors, std::string_view name,
                                       size_t size);

}  // namespace mkv
