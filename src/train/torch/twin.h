// The engine's model again, in LibTorch, with gradients to the codes of its cache. The weights are
// the engine's own, dequantised, in Hugging Face's order, and have no gradient.
#pragma once

#include <torch/torch.h>

#include <functional>
#include <span>
#include <vector>

#include "model/model.h"
#include "train/torch/functions.h"
#include "train/torch/slab_code.h"

namespace mkv::training {

// How one side of a layer is coded; all groups of KV heads together. As Basis has it, a token's
// latents are z = encode (x - mean), and x ~ decode (what is kept of z) + mean.
struct SideCode {
  Tensor encode, decode;          // [groups x dims x dims]
  Tensor mean;                    // [groups x dims]; undefined: none
  Tensor mask;                    // columns: [groups x 1 x dims], 1 for those that are kept
  std::vector<SpaceSlabs> slabs;  // codes: by group, those that are kept
};

// Cached keys and values of a whole model; empty `layers`: all exact.
struct CacheCode {
  std::vector<std::array<SideCode, 2>> layers;  // key, value
  bool position_mean = false;                   // the key's mean turns with the position
  // As the engine's cache stores them at 16 bits: columns; for codes, the keys and values that are
  // coded or seen exactly. What tests compare; training goes without, and without a gradient.
  bool rounded = false;
  AttentionView view;
  size_t later_sinks = 0;  // most a layer (nest/later_sinks.h)
};

// A low-rank addition to a projection's weight (LoRA, arXiv:2106.09685): W + scale up down.
struct Adapter {
  Tensor down, up;  // [rank x cols], [rows x rank]; undefined: none
  double scale = 1.0;
};
struct LayerAdapters {
  Adapter query, key, value, output, gate, up, down;
};

// Tokens from position 0 of a cache of their own.
struct Sequence {
  std::span<const TokenId> tokens;
  const CacheCode* code = nullptr;  // null: all exact
};

struct TwinOptions {
  torch::Device device = torch::kCPU;
  // Products with weights; on a processor those of attention and what is between them too.
  bool bf16 = false;
};

// Immutable; forward() is safe from many threads. Throws what torch throws.
class Twin {
 public:
  Twin(const Model& model, const TwinOptions& options);

  // [tokens x hidden], after the last norm.
  Tensor hidden(std::span<const TokenId> tokens, const CacheCode& code,
                const std::vector<LayerAdapters>& adapters = {}) const {
    const Sequence one{tokens, &code};
    return hidden(std::span(&one, 1), adapters);
  }
  // Of several sequences, one after the other: the products of all tokens are one. With adapters,
  // by layer; none if empty.
  Tensor hidden(std::span<const Sequence> sequences,
                const std::vector<LayerAdapters>& adapters) const;
  // Along the hidden states of an exact cache: for every layer what its attention adds to them, as
  // coded, with its gradient, and as it is.
  using AttentionVisit = std::function<void(const Tensor& coded, const Tensor& exact)>;
  void visit_attention(std::span<const TokenId> tokens, const CacheCode& code,
                       const AttentionVisit& visit) const;
  // hidden [rows x hidden] -> [rows x vocab]
  Tensor logits(const Tensor& hidden) const { return product(hidden, output_); }
  // The same as bf16, which they are rounded to anyway.
  Tensor logits_in_bf16(const Tensor& hidden) const {
    return hidden.to(torch::kBFloat16).mm(output_.t());
  }
  bool bf16_on_cpu() const { return options_.bf16 && options_.device.is_cpu(); }
  // d [rows x vocab] -> [rows x hidden]: the gradient through logits().
  Tensor logits_backward(const Tensor& d) const;
  const ModelConfig& config() const { return config_; }
  torch::Device device() const { return options_.device; }

 private:
  struct Layer {
    Tensor attention_norm, ffn_norm, query_norm, key_norm;
    Tensor query, key, value, output, gate, up, down;
    Tensor query_bias, key_bias, value_bias, output_bias, gate_bias, up_bias, down_bias;
  };
  struct Angles {
    Tensor cos, sin;  // [tokens x head_dim/2]
  };
  Angles angles(size_t tokens) const;
  Tensor product(const Tensor& x, const Tensor& weight) const;  // x W^T
  Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias,
                const Adapter& adapter) const;
  // y, of linear(), as heads [heads x tokens x head_dim] with a norm.
  Tensor heads(const Tensor& y, const Tensor& norm) const;
  // x [tokens x hidden] of all sequences; `angles` as long as the longest. later_sinks: of each
  // sequence, of the layer before on entry, of this one on return.
  Tensor attend(size_t layer, const LayerAdapters& adapters, const Tensor& x,
                std::span<const Sequence> sequences, const Angles& angles,
                std::vector<std::vector<uint32_t>>& later_sinks) const;
  // What it adds to hidden.
  Tensor feed_forward(size_t layer, const LayerAdapters& adapters, const Tensor& hidden) const;
  // One sequence's, of linear()'s rows: [tokens x heads * head_dim].
  Tensor attend_alone(size_t layer, const std::array<Tensor, 3>& qkv, const CacheCode* code,
                      const Angles& at, std::vector<uint32_t>& later_sinks) const;

  ModelConfig config_;
  TwinOptions options_;
  Tensor embedding_, output_, final_norm_;
  std::vector<Layer> layers_;
};

}  // namespace mkv::training
