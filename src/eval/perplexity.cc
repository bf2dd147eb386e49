#include "eval/perplexity.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "base/stopwatch.h"
#include "eval/divergence.h"

namespace mkv {

Result<PerplexityReport> evaluate_perplexity(const Model& model, const CacheFactory& caches,
                                             const Windows& windows, const EvalOptions& options,
                                             Workers& workers) {
  MKV_TRY(check_evaluation(model, windows, options));
  const Stopwatch watch;
  const size_t scored = windows.scored(), vocab = model.config().vocab_size;
  Matrix<float> hidden(scored, model.config().hidden_size);
  Matrix<float> logits(std::min(options.logit_rows, scored), vocab);
  std::vector<double> nll(windows.count() * scored);
  WindowPass pass(model, options, workers);
  PerplexityReport out;
  for (size_t w = 0; w < windows.count(); ++w) {
    KvCache cache = caches.make(windows.context);
    MKV_TRY(pass.run(windows, w, cache, hidden.view()));
    for (size_t first = 0; first < scored; first += logits.rows()) {
      const size_t rows = std::min(logits.rows(), scored - first);
      model.logits(hidden.view().rows_from(first, rows), logits.view().rows_from(0, rows), workers);
      workers.run(rows, [&](size_t row, size_t) {
        nll[w * scored + first + row] =
            negative_log_likelihood(logits.row(row), windows.target(w, first + row));
      });
    }
    out.kv = kv_figures(model, caches, cache);
    const double so_far = std::exp(average({nll.data(), (w + 1) * scored}).mean);
    report(options.progress,
           {"perplexity", w + 1, windows.count(), "perplexity " + std::to_string(so_far)});
  }
  const Average mean = average(nll);
  out.perplexity = std::exp(mean.mean);
  out.perplexity_stderr = out.perplexity * mean.standard_error;
  out.tokens = nll.size();
  out.windows = windows.count();
  out.seconds = watch.seconds();
  return out;
}

}  // namespace mkv
