#include "train/torch/loss.h"

#include <algorithm>
#include <numeric>

#include "ops/bf16.h"
#include "train/torch/bf16.h"

namespace mkv::training {
namespace {

constexpr int64_t kRows = 64;  // of logits at once
constexpr int64_t kRowsInBf16 = 256;
constexpr double kLeastDivergence = 1e-6;  // nats a token; a smaller one is divided by this

// Of logits [rows x vocab], whose softmax is known, the logarithms of the sums of exponentials
// [rows x 1]: by the largest, without another pass of exponentials.
Tensor log_sums(const Tensor& logits, const Tensor& softmax) {
  const auto [most, where] = logits.max(-1, true);
  return most - softmax.gather(1, where).log();
}

void append(const Tensor& column, std::vector<double>& to) {
  const Tensor values = column.to(torch::kCPU, torch::kDouble).contiguous();
  to.insert(to.end(), values.data_ptr<double>(), values.data_ptr<double>() + values.numel());
}

double sum_of(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0);
}

RowLosses row_losses_in_bf16(const Twin& twin, const Tensor& teacher, const Tensor& student,
                             std::span<const TokenId> next, const LossWeights& weights) {
  const auto rows = static_cast<int64_t>(next.size());
  RowLosses loss;
  loss.gradient = torch::empty_like(student);
  std::vector<float> scratch;
  for (int64_t begin = 0; begin < rows; begin += kRowsInBf16) {
    const int64_t end = std::min(rows, begin + kRowsInBf16);
    const Tensor s = twin.logits_in_bf16(student.slice(0, begin, end));
    const Tensor t =
        teacher.defined() ? twin.logits_in_bf16(teacher.slice(0, begin, end)) : Tensor();
    Tensor d = torch::empty_like(s);
    scratch.resize(2 * static_cast<size_t>(s.size(1)));
    for (int64_t row = 0; row < end - begin; ++row) {
      VocabularyRow in{.teacher = {},
                       .student = bf16_row(s, row),
                       .target = static_cast<size_t>(next[static_cast<size_t>(begin + row)]),
                       .kl_weight = static_cast<float>(weights.kl),
                       .cross_entropy_weight = static_cast<float>(weights.cross_entropy)};
      if (t.defined()) in.teacher = bf16_row(t, row);
      const VocabularyLoss of_row = vocabulary_loss(in, scratch, bf16_row(d, row));
      loss.kl.push_back(of_row.kl);
      loss.cross_entropy.push_back(of_row.cross_entropy);
    }
    loss.gradient.slice(0, begin, end).copy_(twin.logits_backward(d));
  }
  return loss;
}

}  // namespace

RowLosses row_losses(const Twin& twin, const Tensor& teacher, const Tensor& student,
                     std::span<const TokenId> next, const LossWeights& weights) {
  const torch::NoGradGuard none;
  if (twin.bf16_on_cpu()) return row_losses_in_bf16(twin, teacher, student, next, weights);
  const auto rows = static_cast<int64_t>(next.size());
  const std::vector<int64_t> ids(next.begin(), next.end());
  const Tensor targets =
      torch::tensor(at::ArrayRef<int64_t>(ids), torch::kLong).to(student.device()).unsqueeze(1);
  RowLosses loss;
  loss.gradient = torch::empty_like(student);
  const double kl_weight = teacher.defined() ? weights.kl : 0.0;
  for (int64_t row = 0; row < rows; row += kRows) {
    const int64_t end = std::min(rows, row + kRows);
    const Tensor s = twin.logits(student.slice(0, row, end));
    const Tensor target = targets.slice(0, row, end);
    Tensor d = s.softmax(-1);  // q
    const Tensor log_sum = log_sums(s, d);
    append(log_sum - s.gather(1, target), loss.cross_entropy);
    d.mul_(kl_weight + weights.cross_entropy);
    if (teacher.defined()) {
      const Tensor t = twin.logits(teacher.slice(0, row, end));
      const Tensor p = t.softmax(-1);
      const Tensor mean_difference = p.unsqueeze(1).bmm((t - s).unsqueeze(2)).squeeze(2);
      append(mean_difference + log_sum - log_sums(t, p), loss.kl);
      d.sub_(p, kl_weight);
    }
    // d KL = q - p, d CE = q - one-hot
    d.scatter_add_(1, target, torch::full_like(target, -weights.cross_entropy, d.options()));
    loss.gradient.slice(0, row, end).copy_(twin.logits_backward(d));
  }
  if (!teacher.defined()) loss.kl.assign(next.size(), 0.0);
  return loss;
}

WindowLoss window_loss(const Twin& twin, const Tensor& teacher, const Tensor& student,
                       std::span<const TokenId> tokens, const LossWeights& weights) {
  const int64_t scored = static_cast<int64_t>(tokens.size()) - 1;
  const RowLosses rows = row_losses(twin, teacher.slice(0, 0, scored), student.slice(0, 0, scored),
                                    tokens.subspan(1), weights);
  const auto count = static_cast<double>(scored);
  WindowLoss loss;
  loss.kl = sum_of(rows.kl) / count;
  loss.cross_entropy = sum_of(rows.cross_entropy) / count;
  loss.gradient = torch::zeros_like(student);
  loss.gradient.slice(0, 0, scored).copy_(rows.gradient);
  loss.gradient.div_(weights.relative ? count * std::max(loss.kl, kLeastDivergence) : count);
  return loss;
}

}  // namespace mkv::training
