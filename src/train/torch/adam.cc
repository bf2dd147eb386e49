#include "train/torch/adam.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace mkv::training {
namespace {

constexpr double kBeta1 = 0.9, kBeta2 = 0.99, kEpsilon = 1e-8;

}  // namespace

Adam::Adam(std::vector<Tensor> parameters, std::vector<double> shares, const AdamOptions& options)
    : parameters_(std::move(parameters)), shares_(std::move(shares)), options_(options) {
  for (const Tensor& p : parameters_) {
    first_.push_back(torch::zeros_like(p));
    second_.push_back(torch::zeros_like(p));
  }
}

double Adam::rate_at(size_t step) const {
  const auto at = static_cast<double>(step), warmup = static_cast<double>(options_.warmup_steps);
  if (at < warmup) return options_.rate * (at + 1.0) / warmup;
  const double length = std::max(1.0, static_cast<double>(options_.steps) - warmup);
  const double cosine =
      0.5 * (1.0 + std::cos(std::numbers::pi * std::min(1.0, (at - warmup) / length)));
  return options_.rate * (options_.last_rate + (1.0 - options_.last_rate) * cosine);
}

void Adam::step(size_t step, const std::vector<Tensor>& gradients) {
  const torch::NoGradGuard none;
  const double n = static_cast<double>(step) + 1.0, rate = rate_at(step);
  const double unbiased1 = 1.0 - std::pow(kBeta1, n), unbiased2 = 1.0 - std::pow(kBeta2, n);
  for (size_t i = 0; i < parameters_.size(); ++i) {
    first_[i].mul_(kBeta1).add_(gradients[i], 1.0 - kBeta1);
    second_[i].mul_(kBeta2).addcmul_(gradients[i], gradients[i], 1.0 - kBeta2);
    const Tensor size = (second_[i] / unbiased2).sqrt_().add_(kEpsilon);
    parameters_[i].addcdiv_(first_[i], size, -rate * shares_[i] / unbiased1);
  }
}

std::vector<Tensor> Adam::moments() const {
  std::vector<Tensor> all = first_;
  all.insert(all.end(), second_.begin(), second_.end());
  return all;
}

}  // namespace mkv::training
