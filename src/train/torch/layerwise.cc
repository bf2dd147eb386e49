#include "train/torch/layerwise.h"

namespace mkv::training {

LayerwiseLoss layerwise_loss(const Twin& twin, const Parameters& parameters,
                             const std::vector<Tensor>& leaves, const StepWindow& window) {
  const CacheCode code = parameters.code(leaves, window.ranks);
  Tensor sum;
  twin.visit_attention(window.tokens, code, [&](const Tensor& coded, const Tensor& exact) {
    const Tensor error = (coded - exact).square().sum() / exact.square().sum();
    sum = sum.defined() ? sum + error : error;
  });
  const Tensor mean = sum / static_cast<double>(twin.config().num_layers);
  std::vector<Tensor> moving;
  for (const Tensor& t : leaves) {
    if (t.requires_grad()) moving.push_back(t);
  }
  LayerwiseLoss loss;
  loss.error = mean.item<double>();
  loss.gradients = torch::autograd::grad({mean.log()}, moving, {}, false, false, true);
  return loss;
}

}  // namespace mkv::training
