#include "train/torch/loss.h"

#include <algorithm>

namespace mkv::training {
namespace {

constexpr int64_t kRows = 64;              // of logits at once
constexpr double kLeastDivergence = 1e-6;  // nats a token; a smaller one is divided by this

// Of logits [rows x vocab], whose softmax is known, the logarithms of the sums of exponentials
// [rows x 1]: by the largest, without another pass of exponentials.
Tensor log_sums(const Tensor& logits, const Tensor& softmax) {
  const auto [most, where] = logits.max(-1, true);
  return most - softmax.gather(1, where).log();
}

}  // namespace

WindowLoss window_loss(const Twin& twin, const Tensor& teacher, const Tensor& student,
                       std::span<const TokenId> tokens, const LossWeights& weights) {
  const torch::NoGradGuard none;
  const auto scored = static_cast<int64_t>(tokens.size()) - 1;
  const std::vector<int64_t> next(tokens.begin() + 1, tokens.end());
  const Tensor targets =
      torch::tensor(at::ArrayRef<int64_t>(next), torch::kLong).to(student.device()).unsqueeze(1);
  WindowLoss loss;
  loss.gradient = torch::zeros_like(student);
  for (int64_t row = 0; row < scored; row += kRows) {
    const int64_t end = std::min(scored, row + kRows);
    const Tensor t = twin.logits(teacher.slice(0, row, end));
    const Tensor s = twin.logits(student.slice(0, row, end));
    const Tensor target = targets.slice(0, row, end);
    const Tensor p = t.softmax(-1);
    Tensor d = s.softmax(-1);  // q
    const Tensor log_sum = log_sums(s, d);
    loss.cross_entropy -= (s.gather(1, target) - log_sum).sum(torch::kDouble).item<double>();
    const Tensor mean_difference = p.unsqueeze(1).bmm((t - s).unsqueeze(2)).squeeze(2);
    loss.kl += (mean_difference + log_sum - log_sums(t, p)).sum(torch::kDouble).item<double>();
    // d KL = q - p, d CE = q - one-hot
    d.mul_(weights.kl + weights.cross_entropy).sub_(p, weights.kl);
    d.scatter_add_(1, target, torch::full_like(target, -weights.cross_entropy, d.options()));
    loss.gradient.slice(0, row, end).copy_(twin.logits_backward(d));
  }
  const auto count = static_cast<double>(scored);
  loss.kl /= count;
  loss.cross_entropy /= count;
  loss.gradient.div_(weights.relative ? count * std::max(loss.kl, kLeastDivergence) : count);
  return loss;
}

}  // namespace mkv::training
