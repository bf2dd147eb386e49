// What a model file says about its architecture, checked before anything is allocated by it.
#pragma once

#include <cstddef>
#include <string_view>

#include "base/result.h"
#include "model/model.h"
#include "store/gguf.h"
#include "store/json.h"

namespace mkv {

// A config and what the supported architectures differ in.
struct ModelDescription {
  ModelConfig config;
  bool tied_embeddings = false;  // the output projection is the embedding
  bool qkv_bias = false, output_bias = false, mlp_bias = false;
  bool qk_norm = false;         // RMS norm of each query and key head, before RoPE (qwen3, gemma3)
  bool post_norms = false;      // of what attention and feed-forward add to the residual (gemma3)
  bool norms_less_one = false;  // the file has norm weights less 1 (Hugging Face's gemma3)
  bool interleaved_qk = false;  // rows of W_q and W_k alternate the two halves of a head (GGUF)
};

// The architecture of a GGUF file: llama, qwen2, qwen3 or gemma3. Errors begin with the file's
// path.
Result<ModelDescription> describe_gguf(const GgufFile& file);

// The architecture in a Hugging Face config.json (errors do not name the file): llama, mistral,
// qwen2, qwen3 or gemma3_text. Whether biases and an output projection are there is what the config
// says, not what the tensors show.
Result<ModelDescription> describe_hf(const Json& json);

// Every size within what the rest of the program may rely on.
Result<void> check_config(const ModelConfig& config);

inline constexpr size_t kMaxHeadDim = 1024;

// "KEY: found FOUND, expected EXPECTED"; FOUND may come from outside.
Error bad_value(ErrorCode code, std::string_view key, std::string_view found,
                std::string_view expected);

}  // namespace mkv
