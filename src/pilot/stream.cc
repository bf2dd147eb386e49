#include "pilot/stream.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "base/stopwatch.h"
#include "eval/kl.h"
#include "store/message.h"

namespace mkv {
namespace {

Error invalid(const std::string& message) {
  return make_error(ErrorCode::invalid_argument, "autopilot: " + message);
}

Windows one_window(const Windows& windows, size_t index) {
  const std::span<const TokenId> tokens = windows.window(index);
  return {.context = windows.context, .tokens = {tokens.begin(), tokens.end()}};
}

Result<void> check(const Nest& nest, const Autopilot& autopilot, const RefitOptions& refit) {
  for (const AutopilotLevel& level : autopilot.levels()) {
    if (level.rung < nest.ladder().rungs()) continue;
    return invalid(
        concat("a level at rung ", level.rung, ", the nest has ", nest.ladder().rungs()));
  }
  if (refit.make && (refit.tokens == 0 || refit.trial == 0)) {
    return invalid(concat("a refit of ", refit.tokens, " tokens, tried on ", refit.trial,
                          " requests: 1 is the least of both"));
  }
  return {};
}

// The nest and autopilot that serve, and the refit that may replace them.
class Flight {
 public:
  Flight(const Model& model, const Nest& nest, Autopilot autopilot, const StreamOptions& options,
         Workers& workers)
      : model_(model),
        eval_(options.eval),
        workers_(workers),
        nest_(nest.clone()),
        autopilot_(std::move(autopilot)),
        refit_(options.refit) {
    eval_.progress = {};
  }

  Result<StreamRequest> serve(size_t index, size_t part, Windows window) {
    StreamRequest request;
    request.part = part;
    refit_.step(index);
    request.level = autopilot_.level();
    MKV_ASSIGN(const BaseHidden base,
               BaseHidden::compute(model_, std::move(window), eval_, workers_));
    MKV_ASSIGN(request.kl, divergence(base, nest_, request.level.rung));
    request.shadowed = autopilot_.wants_shadow() || refit_.trial();
    if (request.shadowed) request.decision = autopilot_.observe(request.kl);
    if (request.decision.refit) refit_.ask(index, request.decision.drift_requests);
    refit_.remember(base.windows().tokens);
    if (refit_.trial()) MKV_TRY(compare(index, base, request));
    return request;
  }

  std::vector<RefitRecord> finish() { return refit_.finish(); }

 private:
  Result<double> divergence(const BaseHidden& base, const Nest& nest, size_t rung) {
    MKV_ASSIGN(const CacheFactory caches, CacheFactory::coded(model_, nest, nest.ranks_at(rung)));
    MKV_ASSIGN(const KlReport report, evaluate_kl(model_, base, caches, eval_, workers_));
    return report.kl;
  }

  // The candidate, at no more bits than what served.
  Result<void> compare(size_t index, const BaseHidden& base, const StreamRequest& request) {
    const Nest& candidate = refit_.candidate();
    const double bits = nest_.coded_bits_per_value(nest_.ranks_at(request.level.rung));
    size_t rung = 0;
    while (rung + 1 < candidate.ladder().rungs() &&
           candidate.coded_bits_per_value(candidate.ranks_at(rung)) > bits) {
      ++rung;
    }
    MKV_ASSIGN(const double kl, divergence(base, candidate, rung));
    if (!refit_.observe(index, request.kl, kl)) return {};
    MKV_ASSIGN(autopilot_, autopilot_.with_levels(refit_.levels()));
    nest_ = refit_.take();
    return {};
  }

  const Model& model_;
  EvalOptions eval_;
  Workers& workers_;
  Nest nest_;
  Autopilot autopilot_;
  Refit refit_;
};

}  // namespace

Result<StreamReport> run_stream(const Model& model, const Nest& nest,
                                const std::vector<StreamPart>& parts, Autopilot autopilot,
                                const StreamOptions& options, Workers& workers) {
  MKV_TRY(check(nest, autopilot, options.refit));
  size_t total = 0;
  for (const StreamPart& part : parts) total += part.windows.count();
  if (total == 0) return invalid("a stream of 0 requests");
  StreamReport report;
  report.levels = autopilot.levels();
  const Stopwatch watch;
  Flight flight(model, nest, std::move(autopilot), options, workers);
  for (size_t p = 0; p < parts.size(); ++p) {
    for (size_t w = 0; w < parts[p].windows.count(); ++w) {
      MKV_ASSIGN(const StreamRequest request,
                 flight.serve(report.requests.size(), p, one_window(parts[p].windows, w)));
      report.kl += request.kl / static_cast<double>(total);
      report.bits_per_value += request.level.bits_per_value / static_cast<double>(total);
      report.requests.push_back(request);
      char detail[64];
      std::snprintf(detail, sizeof detail, "%.2f bits, KL %.4f", request.level.bits_per_value,
                    request.kl);
      mkv::report(options.eval.progress, {"stream", report.requests.size(), total, detail});
    }
  }
  report.refits = flight.finish();
  report.seconds = watch.seconds();
  return report;
}

}  // namespace mkv
