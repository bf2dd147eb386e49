#include "fit/measure.h"

#include <algorithm>
#include <cstdio>
#include <string>

#include "eval/kl.h"

namespace mkv {

Result<void> measure_ladder(const Model& model, Nest& nest, const Windows& windows,
                            const MeasureOptions& options, Workers& workers) {
  if (options.rungs == 0) {
    return make_error(ErrorCode::invalid_argument, "measure: 0 rungs were asked for");
  }
  MKV_ASSIGN(const BaseHidden base, BaseHidden::compute(model, windows, options.eval, workers));
  EvalOptions quiet = options.eval;
  quiet.progress = {};
  const size_t cuts = nest.ladder().cuts.size();
  const size_t count = std::min(options.rungs, std::max<size_t>(cuts, 1));
  std::vector<RungMeasurement> measurements;
  for (size_t i = 0; i < count; ++i) {
    const size_t rung = i * cuts / count;
    const Ranks ranks = nest.ranks_at(rung);
    MKV_ASSIGN(const CacheFactory caches, CacheFactory::coded(model, nest, ranks));
    MKV_ASSIGN(const KlReport kl, evaluate_kl(model, base, caches, quiet, workers));
    measurements.push_back({.rung = rung,
                            .bits_per_value = nest.coded_bits_per_value(ranks),
                            .kl = kl.kl,
                            .perplexity_increase = kl.perplexity_increase()});
    char detail[80];
    std::snprintf(detail, sizeof detail, "KL %.4f, perplexity %+.2f %% at %.2f bits",
                  measurements.back().kl, 100.0 * measurements.back().perplexity_increase,
                  measurements.back().bits_per_value);
    report(options.eval.progress, {"measure", i + 1, count, detail});
  }
  nest.measurements() = std::move(measurements);
  return {};
}

}  // namespace mkv
