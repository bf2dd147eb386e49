// The plain scalar twins of ops/bf16.h.
#include <algorithm>
#include <bit>
#include <cmath>
#include <vector>

#include "ops/reference.h"

namespace mkv::reference {
namespace {

double widen(uint16_t x) { return std::bit_cast<float>(static_cast<uint32_t>(x) << 16); }

// Softmax of logits; returns the logarithm of the sum of exponentials.
double softmax_of(std::span<const uint16_t> logits, std::vector<double>& out) {
  double largest = widen(logits[0]), sum = 0;
  for (const uint16_t x : logits) largest = std::max(largest, widen(x));
  for (const uint16_t x : logits) sum += std::exp(widen(x) - largest);
  for (const uint16_t x : logits) out.push_back(std::exp(widen(x) - largest) / sum);
  return largest + std::log(sum);
}

}  // namespace

void f32_to_bf16(std::span<const float> in, std::span<uint16_t> out) {
  for (size_t i = 0; i < in.size(); ++i) {
    const auto bits = std::bit_cast<uint32_t>(in[i]);
    const uint32_t left = bits & 0xffff, low = bits >> 16;
    const bool up = left > 0x8000 || (left == 0x8000 && low % 2 == 1);
    out[i] = static_cast<uint16_t>(low + (up ? 1 : 0));
  }
}

ExpRow exp_row(std::span<const float> scores, size_t seen, std::span<double> p) {
  const float largest = *std::max_element(scores.begin(), scores.begin() + seen);
  double sum = 0;
  for (size_t i = 0; i < p.size(); ++i) {
    p[i] = i < seen ? std::exp(static_cast<double>(scores[i]) - largest) : 0.0;
    sum += p[i];
  }
  return {largest, static_cast<float>(sum)};
}

void exp_row_backward(const ExpRowGradient& row, size_t seen, std::span<double> p,
                      std::span<double> d_score) {
  for (size_t i = 0; i < p.size(); ++i) {
    p[i] = i < seen ? std::exp(static_cast<double>(row.scores[i]) - row.log_sum) : 0.0;
    d_score[i] = p[i] * (static_cast<double>(row.d_p[i]) - row.mean);
  }
}

void swiglu_bf16(std::span<const uint16_t> gate, std::span<const uint16_t> up,
                 std::span<double> out) {
  for (size_t i = 0; i < out.size(); ++i) {
    const double g = widen(gate[i]);
    out[i] = g / (1.0 + std::exp(-g)) * widen(up[i]);
  }
}

void swiglu_bf16_backward(const SwigluGradient& in, std::span<double> d_gate,
                          std::span<double> d_up) {
  for (size_t i = 0; i < d_up.size(); ++i) {
    const double g = widen(in.gate[i]), d = widen(in.d[i]), s = 1.0 / (1.0 + std::exp(-g));
    d_up[i] = d * g * s;
    d_gate[i] = d * widen(in.up[i]) * s * (1.0 + g * (1.0 - s));
  }
}

VocabularyLoss vocabulary_loss(const VocabularyRow& row, std::span<double> gradient) {
  std::vector<double> q, p;
  const double log_sum = softmax_of(row.student, q);
  VocabularyLoss loss;
  loss.cross_entropy = log_sum - widen(row.student[row.target]);
  const bool taught = !row.teacher.empty();
  const double teacher_log_sum = taught ? softmax_of(row.teacher, p) : 0.0;
  const double kl_weight = taught ? row.kl_weight : 0.0;
  for (size_t i = 0; i < q.size(); ++i) {
    gradient[i] = (kl_weight + row.cross_entropy_weight) * q[i];
    if (!taught) continue;
    gradient[i] -= kl_weight * p[i];
    loss.kl +=
        p[i] * ((widen(row.teacher[i]) - teacher_log_sum) - (widen(row.student[i]) - log_sum));
  }
  gradient[row.target] -= row.cross_entropy_weight;
  return loss;
}

}  // namespace mkv::reference
