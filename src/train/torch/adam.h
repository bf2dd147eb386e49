// Adam (arXiv:1412.6980) with a warm-up and a cosine; no weight decay, as A = 0 is no better a
// place than others.
#pragma once

#include <torch/torch.h>

#include <vector>

namespace mkv::training {

using torch::Tensor;

struct AdamOptions {
  double rate = 1e-3, last_rate = 0.05;  // the last as a share
  size_t warmup_steps = 0, steps = 1;
};

class Adam {
 public:
  // Parameters are changed in place; `shares` of the rate, one each.
  Adam(std::vector<Tensor> parameters, std::vector<double> shares, const AdamOptions& options);
  double rate_at(size_t step) const;
  // Gradients in the parameters' order; `step` counts from 0.
  void step(size_t step, const std::vector<Tensor>& gradients);
  // First moments, then second ones, in the parameters' order.
  std::vector<Tensor> moments() const;

 private:
  std::vector<Tensor> parameters_, first_, second_;
  std::vector<double> shares_;
  AdamOptions options_;
};

}  // namespace mkv::training
