#include "pilot/stream.h"

#include <cstdio>
#include <utility>

#include "base/stopwatch.h"
#include "eval/kl.h"
#include "store/message.h"

namespace mkv {
namespace {

Windows one_window(const Windows& windows, size_t index) {
  const std::span<const TokenId> tokens = windows.window(index);
  return {.context = windows.context, .tokens = {tokens.begin(), tokens.end()}};
}

Result<double> request_kl(const Model& model, const Nest& nest, Windows window, size_t rung,
                          const EvalOptions& options, Workers& workers) {
  MKV_ASSIGN(const BaseHidden base,
             BaseHidden::compute(model, std::move(window), options, workers));
  MKV_ASSIGN(const CacheFactory caches, CacheFactory::coded(model, nest, nest.ranks_at(rung)));
  MKV_ASSIGN(const KlReport report, evaluate_kl(model, base, caches, options, workers));
  return report.kl;
}

}  // namespace

Result<StreamReport> run_stream(const Model& model, const Nest& nest,
                                const std::vector<StreamPart>& parts, Autopilot& autopilot,
                                const EvalOptions& options, Workers& workers) {
  EvalOptions quiet = options;
  quiet.progress = {};
  size_t total = 0;
  for (const StreamPart& part : parts) total += part.windows.count();
  for (const AutopilotLevel& level : autopilot.levels()) {
    if (level.rung < nest.ladder().rungs()) continue;
    return make_error(ErrorCode::invalid_argument,
                      concat("autopilot: a level at rung ", level.rung, ", the nest has ",
                             nest.ladder().rungs()));
  }
  if (total == 0)
    return make_error(ErrorCode::invalid_argument, "autopilot: a stream of 0 requests");
  StreamReport report;
  report.levels = autopilot.levels();
  const Stopwatch watch;
  for (size_t p = 0; p < parts.size(); ++p) {
    for (size_t w = 0; w < parts[p].windows.count(); ++w) {
      StreamRequest request;
      request.part = p;
      request.level = autopilot.level();
      MKV_ASSIGN(request.kl, request_kl(model, nest, one_window(parts[p].windows, w),
                                        request.level.rung, quiet, workers));
      request.shadowed = autopilot.wants_shadow();
      if (request.shadowed) request.decision = autopilot.observe(request.kl);
      report.kl += request.kl / static_cast<double>(total);
      report.bits_per_value += request.level.bits_per_value / static_cast<double>(total);
      report.requests.push_back(request);
      char detail[64];
      std::snprintf(detail, sizeof detail, "%.2f bits, KL %.4f", request.level.bits_per_value,
                    request.kl);
      mkv::report(options.progress, {"stream", report.requests.size(), total, detail});
    }
  }
  report.seconds = watch.seconds();
  return report;
}

}  // namespace mkv
