#include "train/torch/sft_step.h"

#include <exception>
#include <functional>

namespace mkv::training {
namespace {

// What the cache's codes and the adapters are made of, without gradients.
struct Fixed {
  std::vector<Tensor> lora;
  Tensor u, means;  // undefined: exact caches
};

Fixed fixed(const SftModel& model) {
  const torch::NoGradGuard none;
  Fixed out;
  for (const Tensor& tensor : model.lora.tensors()) out.lora.push_back(tensor.detach());
  if (model.bases != nullptr) {
    out.u = model.bases->bases();
    out.means = model.bases->means();
  }
  return out;
}

// The rows of hidden states that predict the answer, the last of which predicts nothing.
Tensor answer_rows(const Tensor& hidden, const ScoredTokens& example) {
  return hidden.slice(0, static_cast<int64_t>(example.first) - 1);
}
std::span<const TokenId> answer_span(const ScoredTokens& example) {
  return std::span(example.tokens).subspan(example.first - 1);
}

struct ExampleResult {
  double kl = 0, cross_entropy = 0;
  std::vector<Tensor> gradients;  // LoRA's, then that of U if there are bases
  std::exception_ptr error;
};

ExampleResult run_example(const SftModel& model, const Fixed& at, const SftExample& example,
                          const LossWeights& weights, double share) {
  const ScoredTokens& tokens = *example.tokens;
  Tensor teacher;
  if (weights.kl > 0) {
    const torch::NoGradGuard none;
    teacher =
        answer_rows(model.twin.hidden(tokens.tokens, {}, model.lora.adapters(at.lora)), tokens);
  }
  const torch::AutoGradMode with_gradients(true);
  std::vector<Tensor> leaves;
  for (const Tensor& tensor : at.lora) leaves.push_back(tensor.detach().requires_grad_(true));
  CacheCode code;
  if (!example.ranks.empty()) {
    leaves.push_back(at.u.detach().requires_grad_(true));
    code = model.bases->code({leaves.back(), at.means}, example.ranks);
  }
  const std::vector<LayerAdapters> adapters = model.lora.adapters(leaves);
  const Tensor student = answer_rows(model.twin.hidden(tokens.tokens, code, adapters), tokens);
  const Tensor reached = student.detach();
  const WindowLoss loss = window_loss(model.twin, teacher.defined() ? teacher : reached, reached,
                                      answer_span(tokens), weights);
  ExampleResult result;
  result.kl = loss.kl;
  result.cross_entropy = loss.cross_entropy;
  result.gradients =
      torch::autograd::grad({student}, leaves, {loss.gradient * share}, false, false, true);
  return result;
}

// Every i once, on a worker of its own; what one throws is thrown from here.
void run_all(size_t count, Workers& workers, const std::function<void(size_t)>& run) {
  at::set_num_threads(1);
  std::vector<std::exception_ptr> errors(count);
  workers.run(count, [&](size_t i, size_t) {
    try {
      at::set_num_threads(1);  // a setting of each thread
      run(i);
    } catch (...) {
      errors[i] = std::current_exception();
    }
  });
  for (const std::exception_ptr& error : errors) {
    if (error) std::rethrow_exception(error);
  }
}

// The last layer's key and value do not reach an answer's loss through every parameter.
void add(Tensor& sum, const Tensor& gradient) {
  if (gradient.defined()) sum.add_(gradient);
}

}  // namespace

SftSums sft_gradients(const SftModel& model, std::span<const SftExample> examples,
                      const LossWeights& weights, size_t answer_tokens_in_all, Workers& workers) {
  Tensor turns, u;
  Fixed at = fixed(model);
  if (model.bases != nullptr) {
    turns = model.bases->turns();
    turns.requires_grad_(true);
    u = model.bases->bases();
  }
  std::vector<ExampleResult> results(examples.size());
  run_all(examples.size(), workers, [&](size_t i) {
    const double share = static_cast<double>(answer_tokens(*examples[i].tokens)) /
                         static_cast<double>(answer_tokens_in_all);
    results[i] = run_example(model, at, examples[i], weights, share);
  });
  SftSums sums;
  for (const Tensor& tensor : at.lora) sums.lora.push_back(torch::zeros_like(tensor));
  Tensor d_u = u.defined() ? torch::zeros_like(u) : Tensor();
  for (const ExampleResult& result : results) {
    sums.kl.push_back(result.kl);
    sums.cross_entropy.push_back(result.cross_entropy);
    for (size_t i = 0; i < sums.lora.size(); ++i) add(sums.lora[i], result.gradients[i]);
    if (result.gradients.size() > sums.lora.size()) add(d_u, result.gradients.back());
  }
  if (u.defined()) {
    sums.turns = torch::autograd::grad({u}, {turns}, {d_u});
    turns.requires_grad_(false);
  }
  return sums;
}

double answer_nats(const SftModel& model, std::span<const ScoredTokens> examples,
                   const Ranks& ranks, Workers& workers) {
  const Fixed at = fixed(model);
  const std::vector<LayerAdapters> adapters = model.lora.adapters(at.lora);
  const CacheCode code = ranks.empty() ? CacheCode() : model.bases->code({at.u, at.means}, ranks);
  std::vector<double> nats(examples.size());
  run_all(examples.size(), workers, [&](size_t i) {
    const torch::NoGradGuard none;
    const ScoredTokens& example = examples[i];
    const Tensor rows = answer_rows(model.twin.hidden(example.tokens, code, adapters), example);
    const LossWeights answers{.kl = 0, .cross_entropy = 1};
    const WindowLoss loss = window_loss(model.twin, rows, rows, answer_span(example), answers);
    nats[i] = loss.cross_entropy * static_cast<double>(answer_tokens(example));
  });
  double sum = 0.0;
  for (const double each : nats) sum += each;
  return sum;
}

}  // namespace mkv::training
