// The steps of a layer that are written as autograd functions of their own, because what autograd
// would keep for them does not fit: each keeps its inputs and computes the rest again.
// These headers include LibTorch; nothing outside src/train/torch includes them.
#pragma once

#include <torch/torch.h>

#include <cstdint>

namespace mkv::training {

using torch::Tensor;

// y = x / rms(x) * weight over the last dimension. x [tokens x n]; the weight [n] is frozen.
Tensor rms_norm(const Tensor& x, const Tensor& weight, double epsilon);

// RoPE of heads [heads x tokens x head_dim], both halves of a head together; cos and sin, frozen,
// [tokens x head_dim / 2].
Tensor rotate(const Tensor& x, const Tensor& cos, const Tensor& sin);

// silu(gate) * up, of equal shapes.
Tensor swiglu(const Tensor& gate, const Tensor& up);

// Which keys a token sees exactly: see KvCache. `coded` rows of sinks hold exact values already.
struct AttentionView {
  int64_t sinks = 0, recent = 0;  // tokens; recent 0: no window
};

// Causal attention over a whole window from position 0: q [kv_heads x repeats x tokens x head_dim],
// keys and values [kv_heads x tokens x head_dim]; returns q's shape. The exact ones are read only
// if the view has a window. Memory grows with the tokens alone.
struct AttentionInputs {
  Tensor queries, coded_keys, coded_values, exact_keys, exact_values;
};
Tensor attention(const AttentionInputs& in, double scale, const AttentionView& view);

}  // namespace mkv::training
