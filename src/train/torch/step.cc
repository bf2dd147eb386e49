#include "train/torch/step.h"

#include <cmath>
#include <exception>

#include "train/torch/layerwise.h"

namespace mkv::training {
namespace {

struct WindowResult {
  WindowLoss loss;
  std::vector<Tensor> gradients;
  std::exception_ptr error;
};

// Those of `tensors` that have a gradient.
std::vector<Tensor> with_gradients(const std::vector<Tensor>& tensors) {
  std::vector<Tensor> out;
  for (const Tensor& t : tensors) {
    if (t.requires_grad()) out.push_back(t);
  }
  return out;
}

std::vector<Tensor> leaves_of(const std::vector<Tensor>& made) {
  std::vector<Tensor> leaves;
  for (const Tensor& t : made) leaves.push_back(t.detach().requires_grad_(t.requires_grad()));
  return leaves;
}

WindowResult run_layerwise(const Twin& twin, const Parameters& parameters,
                           const std::vector<Tensor>& made, const StepWindow& window) {
  const torch::AutoGradMode with_gradient(true);
  WindowResult result;
  LayerwiseLoss loss = layerwise_loss(twin, parameters, leaves_of(made), window);
  result.loss.kl = loss.error;
  result.gradients = std::move(loss.gradients);
  return result;
}

// Gradients with respect to what the cache is made of; how that depends on what moves is a step's
// matter.
WindowResult run_window(const Twin& twin, const Parameters& parameters,
                        const std::vector<Tensor>& made, const StepWindow& window,
                        const LossWeights& weights) {
  WindowResult result;
  Tensor teacher;
  {
    const torch::NoGradGuard none;
    teacher = twin.hidden(window.tokens, {});
  }
  const torch::AutoGradMode with_gradient(true);
  const std::vector<Tensor> leaves = leaves_of(made);
  const Tensor student = twin.hidden(window.tokens, parameters.code(leaves, window.ranks));
  result.loss = window_loss(twin, teacher, student.detach(), window.tokens, weights);
  const std::vector<Tensor> moving = with_gradients(leaves);
  result.gradients =
      torch::autograd::grad({student}, moving, {result.loss.gradient}, false, false, true);
  result.loss.gradient = Tensor();
  return result;
}

}  // namespace

StepResult step_gradients(const Twin& twin, const Parameters& parameters,
                          std::span<const StepWindow> windows, const LossWeights& weights,
                          Objective objective, Workers& workers) {
  // LibTorch's own threads for what is computed once a step; windows have a thread each.
  const auto own_threads = static_cast<int>(workers.count());
  at::set_num_threads(own_threads);
  std::vector<Tensor> moved;
  for (const Parameters::Moved& each : parameters.moved()) {
    moved.push_back(each.values);
    moved.back().requires_grad_(true);
  }
  const std::vector<Tensor> made = parameters.made();
  std::vector<WindowResult> results(windows.size());
  workers.run(windows.size(), [&](size_t i, size_t) {
    try {
      at::set_num_threads(1);  // a setting of each thread
      results[i] = objective == Objective::layerwise
                       ? run_layerwise(twin, parameters, made, windows[i])
                       : run_window(twin, parameters, made, windows[i], weights);
    } catch (...) {
      results[i].error = std::current_exception();
    }
  });
  at::set_num_threads(own_threads);
  StepResult step;
  const std::vector<Tensor> moving = with_gradients(made);
  std::vector<Tensor> sums;
  for (WindowResult& result : results) {
    if (result.error) std::rethrow_exception(result.error);
    step.kl.push_back(result.loss.kl);
    step.cross_entropy.push_back(result.loss.cross_entropy);
    for (size_t i = 0; i < moving.size(); ++i) {
      Tensor& gradient = result.gradients[i];
      if (!gradient.defined()) gradient = torch::zeros_like(moving[i]);
    }
    if (sums.empty()) {
      sums = std::move(result.gradients);
      continue;
    }
    for (size_t i = 0; i < sums.size(); ++i) sums[i].add_(result.gradients[i]);
  }
  for (Tensor& sum : sums) sum.div_(static_cast<double>(windows.size()));
  step.gradients = torch::autograd::grad(moving, moved, sums);
  for (Tensor& t : moved) t.requires_grad_(false);
  return step;
}

}  // namespace mkv::training
