// The plain scalar twin of every kernel in ops/ops.h: what the tests compare with. Sums are double.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/view.h"
#include "ops/bf16.h"
#include "ops/weight.h"

namespace mkv::reference {

void dequantize_row(const Weight& w, size_t row, std::span<float> out);
void matmul(View<const float> x, const Weight& w, View<float> y);

double dot(std::span<const float> a, std::span<const float> b);
void axpy(float scale, std::span<const float> x, std::span<float> y);
void rms_norm(std::span<const float> x, std::span<const float> weight, float epsilon,
              std::span<float> out);
void swiglu(std::span<float> gate, std::span<const float> up);
void geglu(std::span<float> gate, std::span<const float> up);
void softmax(std::span<float> x, float scale);
double log_sum_exp(std::span<const float> x);
size_t index_of_largest(std::span<const float> x);
void f32_to_f16(std::span<const float> in, std::span<uint16_t> out);
void f16_to_f32(std::span<const uint16_t> in, std::span<float> out);
void rope(std::span<float> head, std::span<const float> cos, std::span<const float> sin);

// ops/bf16.h, not rounded where it says double.
void f32_to_bf16(std::span<const float> in, std::span<uint16_t> out);
ExpRow exp_row(std::span<const float> scores, size_t seen, std::span<double> p);
void exp_row_backward(const ExpRowGradient& row, size_t seen, std::span<double> p,
                      std::span<double> d_score);
void swiglu_bf16(std::span<const uint16_t> gate, std::span<const uint16_t> up,
                 std::span<double> out);
void swiglu_bf16_backward(const SwigluGradient& in, std::span<double> d_gate,
                          std::span<double> d_up);
VocabularyLoss vocabulary_loss(const VocabularyRow& row, std::span<double> gradient);

}  // namespace mkv::reference
