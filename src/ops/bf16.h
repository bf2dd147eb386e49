// Rows of bf16 (as uint16_t), for products of bf16 whose sums are float32, and the passes over such
// rows that training makes between its products. A pass reads each number once, computes in float32
// and rounds once, to nearest even.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace mkv {

void f32_to_bf16(std::span<const float> in, std::span<uint16_t> out);

// Of one query's scores, of which it sees the first `seen` >= 1: p = exp(score - largest), the
// others 0. The caller divides by the sum.
struct ExpRow {
  float largest = 0, sum = 0;  // the sum of what is not rounded
};
ExpRow exp_row(std::span<const float> scores, size_t seen, std::span<uint16_t> p);

// The same again from the logarithm of the sum of exponentials, and the gradient of the scores:
// p = exp(score - log_sum), d_score = p (d_p - mean); both 0 for what is not seen.
struct ExpRowGradient {
  std::span<const float> scores, d_p;
  float log_sum = 0, mean = 0;
};
void exp_row_backward(const ExpRowGradient& row, size_t seen, std::span<uint16_t> p,
                      std::span<uint16_t> d_score);

// silu(gate) * up, and its gradients for d.
void swiglu_bf16(std::span<const uint16_t> gate, std::span<const uint16_t> up,
                 std::span<uint16_t> out);
struct SwigluGradient {
  std::span<const uint16_t> d, gate, up;
};
void swiglu_bf16_backward(const SwigluGradient& in, std::span<uint16_t> d_gate,
                          std::span<uint16_t> d_up);

// Of one token's logits: KL(teacher || student) and -log q(target) in nats, and the gradient
// kl_weight (q - p) + cross_entropy_weight (q - one-hot). An empty teacher has a KL of 0.
struct VocabularyRow {
  std::span<const uint16_t> teacher, student;
  size_t target = 0;
  float kl_weight = 1, cross_entropy_weight = 0;
};
struct VocabularyLoss {
  double kl = 0, cross_entropy = 0;
};
// scratch: two rows.
VocabularyLoss vocabulary_loss(const VocabularyRow& row, std::span<float> scratch,
                               std::span<uint16_t> gradient);

}  // namespace mkv
