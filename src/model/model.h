// Model: a LLaMA-family transformer, read from a GGUF file or a Hugging Face folder and run as it
// is.
#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/buffer.h"
#include "base/result.h"
#include "base/workers.h"
#include "nest/kv_cache.h"
#include "nest/layer_types.h"
#include "ops/weight.h"
#include "text/tokenizer.h"

namespace mkv {

struct ModelWeights;  // model/weights.h

// Of the gate of a feed-forward layer.
enum class Activation : uint8_t { silu, gelu_tanh };

struct ModelConfig {         // Hugging Face's names
  std::string architecture;  // llama, mistral, qwen2, qwen3, gemma3 or gemma3_text
  std::string name;
  size_t vocab_size = 0, hidden_size = 0, intermediate_size = 0;
  size_t num_layers = 0, num_heads = 0, num_kv_heads = 0, head_dim = 0;
  size_t max_position_embeddings = 0;
  float rms_norm_epsilon = 1e-5f;
  Activation hidden_activation = Activation::silu;
  float embedding_scale = 1.0f;        // of the embedding's rows as they enter the first layer
  double query_pre_attn_scalar = 0.0;  // 0: head_dim
  LayerTypes layer_types;

  KvShape kv_shape() const { return {num_layers, num_kv_heads, head_dim}; }
  const Rotary& rotary(size_t layer) const { return layer_types.of(layer).rotary; }
  float attention_scale() const;  // 1 / sqrt(query_pre_attn_scalar)
};

// One layer's projections, for those who gather statistics. Positions first_position ... + rows
// - 1.
struct LayerObservation {
  size_t layer = 0, first_position = 0;
  View<const float> queries;           // [tokens x heads*head_dim], after RoPE
  View<const float> keys_before_rope;  // [tokens x kv_heads*head_dim], after QK norm
  View<const float> keys, values;      // [tokens x kv_heads*head_dim]
  View<const float> attended;          // [tokens x heads*head_dim], attention's output before W_O
};
using LayerObserver = std::function<void(const LayerObservation&)>;

// Which tokens see which others as codes (nest/kv_cache.h), for gradients.
struct CodedView {
  size_t sinks = 0, recent = 0;
  size_t later_sinks = 0;  // most a layer (nest/later_sinks.h): exact for all

  // The first token of a window that sees `key`, no later sink, as codes; past any window for a
  // sink.
  size_t first_query_that_sees_codes(size_t key) const {
    if (key < sinks) return static_cast<size_t>(-1);
    if (recent == 0) return key;
    return sinks + ((key - sinks) / kBlockTokens * kBlockTokens + recent);
  }
};

// Gradients of a window's loss with respect to each token's key (after RoPE) and value, through
// those tokens alone that see it as codes.
struct LayerGradient {
  size_t layer = 0;
  View<const float> keys, values;                    // [tokens x kv_heads*head_dim]
  View<const float> key_gradients, value_gradients;  // the same shape
  std::span<const uint32_t> later_sinks;             // tokens; their gradients are 0
};
using GradientSink = std::function<void(const LayerGradient&)>;

// New tokens of one sequence; their positions follow cache->length().
struct SequenceSlice {
  std::span<const TokenId> tokens;
  KvCache* cache = nullptr;
  // Only the last token's hidden row is asked for: the last layer makes no others.
  bool last_only = false;
};

// Cosines and sines of positions. [tokens x pairs]
struct Angles {
  Matrix<float> cos, sin;
};

// Activations of a forward pass, reused; one a thread that calls. What goes into attention and
// what the feed-forward layer widens lie in the same memory, as they are never needed at once.
struct Scratch {
  Matrix<float> normed, keys_before_rope, attended;
  Buffer<float> shared;
  std::vector<Angles> angles;  // of the tokens, by layer type
  std::vector<size_t> asking;  // tokens whose output the last layer makes
  AttentionScratch attention;
};

// Immutable after load: const members are safe from many threads, each with its own Scratch.
class Model {
 public:
  static Result<Model> load(const std::filesystem::path& path);
  Model(Model&&) noexcept;
  Model& operator=(Model&&) noexcept;
  ~Model();

  const ModelConfig& config() const;
  const Tokenizer& tokenizer() const;
  const std::optional<std::string>& chat_template() const;  // Jinja source
  const Weight& output_projection(size_t layer) const;      // W_O [hidden x heads*head_dim]
  // All tensors as the file has them, for those who run the model in another way (train/).
  const ModelWeights& weights() const;
  // Rows of W_q and W_k alternate the two halves of a head (model/head_order.h).
  bool interleaved_qk() const;
  size_t weight_bytes() const;
  // Of these, about what a greedy token reads: no embedding but its own, no rests of an output
  // projection in planes (ops/planes.h) but those of the likeliest tokens.
  size_t weight_bytes_of_token() const;
  size_t parameters() const;
  std::string weights_hash() const;  // SHA-256 over names, shapes and bytes; computed on first use

  KvCache exact_cache(size_t capacity, KvOptions options = {}) const;

  // The errors of forward(), before any work: a token out of the vocabulary, a cache without room.
  Result<void> check_tokens(std::span<const TokenId> tokens) const;
  Result<void> check(std::span<const SequenceSlice> slices) const;

  // Runs new tokens through all layers: hidden[sum of tokens x hidden_size], after the last norm;
  // of a slice with last_only one row, and then there must be no observer. On error no cache has
  // changed length.
  Result<void> forward(std::span<const SequenceSlice> slices, Matrix<float>& hidden,
                       Scratch& scratch, Workers& workers,
                       const LayerObserver& observer = {}) const;

  // The same in parts, for searches that change one layer and re-run only what follows it: embed,
  // then layers first ... last-1 in place (the last one of the model leaves the rows that are asked
  // for), then finish (the last norm). Caches are not committed.
  Result<void> embed(std::span<const TokenId> tokens, Matrix<float>& hidden) const;
  Result<void> run_layers(std::span<const SequenceSlice> slices, size_t first, size_t last,
                          Matrix<float>& hidden, Scratch& scratch, Workers& workers,
                          const LayerObserver& observer = {}) const;
  void finish(Matrix<float>& hidden) const;

  // One backward pass over a window of tokens: the loss is the sum over positions of -ln p(label),
  // labels drawn from the model's own distribution (so that the second moments of its gradients are
  // the Fisher information; model/gradients.cc). Layers are told from last to first.
  Result<void> gradients(std::span<const TokenId> tokens, uint64_t seed, const CodedView& view,
                         const GradientSink& sink, Workers& workers) const;

  // logits[rows x vocab_size] of hidden rows.
  void logits(View<const float> hidden, View<float> logits, Workers& workers) const;
  // The same of one hidden row where only the likeliest tokens count, which takes less time if the
  // output projection has planes (ops/planes.h): logits that may be within `within` of the largest
  // (0 or more) have the same bits, others are off by a nat or so and less
  // than these (ops/likely_rows.h).
  void likely_logits(std::span<const float> hidden, float within, std::span<float> logits,
                     Workers& workers) const;

 private:
  struct Parts;
  explicit Model(std::unique_ptr<Parts> parts);
  static Result<std::unique_ptr<Parts>> load_gguf(const std::filesystem::path& path);
  static Result<std::unique_ptr<Parts>> load_folder(const std::filesystem::path& path);
  std::unique_ptr<Parts> parts_;
};

}  // namespace mkv
