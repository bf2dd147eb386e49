#include "train/torch/step.h"

#include <cmath>
#include <exception>

namespace mkv::training {
namespace {

struct WindowResult {
  WindowLoss loss;
  Tensor d_bases, d_means;
  std::exception_ptr error;
};

// Gradients with respect to the bases themselves; how they depend on A is a step's matter.
WindowResult run_window(const Twin& twin, const Bases& bases, const Tensor& u, const Tensor& means,
                        const StepWindow& window, const LossWeights& weights) {
  WindowResult result;
  Tensor teacher;
  {
    const torch::NoGradGuard none;
    teacher = twin.hidden(window.tokens, {});
  }
  const torch::AutoGradMode with_gradients(true);
  const Tensor u_leaf = u.detach().requires_grad_(true);
  const Tensor means_leaf = means.detach().requires_grad_(true);
  const Tensor student = twin.hidden(window.tokens, bases.code(u_leaf, means_leaf, window.ranks));
  result.loss = window_loss(twin, teacher, student.detach(), window.tokens, weights);
  const auto gradients = torch::autograd::grad({student}, {u_leaf, means_leaf},
                                               {result.loss.gradient}, false, false, true);
  result.d_bases = gradients[0];
  result.d_means = gradients[1].defined() ? gradients[1] : torch::zeros_like(means);
  result.loss.gradient = Tensor();
  return result;
}

}  // namespace

StepResult step_gradients(const Twin& twin, Bases& bases, std::span<const StepWindow> windows,
                          const LossWeights& weights, Workers& workers) {
  at::set_num_threads(1);
  Tensor turns = bases.turns();
  turns.requires_grad_(true);
  const Tensor u = bases.bases();
  const Tensor fixed = u.detach();
  std::vector<WindowResult> results(windows.size());
  workers.run(windows.size(), [&](size_t i, size_t) {
    try {
      at::set_num_threads(1);  // a setting of each thread
      results[i] = run_window(twin, bases, fixed, bases.means(), windows[i], weights);
    } catch (...) {
      results[i].error = std::current_exception();
    }
  });
  StepResult step;
  Tensor d_bases, d_means;
  for (WindowResult& result : results) {
    if (result.error) std::rethrow_exception(result.error);
    step.kl.push_back(result.loss.kl);
    step.cross_entropy.push_back(result.loss.cross_entropy);
    d_bases = d_bases.defined() ? d_bases + result.d_bases : result.d_bases;
    d_means = d_means.defined() ? d_means + result.d_means : result.d_means;
  }
  const auto count = static_cast<double>(windows.size());
  step.gradients = torch::autograd::grad({u}, {turns}, {d_bases / count});
  step.gradients.push_back(d_means / count);
  turns.requires_grad_(false);
  return step;
}

}  // namespace mkv::training
