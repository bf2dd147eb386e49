#include "train/torch/sft_step.h"

#include <exception>
#include <functional>
#include <numeric>

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

// Examples of one pass: as many as have kPackTokens together, so that products are not of a few
// rows. Whose pass an example is in does not depend on the number of workers.
constexpr size_t kPackTokens = 256;

struct Pack {
  size_t begin, end;
};

std::vector<Pack> packs_of(size_t count, const std::function<size_t(size_t)>& tokens) {
  std::vector<Pack> packs;
  size_t sum = 0;
  for (size_t i = 0; i < count; ++i) {
    if (packs.empty() || sum + tokens(i) > kPackTokens) {
      packs.push_back({i, i});
      sum = 0;
    }
    packs.back().end = i + 1;
    sum += tokens(i);
  }
  return packs;
}

// The rows of a pass that predict its examples' answers, and these.
struct Answers {
  Tensor rows;  // whole numbers
  std::vector<TokenId> next;
  std::vector<size_t> counts;  // by example

  explicit Answers(std::span<const SftExample> examples) {
    std::vector<int64_t> at;
    size_t first_row = 0;
    for (const SftExample& example : examples) {
      const ScoredTokens& own = *example.tokens;
      for (size_t t = own.first; t < own.tokens.size(); ++t) {
        at.push_back(static_cast<int64_t>(first_row + t - 1));
        next.push_back(own.tokens[t]);
      }
      counts.push_back(answer_tokens(own));
      first_row += own.tokens.size();
    }
    rows = torch::tensor(at::ArrayRef<int64_t>(at), torch::kLong);
  }
  Tensor of(const Tensor& hidden) const { return hidden.index_select(0, rows.to(hidden.device())); }
  // Means by example, appended.
  void add_means(const std::vector<double>& by_row, std::vector<double>& to) const {
    auto from = by_row.begin();
    for (const size_t count : counts) {
      const auto end = from + static_cast<std::ptrdiff_t>(count);
      to.push_back(std::accumulate(from, end, 0.0) / static_cast<double>(count));
      from = end;
    }
  }
};

struct PackResult {
  std::vector<double> kl, cross_entropy;  // by example
  std::vector<Tensor> gradients;          // LoRA's, then that of U if there are bases
};

PackResult run_pack(const SftModel& model, const Fixed& at, std::span<const SftExample> examples,
                    const LossWeights& weights, size_t answer_tokens_in_all) {
  const Answers answers(examples);
  std::vector<Sequence> sequences;
  for (const SftExample& example : examples) sequences.push_back({example.tokens->tokens});
  Tensor teacher;
  if (weights.kl > 0) {
    const torch::NoGradGuard none;
    teacher = answers.of(model.twin.hidden(sequences, model.lora.adapters(at.lora)));
  }
  const torch::AutoGradMode with_gradients(true);
  std::vector<Tensor> leaves;
  for (const Tensor& tensor : at.lora) leaves.push_back(tensor.detach().requires_grad_(true));
  const std::vector<LayerAdapters> adapters = model.lora.adapters(leaves);
  std::vector<CacheCode> codes(examples.size());
  if (model.bases != nullptr) {
    leaves.push_back(at.u.detach().requires_grad_(true));
    for (size_t i = 0; i < examples.size(); ++i) {
      if (examples[i].ranks.empty()) continue;
      codes[i] = model.bases->code({leaves.back(), at.means}, examples[i].ranks);
      sequences[i].code = &codes[i];
    }
  }
  const Tensor student = answers.of(model.twin.hidden(sequences, adapters));
  const RowLosses loss = row_losses(model.twin, teacher, student.detach(), answers.next, weights);
  PackResult result;
  answers.add_means(loss.kl, result.kl);
  answers.add_means(loss.cross_entropy, result.cross_entropy);
  result.gradients = torch::autograd::grad(
      {student}, leaves, {loss.gradient / static_cast<double>(answer_tokens_in_all)}, false, false,
      true);
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
  const std::vector<Pack> packs =
      packs_of(examples.size(), [&](size_t i) { return examples[i].tokens->tokens.size(); });
  std::vector<PackResult> results(packs.size());
  run_all(packs.size(), workers, [&](size_t i) {
    results[i] =
        run_pack(model, at, examples.subspan(packs[i].begin, packs[i].end - packs[i].begin),
                 weights, answer_tokens_in_all);
  });
  SftSums sums;
  for (const Tensor& tensor : at.lora) sums.lora.push_back(torch::zeros_like(tensor));
  Tensor d_u = u.defined() ? torch::zeros_like(u) : Tensor();
  for (const PackResult& result : results) {
    sums.kl.insert(sums.kl.end(), result.kl.begin(), result.kl.end());
    sums.cross_entropy.insert(sums.cross_entropy.end(), result.cross_entropy.begin(),
                              result.cross_entropy.end());
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
  std::vector<SftExample> all;
  for (const ScoredTokens& example : examples) all.push_back({&example, {}});
  const std::vector<Pack> packs =
      packs_of(all.size(), [&](size_t i) { return examples[i].tokens.size(); });
  std::vector<double> nats(packs.size());
  run_all(packs.size(), workers, [&](size_t i) {
    const torch::NoGradGuard none;
    const auto own = std::span(all).subspan(packs[i].begin, packs[i].end - packs[i].begin);
    std::vector<Sequence> sequences;
    for (const SftExample& example : own) sequences.push_back({example.tokens->tokens, &code});
    const Answers answers(own);
    const Tensor rows = answers.of(model.twin.hidden(sequences, adapters));
    const LossWeights weights{.kl = 0, .cross_entropy = 1};
    const auto loss = row_losses(model.twin, Tensor(), rows, answers.next, weights);
    nats[i] = std::accumulate(loss.cross_entropy.begin(), loss.cross_entropy.end(), 0.0);
  });
  return std::accumulate(nats.begin(), nats.end(), 0.0);
}

}  // namespace mkv::training
