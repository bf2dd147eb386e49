#include "fit/correct_gains.h"

#include <algorithm>

#include "fit/cut_evaluator.h"

namespace mkv {
namespace {

constexpr double kPrior = 0.5;  // of the average space's stake, added to both sides of a ratio
constexpr double kMost = 4.0;

struct Stake {
  double predicted = 0, measured = 0;
};

std::vector<double> factors_of(std::span<const Stake> stakes) {
  Stake all;
  for (const Stake& s : stakes) {
    all.predicted += s.predicted;
    all.measured += s.measured;
  }
  std::vector<double> factors(stakes.size(), 1.0);
  if (!(all.predicted > 0.0 && all.measured > 0.0)) return factors;
  const double prior = kPrior / static_cast<double>(stakes.size());
  for (size_t i = 0; i < stakes.size(); ++i) {
    const double ratio = (std::max(0.0, stakes[i].measured) / all.measured + prior) /
                         (stakes[i].predicted / all.predicted + prior);
    factors[i] = std::clamp(ratio, 1.0 / kMost, kMost);
  }
  return factors;
}

}  // namespace

Result<std::vector<double>> measured_gain_factors(const Model& model, const Nest& nest,
                                                  const Ranks& ranks,
                                                  std::span<const std::vector<double>> gains,
                                                  std::span<const std::vector<TokenId>> sequences,
                                                  const ProgressSink& progress, Workers& workers) {
  MKV_ASSIGN(CutEvaluator evaluator,
             CutEvaluator::create(model, nest, sequences, SearchObjective::kl, workers));
  MKV_TRY(evaluator.start(ranks));
  std::vector<Stake> stakes(nest.spaces());
  for (size_t space = 0; space < stakes.size(); ++space) {
    report(progress, {"corrections", space, stakes.size(), {}});
    const size_t layer = nest.unflat(space).layer, rank = ranks[space];
    const size_t step = std::max<size_t>(1, rank / 4);
    const size_t low = rank > step ? rank - step : 0;
    const size_t high = std::min(nest.slabs_in(space), rank + step);
    Ranks changed = ranks;
    changed[space] = static_cast<uint16_t>(low);
    MKV_ASSIGN(const double worse, evaluator.measure(changed, layer));
    changed[space] = static_cast<uint16_t>(high);
    MKV_ASSIGN(const double better, evaluator.measure(changed, layer));
    stakes[space].measured = worse - better;
    for (size_t s = low; s < high; ++s) stakes[space].predicted += gains[space][s];
  }
  report(progress, {"corrections", stakes.size(), stakes.size(), {}});
  return factors_of(stakes);
}

}  // namespace mkv
