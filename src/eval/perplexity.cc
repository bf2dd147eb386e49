#include "eval/perplexity.h"

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
  const size_t scored = windows.scored();
  Matrix<float> hidden(scored, model.config().hidden_size);
  std::vector<double> nll(windows.count() * scored);
  TextPass pass(model, options, workers);
  LogitRows logits(model, options, workers);
  PerplexityReport out;
  for (size_t w = 0; w < windows.count(); ++w) {
    KvCache cache = caches.make(windows.context);
    MKV_TRY(pass.run(windows, w, cache, hidden.view()));
    logits.visit(hidden.view(), [&](size_t row, std::span<const float> of_row) {
      nll[w * scored + row] = negative_log_likelihood(of_row, windows.targets(w)[row]);
    });
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
