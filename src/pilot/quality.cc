#include "pilot/quality.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "store/message.h"

namespace mkv {
namespace {

constexpr size_t kGrid = 100;  // sizes are multiples of full / kGrid, so that budgets read well

// "1.75bits"; of rungs close together the texts still differ.
std::string budget_text(double bits) {
  char text[40];
  std::snprintf(text, sizeof text, "%.4gbits", bits);
  return text;
}

// Measures caches one after the other against one exact pass.
class Sweep {
 public:
  Sweep(const Model& model, const Nest& nest, const BaseHidden& base, const QualityOptions& options,
        Workers& workers)
      : model_(model), nest_(nest), base_(base), options_(options), workers_(workers) {}

  Result<void> measure_others() {
    add("exact", report_exact(model_, base_, options_.eval, workers_));
    for (const auto& [name, rounding] :
         {std::pair{"q8_0", Rounding::q8_0}, {"q4_0", Rounding::q4_0}}) {
      auto caches = CacheFactory::rounded(model_, rounding);
      if (caches) MKV_TRY(measure(name, *caches));
    }
    return {};
  }

  // A size of the nest, in units of full / kGrid; one that the ladder does not reach, or that was
  // measured already, is left out.
  Result<void> measure_size(size_t units) {
    const double bits = full_bits() * static_cast<double>(units) / double{kGrid};
    const std::string budget = units == kGrid ? "max" : budget_text(bits);
    const auto rung = rung_for_budget(nest_, budget);
    if (!rung || has_rung(*rung)) return {};
    MKV_ASSIGN(const CacheFactory caches,
               CacheFactory::coded(model_, nest_, nest_.ranks_at(*rung)));
    MKV_TRY(measure(budget, caches));
    points.back().rung = *rung;
    units_.push_back({units, points.size() - 1});
    return {};
  }

  // Halves the gap between the smallest size that keeps the tolerance and the next one.
  Result<void> refine() {
    std::ranges::sort(units_, std::greater<>());
    const auto keeps = [&](const std::pair<size_t, size_t>& size) {
      return points[size.second].perplexity_increase(0) <= options_.tolerance;
    };
    const auto failing = std::ranges::find_if_not(units_, keeps);
    if (failing == units_.begin() || failing == units_.end()) return {};
    const size_t high = std::prev(failing)->first, low = failing->first;
    return high - low < 2 ? Result<void>{} : measure_size(low + (high - low) / 2);
  }

  size_t planned() const { return 3 + options_.shares.size() + options_.refinements; }

  std::vector<QualityPoint> points;

 private:
  double full_bits() const { return nest_.coded_bits_per_value(nest_.full_ranks()); }
  bool has_rung(size_t rung) const {
    return std::ranges::any_of(points, [&](const QualityPoint& p) { return p.rung == rung; });
  }

  Result<void> measure(std::string budget, const CacheFactory& caches) {
    EvalOptions quiet = options_.eval;
    quiet.progress = {};
    MKV_ASSIGN(KlReport quality, evaluate_kl(model_, base_, caches, quiet, workers_));
    add(std::move(budget), std::move(quality));
    return {};
  }

  void add(std::string budget, KlReport quality) {
    QualityPoint point;
    point.quality = std::move(quality);
    point.context = base_.windows().context;
    const auto values = static_cast<double>(model_.config().kv_shape().values_per_token());
    point.coded_bytes_per_token = point.quality.kv.coded_bits_per_value * values / 8;
    char detail[80];
    std::snprintf(detail, sizeof detail, "%s: KL %.4f, perplexity %+.2f %%", budget.c_str(),
                  point.quality.kl, 100 * point.perplexity_increase(0));
    point.budget = std::move(budget);
    points.push_back(std::move(point));
    report(options_.eval.progress,
           {"quality", std::min(points.size(), planned()), planned(), detail});
  }

  const Model& model_;
  const Nest& nest_;
  const BaseHidden& base_;
  const QualityOptions& options_;
  Workers& workers_;
  std::vector<std::pair<size_t, size_t>> units_;  // size, index of its point
};

Result<void> check(const QualityOptions& options) {
  if (!(options.tolerance >= 0)) {
    return make_error(ErrorCode::invalid_argument,
                      "tolerance " + std::to_string(options.tolerance) + ": expected 0 or more");
  }
  for (const double share : options.shares) {
    if (share > 0 && share <= 1) continue;
    return make_error(
        ErrorCode::invalid_argument,
        "share of the nest's size " + std::to_string(share) + ": expected more than 0, at most 1");
  }
  return {};
}

}  // namespace

double QualityPoint::perplexity_increase(double errors) const {
  return quality.perplexity / quality.perplexity_base *
             std::exp(errors * quality.log_ratio_stderr) -
         1;
}

Result<std::vector<QualityPoint>> measure_quality(const Model& model, const Nest& nest,
                                                  const Windows& windows,
                                                  const QualityOptions& options, Workers& workers) {
  MKV_TRY(check(options));
  MKV_ASSIGN(const BaseHidden base, BaseHidden::compute(model, windows, options.eval, workers));
  Sweep sweep(model, nest, base, options, workers);
  MKV_TRY(sweep.measure_others());
  for (const double share : options.shares) {
    MKV_TRY(sweep.measure_size(static_cast<size_t>(std::lround(share * double{kGrid}))));
  }
  for (size_t i = 0; i < options.refinements; ++i) MKV_TRY(sweep.refine());
  report(options.eval.progress, {"quality", sweep.planned(), sweep.planned(), {}});
  const auto first = std::ranges::find_if(
      sweep.points, [](const QualityPoint& point) { return point.rung.has_value(); });
  std::stable_sort(first, sweep.points.end(),
                   [](const QualityPoint& a, const QualityPoint& b) { return a.rung < b.rung; });
  return std::move(sweep.points);
}

std::optional<size_t> smallest_within(std::span<const QualityPoint> points, double tolerance,
                                      double errors) {
  std::optional<size_t> found;
  for (size_t i = 0; i < points.size(); ++i) {
    if (!points[i].rung) continue;
    if (points[i].perplexity_increase(errors) > tolerance) break;
    found = i;
  }
  return found;
}

}  // namespace mkv
