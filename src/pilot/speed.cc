#include "pilot/speed.h"

#include <algorithm>

namespace mkv {

Result<std::vector<SpeedSeries>> measure_speed(const Model& model,
                                               const std::vector<NamedCache>& caches,
                                               const SpeedOptions& options, Workers& workers) {
  const size_t longest = model.config().max_position_embeddings;
  std::vector<DepthSpeed> depths;
  for (const size_t depth : options.depths) {
    const size_t needed = depth + std::max(options.lengths.prefill, options.lengths.decode);
    if (longest != 0 && needed > longest) continue;
    depths.emplace_back();
    depths.back().depth = depth;
  }
  std::vector<SpeedSeries> series;
  std::vector<SpeedTest> tests;
  for (const NamedCache& cache : caches) {
    series.push_back({cache.budget, depths});
    tests.emplace_back(model, cache.make, options.lengths, workers);
    DepthSpeed warm_up;
    MKV_TRY(tests.back().repeat(warm_up));
  }
  const size_t total = options.repetitions * depths.size() * caches.size();
  size_t done = 0;
  for (size_t r = 0; r < options.repetitions; ++r) {
    for (size_t d = 0; d < depths.size(); ++d) {
      for (size_t c = 0; c < caches.size(); ++c) {
        MKV_TRY(tests[c].repeat(series[c].depths[d]));
        report(options.progress, {"speed", ++done, total, caches[c].budget});
      }
    }
  }
  return series;
}

}  // namespace mkv
