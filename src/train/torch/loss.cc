#include "train/torch/loss.h"

#include <algorithm>

namespace mkv::training {
namespace {

constexpr int64_t kRows = 64;              // of logits at once
constexpr double kLeastDivergence = 1e-6;  // nats a token; a smaller one is divided by this

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
    const Tensor log_p = twin.logits(teacher.slice(0, row, end)).log_softmax(-1);
    const Tensor log_q = twin.logits(student.slice(0, row, end)).log_softmax(-1);
    const Tensor target = targets.slice(0, row, end);
    const Tensor p = log_p.exp();
    loss.kl += (p * (log_p - log_q)).sum(-1).sum(torch::kDouble).item<double>();
    loss.cross_entropy -= log_q.gather(1, target).sum(torch::kDouble).item<double>();
    // d KL = q - p, d CE = q - one-hot
    Tensor d = log_q.exp().mul_(weights.kl + weights.cross_entropy).sub_(p, weights.kl);
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
