#include "eval/kl.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "base/stopwatch.h"
#include "eval/divergence.h"
#include "store/message.h"

namespace mkv {
namespace {

// Per scored position, in order: sums do not depend on who computed what.
struct Comparisons {
  std::vector<double> kl, nll_base, nll, log_ratio;
  size_t same_top = 0;

  void add(const Comparison& one) {
    kl.push_back(one.kl);
    nll_base.push_back(one.nll_base);
    nll.push_back(one.nll);
    log_ratio.push_back(one.nll - one.nll_base);
    same_top += one.same_top ? 1 : 0;
  }
};

KlReport summarise(const Comparisons& all, size_t windows) {
  KlReport out;
  const Average kl = average(all.kl);
  out.kl = kl.mean;
  out.kl_stderr = kl.standard_error;
  out.perplexity = std::exp(average(all.nll).mean);
  out.perplexity_base = std::exp(average(all.nll_base).mean);
  out.log_ratio_stderr = average(all.log_ratio).standard_error;
  out.tokens = all.kl.size();
  out.top1_agreement =
      out.tokens == 0 ? 0.0 : static_cast<double>(all.same_top) / static_cast<double>(out.tokens);
  out.windows = windows;
  return out;
}

// Compares two hidden states of one text through the output layer, some rows at a time.
class TextComparison {
 public:
  TextComparison(const Model& model, size_t rows, Workers& workers)
      : model_(model),
        workers_(workers),
        base_(rows, model.config().vocab_size),
        logits_(rows, model.config().vocab_size),
        results_(rows) {}

  // `targets`: the token that each hidden state foretells.
  void add(std::span<const TokenId> targets, View<const float> base_hidden,
           View<const float> hidden, Comparisons& all) {
    for (size_t first = 0; first < hidden.rows; first += base_.rows()) {
      const size_t rows = std::min(base_.rows(), hidden.rows - first);
      model_.logits(base_hidden.rows_from(first, rows), base_.view().rows_from(0, rows), workers_);
      model_.logits(hidden.rows_from(first, rows), logits_.view().rows_from(0, rows), workers_);
      workers_.run(rows, [&](size_t row, size_t) {
        results_[row] = compare_logits(base_.row(row), logits_.row(row), targets[first + row]);
      });
      for (size_t row = 0; row < rows; ++row) all.add(results_[row]);
    }
  }

 private:
  const Model& model_;
  Workers& workers_;
  Matrix<float> base_, logits_;  // [rows x vocab]
  std::vector<Comparison> results_;
};

}  // namespace

Result<BaseHidden> BaseHidden::compute(const Model& model, Windows windows,
                                       const EvalOptions& options, Workers& workers) {
  MKV_TRY(check_evaluation(model, windows, options));
  BaseHidden base;
  base.windows_ = std::move(windows);
  const size_t count = base.windows_.count(), scored = base.windows_.scored();
  base.hidden_ = Matrix<float>(count * scored, model.config().hidden_size);
  TextPass pass(model, options, workers);
  for (size_t w = 0; w < count; ++w) {
    KvCache cache = model.exact_cache(base.windows_.context);
    MKV_TRY(pass.run(base.windows_, w, cache, base.hidden_.view().rows_from(w * scored, scored)));
    base.kv_ = kv_figures(model, CacheFactory::exact(model), cache);
    report(options.progress, {"exact pass", w + 1, count, {}});
  }
  return base;
}

KlReport report_exact(const Model& model, const BaseHidden& base, const EvalOptions& options,
                      Workers& workers) {
  const Windows& windows = base.windows();
  const Stopwatch watch;
  LogitRows logits(model, options, workers);
  std::vector<Comparison> all(windows.count() * windows.scored());
  for (size_t w = 0; w < windows.count(); ++w) {
    logits.visit(base.hidden(w), [&](size_t row, std::span<const float> of_row) {
      const double nll = negative_log_likelihood(of_row, windows.targets(w)[row]);
      all[w * windows.scored() + row] = {.nll_base = nll, .nll = nll, .same_top = true};
    });
  }
  Comparisons comparisons;
  for (const Comparison& each : all) comparisons.add(each);
  KlReport out = summarise(comparisons, windows.count());
  out.kv = base.kv();
  out.seconds = watch.seconds();
  return out;
}

Result<KlReport> evaluate_kl(const Model& model, const BaseHidden& base, const CacheFactory& caches,
                             const EvalOptions& options, Workers& workers) {
  const Windows& windows = base.windows();
  MKV_TRY(check_evaluation(model, windows, options));
  const Stopwatch watch;
  Matrix<float> hidden(windows.scored(), model.config().hidden_size);
  TextPass pass(model, options, workers);
  TextComparison comparison(model, std::min(options.logit_rows, windows.scored()), workers);
  Comparisons all;
  KvFigures kv;
  for (size_t w = 0; w < windows.count(); ++w) {
    KvCache cache = caches.make(windows.context);
    MKV_TRY(pass.run(windows, w, cache, hidden.view()));
    comparison.add(windows.targets(w), base.hidden(w), hidden.view(), all);
    kv = kv_figures(model, caches, cache);
    report(options.progress,
           {"KL", w + 1, windows.count(), "KL " + std::to_string(average(all.kl).mean)});
  }
  KlReport out = summarise(all, windows.count());
  out.kv = kv;
  out.seconds = watch.seconds();
  return out;
}

Result<double> text_kl(const Model& model, const CacheFactory& caches,
                       std::span<const TokenId> text, size_t first, const EvalOptions& options,
                       Workers& workers) {
  if (first == 0 || first >= text.size()) {
    return make_error(ErrorCode::invalid_argument,
                      concat("KL from token ", first, " on of ", text.size(), " tokens"));
  }
  const size_t scored = text.size() - first;
  Matrix<float> exact(scored, model.config().hidden_size), coded(scored, exact.cols());
  TextPass pass(model, options, workers);
  const std::span<const TokenId> read = text.first(text.size() - 1);
  KvCache base = model.exact_cache(read.size()), cache = caches.make(read.size());
  MKV_TRY(pass.run(read, first - 1, base, exact.view()));
  MKV_TRY(pass.run(read, first - 1, cache, coded.view()));
  Comparisons all;
  TextComparison(model, std::min(options.logit_rows, scored), workers)
      .add(text.subspan(first), exact.view(), coded.view(), all);
  return average(all.kl).mean;
}

}  // namespace mkv
