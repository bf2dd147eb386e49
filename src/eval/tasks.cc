#include "eval/tasks.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "base/stopwatch.h"
#include "eval/likelihood.h"
#include "text/utf8.h"

namespace mkv {
namespace {

size_t index_of_largest(const std::vector<double>& values) {
  return static_cast<size_t>(std::ranges::max_element(values) - values.begin());
}

// What the examples have given so far, one figure each.
struct Scores {
  std::vector<double> acc, acc_norm, log_likelihood;

  void add(const Task& task, const TaskExample& example, const std::vector<Likelihood>& found) {
    std::vector<double> sums, normed;
    for (size_t i = 0; i < found.size(); ++i) {
      const size_t length = choice_length(example.alternatives[i].second);
      sums.push_back(found[i].sum);
      normed.push_back(found[i].sum / static_cast<double>(std::max<size_t>(length, 1)));
    }
    if (task.shape == TaskShape::continuation) {
      acc.push_back(found.front().greedy ? 1.0 : 0.0);
      log_likelihood.push_back(sums.front());
      return;
    }
    acc.push_back(index_of_largest(sums) == example.label ? 1.0 : 0.0);
    acc_norm.push_back(index_of_largest(normed) == example.label ? 1.0 : 0.0);
  }
};

Result<std::vector<ScoredTokens>> encode_example(const Model& model, const TaskExample& example) {
  std::vector<ScoredTokens> runs;
  for (const auto& [context, continuation] : example.alternatives) {
    // The last token is never read, so one more than the model's context fits.
    const size_t longest = model.config().max_position_embeddings + 1;
    MKV_ASSIGN(ScoredTokens run, encode_scored(model.tokenizer(), context, continuation, longest));
    runs.push_back(std::move(run));
  }
  return runs;
}

// Alternatives whose contexts begin differently, or were cut at different places, go alone.
bool begin_alike(const std::vector<ScoredTokens>& runs) {
  return std::ranges::all_of(runs, [&](const ScoredTokens& run) {
    return run.tokens.front() == runs.front().tokens.front();
  });
}

Result<std::vector<Likelihood>> score_example(const Model& model, const TaskExample& example,
                                              LikelihoodScorer& scorer) {
  MKV_ASSIGN(const std::vector<ScoredTokens> runs, encode_example(model, example));
  if (begin_alike(runs)) return scorer.score(runs);
  std::vector<Likelihood> all;
  for (const ScoredTokens& run : runs) {
    MKV_ASSIGN(const std::vector<Likelihood> one, scorer.score({&run, 1}));
    all.push_back(one.front());
  }
  return all;
}

std::string accuracy_text(const Scores& scores) {
  char text[40];
  std::snprintf(text, sizeof text, "acc %.1f %%", 100.0 * average(scores.acc).mean);
  return text;
}

}  // namespace

size_t choice_length(std::string_view continuation) {
  if (continuation.starts_with(' ')) continuation.remove_prefix(1);
  size_t characters = 0;
  for (size_t at = 0; at < continuation.size(); ++characters) {
    at += code_point_at(continuation, at).bytes;
  }
  return characters;
}

Result<TaskReport> evaluate_task(const Model& model, const CacheFactory& caches, const Task& task,
                                 const ProgressSink& progress, Workers& workers) {
  if (task.examples.empty()) {
    return make_error(ErrorCode::invalid_argument, task.name + ": no example to evaluate");
  }
  const Stopwatch watch;
  LikelihoodScorer scorer(model, caches, workers);
  Scores scores;
  TaskReport out;
  for (size_t i = 0; i < task.examples.size(); ++i) {
    const TaskExample& example = task.examples[i];
    auto found = score_example(model, example, scorer);
    if (!found) {
      return in_context(task.name + " " + (example.id.empty() ? std::to_string(i) : example.id),
                        std::move(found).error());
    }
    scores.add(task, example, *found);
    std::vector<double>& sums = out.log_likelihoods.emplace_back();
    for (const Likelihood& likelihood : *found) sums.push_back(likelihood.sum);
    report(progress, {task.name, i + 1, task.examples.size(), accuracy_text(scores)});
  }
  out.acc = average(scores.acc);
  if (task.shape == TaskShape::choices) out.acc_norm = average(scores.acc_norm);
  if (task.shape == TaskShape::continuation) {
    const Average mean = average(scores.log_likelihood);
    const double perplexity = std::exp(-mean.mean);
    out.perplexity = Average{perplexity, perplexity * mean.standard_error};
  }
  out.examples = task.examples.size();
  out.coded_share = scorer.coded_share();
  out.seconds = watch.seconds();
  return out;
}

}  // namespace mkv
