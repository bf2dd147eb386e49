#include "eval/kl.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "base/stopwatch.h"
#include "eval/divergence.h"

namespace mkv {
namespace {

// Per scored position, in order: sums do not depend on who computed what.
struct Comparisons {
  std::vector<double> kl, nll_base, nll, log_ratio;
  size_t same_top = 0;
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

// Compares the two hidden states of one window through the output layer, some rows at a time.
class WindowComparison {
 public:
  WindowComparison(const Model& model, size_t rows, Workers& workers)
      : model_(model),
        workers_(workers),
        base_(rows, model.config().vocab_size),
        logits_(rows, model.config().vocab_size),
        results_(rows) {}

  void add(const Windows& windows, size_t index, View<const float> base_hidden,
           View<const float> hidden, Comparisons& all) {
    for (size_t first = 0; first < hidden.rows; first += base_.rows()) {
      const size_t rows = std::min(base_.rows(), hidden.rows - first);
      model_.logits(base_hidden.rows_from(first, rows), base_.view().rows_from(0, rows), workers_);
      model_.logits(hidden.rows_from(first, rows), logits_.view().rows_from(0, rows), workers_);
      workers_.run(rows, [&](size_t row, size_t) {
        results_[row] =
            compare_logits(base_.row(row), logits_.row(row), windows.target(index, first + row));
      });
      for (size_t row = 0; row < rows; ++row) {
        all.kl.push_back(results_[row].kl);
        all.nll_base.push_back(results_[row].nll_base);
        all.nll.push_back(results_[row].nll);
        all.log_ratio.push_back(results_[row].nll - results_[row].nll_base);
        all.same_top += results_[row].same_top ? 1 : 0;
      }
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
  WindowPass pass(model, options, workers);
  for (size_t w = 0; w < count; ++w) {
    KvCache cache = model.exact_cache(base.windows_.context);
    MKV_TRY(pass.run(base.windows_, w, cache, base.hidden_.view().rows_from(w * scored, scored)));
    report(options.progress, {"exact pass", w + 1, count, {}});
  }
  return base;
}

Result<KlReport> evaluate_kl(const Model& model, const BaseHidden& base, const CacheFactory& caches,
                             const EvalOptions& options, Workers& workers) {
  const Windows& windows = base.windows();
  MKV_TRY(check_evaluation(model, windows, options));
  const Stopwatch watch;
  Matrix<float> hidden(windows.scored(), model.config().hidden_size);
  WindowPass pass(model, options, workers);
  WindowComparison comparison(model, std::min(options.logit_rows, windows.scored()), workers);
  Comparisons all;
  KvFigures kv;
  for (size_t w = 0; w < windows.count(); ++w) {
    KvCache cache = caches.make(windows.context);
    MKV_TRY(pass.run(windows, w, cache, hidden.view()));
    comparison.add(windows, w, base.hidden(w), hidden.view(), all);
    kv = kv_figures(model, caches, cache);
    report(options.progress,
           {"KL", w + 1, windows.count(), "KL " + std::to_string(average(all.kl).mean)});
  }
  KlReport out = summarise(all, windows.count());
  out.kv = kv;
  out.seconds = watch.seconds();
  return out;
}

}  // namespace mkv
