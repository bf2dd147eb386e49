#include "pilot/pilot.h"

#include <algorithm>
#include <cmath>

#include "base/stopwatch.h"

namespace mkv {
namespace {

// The sizes to look at closer: the recommended one, and the measured one nearest to half of it.
std::vector<const QualityPoint*> sizes_to_show(const PilotResult& result) {
  const auto of_nest = [](const QualityPoint& point) { return point.rung.has_value(); };
  const auto largest = std::ranges::find_if(result.quality, of_nest);
  if (largest == result.quality.end()) return {};
  const QualityPoint* chosen =
      result.recommended ? &result.quality[*result.recommended] : &*largest;
  const QualityPoint* smaller = nullptr;
  const auto distance = [&](const QualityPoint& point) {
    return std::abs(point.coded_bytes_per_token - chosen->coded_bytes_per_token / 2);
  };
  for (const QualityPoint& point : result.quality) {
    if (!point.rung || *point.rung <= *chosen->rung) continue;
    if (smaller == nullptr || distance(point) < distance(*smaller)) smaller = &point;
  }
  return smaller == nullptr ? std::vector{chosen} : std::vector{chosen, smaller};
}

Result<void> show_speed(const Model& model, const Nest& nest, const PilotOptions& options,
                        Workers& workers, PilotResult& result) {
  // What generation uses.
  const KvOptions fast{.exact = DType::f16, .arithmetic = Arithmetic::fast};
  std::vector<NamedCache> caches{
      {"exact", [&](size_t capacity) { return model.exact_cache(capacity, fast); }}};
  for (const QualityPoint* point : sizes_to_show(result)) {
    caches.push_back({point->budget,
                      [&nest, &model, fast, ranks = nest.ranks_at(*point->rung)](size_t capacity) {
                        return KvCache(nest, ranks, model.config().layer_types, capacity, fast);
                      }});
  }
  SpeedOptions speed = options.speed;
  speed.progress = options.progress;
  MKV_ASSIGN(result.speed, measure_speed(model, caches, speed, workers));
  return {};
}

Result<void> show_answers(const Model& model, const Nest& nest,
                          std::span<const std::string> documents, const PilotOptions& options,
                          Workers& workers, PilotResult& result) {
  std::vector<NamedFactory> caches{{"exact", CacheFactory::exact(model)}};
  for (const QualityPoint* point : sizes_to_show(result)) {
    MKV_ASSIGN(CacheFactory coded, CacheFactory::coded(model, nest, nest.ranks_at(*point->rung)));
    caches.push_back({point->budget, std::move(coded)});
  }
  if (auto rounded = CacheFactory::rounded(model, Rounding::q4_0)) {
    caches.push_back({"q4_0", *std::move(rounded)});
  }
  AnswerOptions answers = options.answers;
  answers.progress = options.progress;
  MKV_ASSIGN(result.answers, collect_answers(model, caches, documents, answers, workers));
  return {};
}

}  // namespace

Result<PilotResult> run_pilot(const Model& model, const Nest& nest,
                              std::span<const std::string> documents, const PilotOptions& options,
                              Workers& workers) {
  WindowOptions windows = options.windows;
  windows.context = std::min(windows.context, model.config().max_position_embeddings);
  QualityOptions quality = options.quality;
  quality.eval.progress = options.progress;
  PilotResult result;
  Stopwatch watch;
  MKV_ASSIGN(result.windows, make_windows(model.tokenizer(), documents, windows));
  MKV_ASSIGN(result.quality, measure_quality(model, nest, result.windows, quality, workers));
  result.recommended = smallest_within(result.quality, quality.tolerance, 0);
  result.confident = smallest_within(result.quality, quality.tolerance, kConfidentErrors);
  result.quality_seconds = watch.lap();
  MKV_TRY(show_speed(model, nest, options, workers, result));
  result.speed_seconds = watch.lap();
  MKV_TRY(show_answers(model, nest, documents, options, workers, result));
  result.answers_seconds = watch.lap();
  return result;
}

}  // namespace mkv
