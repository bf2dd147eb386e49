#include "fit/fit_codes.h"

#include <algorithm>
#include <cmath>
#include <mutex>
#include <numeric>

#include "fit/code_ladder.h"
#include "fit/codebooks.h"
#include "fit/correct_gains.h"
#include "fit/joint_codebooks.h"
#include "fit/metric_basis.h"
#include "fit/sample.h"
#include "ops/gemm.h"

namespace mkv {
namespace {

NestConfig config_of(const Model& model, const CodeFitOptions& options) {
  NestConfig config;
  config.shape = model.config().kv_shape();
  config.group_size = options.group_size == 0 ? config.shape.kv_heads : options.group_size;
  config.slab_kind = SlabKind::code;
  config.key_mean = options.key_mean;
  config.sinks = options.sinks;
  config.recent = options.recent;
  // Some 13 in 1,024 tokens of the real model: a bound against odd text, not a dial.
  constexpr size_t kMany = 4096;
  config.later_sinks = options.later_sinks.value_or(options.sinks < 2 ? 0 : kMany);
  config.model_hash = model.weights_hash();
  config.origin = options.origin;
  return config;
}

class CodeFit {
 public:
  CodeFit(const Model& model, const KvSample& sample, const CodeFitOptions& options, Nest& nest)
      : model_(model), sample_(sample), options_(options), nest_(nest) {}

  // Bases, and slabs one after the other; returns the slabs' gains in the loss.
  Result<std::vector<double>> fit(GroupId id) const {
    Basis& basis = nest_.basis(id);
    Space space = centred(id);
    MKV_TRY(fit_metric_basis(covariance_of(space.columns, space.weights),
                             sample_.gradient_moments[nest_.flat(id)], options_.ridge, basis));
    Matrix<float> latents = latents_of(space, basis);
    CodebookOptions books;
    books.max_slabs =
        static_cast<size_t>(options_.most_bits * 1.5 * static_cast<double>(nest_.dims()) / 4);
    books.max_per_column = options_.most_per_column;
    books.iterations = options_.iterations;
    books.seed = options_.seed + nest_.flat(id);
    return keep(id, fit_codebooks(latents, space.weights, books));
  }
  // The same slabs, their entries fitted together.
  Result<std::vector<double>> refit(GroupId id) const {
    Basis& basis = nest_.basis(id);
    const Space space = centred(id);
    const JointOptions joint{.rounds = options_.joint_rounds};
    return keep(id, refit_codebooks(latents_of(space, basis), space.weights, basis.slabs, joint));
  }

 private:
  struct Space {
    Matrix<float> columns;       // [dims][padded tokens], less the mean
    std::vector<float> weights;  // [padded tokens]
  };
  Space centred(GroupId id) const {
    Space space;
    centred_columns(sample_, model_, id, options_.key_mean, space.columns, nest_.basis(id).mean);
    space.weights = sample_weights(sample_, id.layer, nest_.flat(id), options_.token_weight_floor,
                                   space.columns.cols());
    return space;
  }
  static Matrix<float> latents_of(const Space& space, const Basis& basis) {
    Matrix<float> latents(space.columns.rows(), space.columns.cols());
    gemm(basis.encode.view(), space.columns.view(), Transpose::no, 0.0f, latents.view());
    return latents;
  }
  std::vector<double> keep(GroupId id, SpaceCode code) const {
    nest_.basis(id).slabs = std::move(code.slabs);
    const double weight = 0.5 * (id.side == Side::key ? options_.key_weight : 1.0);
    for (double& gain : code.gains) gain *= weight;
    return std::move(code.gains);
  }

  const Model& model_;
  const KvSample& sample_;
  const CodeFitOptions& options_;
  Nest& nest_;
};

using Gains = std::vector<std::vector<double>>;  // [space][slab]

// What `fit_one` says of all spaces of the nest.
template <class FitOne>
Result<Gains> for_spaces(const Nest& nest, std::string_view stage, const ProgressSink& progress,
                         Workers& workers, const FitOne& fit_one) {
  Gains gains(nest.spaces());
  std::mutex mutex;
  size_t done = 0;
  Result<void> failed;
  workers.run(nest.spaces(), [&](size_t space, size_t) {
    auto result = fit_one(nest.unflat(space));
    const std::lock_guard lock(mutex);
    if (result)
      gains[space] = std::move(*result);
    else if (failed)
      failed = std::move(result).error();
    report(progress, {stage, ++done, nest.spaces(), {}});
  });
  MKV_TRY(std::move(failed));
  return gains;
}

// What the slabs of each space cost: tokens whose codes the layer holds at the longest context that
// the nest is for, as a part of the most. A sliding window holds few of a long context.
std::vector<double> slab_costs(const ModelConfig& config, const Nest& nest, size_t context) {
  const auto coded = [&](size_t tokens) {
    const size_t exact = nest.config().recent;
    return static_cast<double>(std::max(tokens, exact + kBlockTokens) - exact);
  };
  std::vector<double> costs(nest.spaces());
  for (size_t space = 0; space < costs.size(); ++space) {
    const size_t window = config.layer_types.of(nest.unflat(space).layer).window;
    costs[space] = coded(std::min(context, window)) / coded(context);
  }
  return costs;
}

// Multiplies each space's gains by what measurements say they are worth.
Result<void> correct_gains(const Model& model, std::span<const std::vector<TokenId>> windows,
                           const CodeFitOptions& options, const Nest& nest, Gains& gains,
                           const ProgressSink& progress, Workers& workers) {
  const double bits = std::min(options.correction_bits, options.most_bits);
  MKV_ASSIGN(const size_t rung, rung_for_budget(nest, std::to_string(bits) + "bits"));
  const auto measured = windows.first(std::min(options.correction_windows, windows.size()));
  MKV_ASSIGN(
      const std::vector<double> factors,
      measured_gain_factors(model, nest, nest.ranks_at(rung), gains, measured, progress, workers));
  for (size_t space = 0; space < gains.size(); ++space) {
    for (double& gain : gains[space]) gain *= factors[space];
  }
  return {};
}

}  // namespace

Result<Nest> fit_code_nest(const Model& model, std::span<const std::vector<TokenId>> windows,
                           const CodeFitOptions& options, const ProgressSink& progress,
                           Workers& workers) {
  MKV_ASSIGN(Nest nest, Nest::create(config_of(model, options)));
  const size_t longest = model.config().max_position_embeddings;
  const SampleOptions sampling{.group_size = nest.config().group_size,
                               .view = {options.sinks, options.recent, nest.config().later_sinks},
                               .context = std::min(options.context, longest),
                               .draws = std::max<size_t>(1, options.draws),
                               .seed = options.seed};
  MKV_ASSIGN(const KvSample sample, gather_sample(model, windows, sampling, progress, workers));
  const CodeFit fit(model, sample, options, nest);
  MKV_ASSIGN(Gains gains, for_spaces(nest, "codebooks", progress, workers,
                                     [&](GroupId id) { return fit.fit(id); }));
  const size_t window = windows.empty() ? 0 : windows.front().size();
  const std::vector<double> costs =
      slab_costs(model.config(), nest, std::max(sampling.context, window));
  MKV_TRY(keep_best_slabs({gains, costs}, options.most_bits, nest));
  if (options.joint_rounds > 0) {
    MKV_ASSIGN(gains, for_spaces(nest, "joint codebooks", progress, workers,
                                 [&](GroupId id) { return fit.refit(id); }));
    MKV_TRY(nest.set_ladder(ladder_from_gains({gains, costs})));
  }
  if (options.correction_windows > 0) {
    MKV_TRY(correct_gains(model, windows, options, nest, gains, progress, workers));
    for (size_t space = 0; space < gains.size(); ++space) {
      gains[space].resize(nest.slabs_in(space));
    }
    MKV_TRY(nest.set_ladder(ladder_from_gains({gains, costs})));
  }
  return nest;
}

}  // namespace mkv
