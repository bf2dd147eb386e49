// What training does in bf16 on a processor: products with float32 sums, and between them the
// passes of ops/bf16.h. Tensors in bf16 are on the CPU.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <span>

#include "train/torch/functions.h"

namespace mkv::training {

using torch::Tensor;

// Of a tensor whose last dimension is contiguous, row `row` of its rows in order.
std::span<uint16_t> bf16_row(const Tensor& tensor, int64_t row);
std::span<float> f32_row(const Tensor& tensor, int64_t row);

// out [batch x m x n], float32, = a [batch x m x k] b [batch x k x n] of bf16. Views will do,
// transposed ones of a and b too.
void bf16_products(const Tensor& a, const Tensor& b, Tensor out);
// The same, added to `sum`.
void add_bf16_products(const Tensor& a, const Tensor& b, Tensor sum);

// silu(gate) * up of bf16, with its gradient.
Tensor swiglu_of_bf16(const Tensor& gate, const Tensor& up);

// attention() of functions.h.
Tensor attention_in_bf16(const AttentionInputs& in, double scale, const AttentionView& view);

}  // namespace mkv::training
