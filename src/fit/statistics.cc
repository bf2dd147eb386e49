#include "fit/statistics.h"

#include <algorithm>
#include <string>

#include "ops/gemm.h"
#include "ops/ops.h"

namespace mkv {
namespace {

constexpr size_t kChunk = 512;  // tokens a forward pass, and tokens summed in float32 at a time

size_t first_counted(const LayerObservation& seen, size_t sinks) {
  return std::min(seen.keys.rows, sinks > seen.first_position ? sinks - seen.first_position : 0);
}

// Runs one sequence with an exact cache.
Result<void> observe(const Model& model, std::span<const TokenId> sequence, Workers& workers,
                     const LayerObserver& observer) {
  KvCache cache = model.exact_cache(sequence.size());
  Scratch scratch;
  Matrix<float> hidden;
  for (size_t begin = 0; begin < sequence.size(); begin += kChunk) {
    const size_t count = std::min(kChunk, sequence.size() - begin);
    const SequenceSlice slice{sequence.subspan(begin, count), &cache};
    MKV_TRY(model.forward({&slice, 1}, hidden, scratch, workers, observer));
  }
  return {};
}

}  // namespace

Statistics::Statistics(const ModelConfig& config, const StatisticsOptions& options)
    : options_(options),
      shape_(config.kv_shape()),
      layer_types_(config.layer_types),
      dims_(options.group_size * config.head_dim),
      groups_(config.num_kv_heads / options.group_size),
      angles_(layer_types_.all().size()) {
  MKV_CHECK(options.group_size >= 1 && shape_.kv_heads % options.group_size == 0);
  spaces_.resize(shape_.layers * groups_ * 2);
  for (Space& space : spaces_) {
    space.sum.assign(dims_, 0.0);
    space.mean.assign(dims_, 0.0f);
    space.moment = Matrix<double>(dims_, dims_);
  }
}

Statistics::Space& Statistics::space(size_t layer, size_t group, Side side) {
  return spaces_[(layer * groups_ + group) * 2 + static_cast<size_t>(side)];
}

void Statistics::add_to_means(const LayerObservation& seen) {
  const View<const float> keys =
      options_.key_mean == KeyMean::position ? seen.keys_before_rope : seen.keys;
  const size_t first = first_counted(seen, options_.sinks);
  for (size_t group = 0; group < groups_; ++group) {
    for (const Side side : {Side::key, Side::value}) {
      Space& target = space(seen.layer, group, side);
      const View<const float> from = side == Side::key ? keys : seen.values;
      for (size_t t = first; t < from.rows; ++t) {
        const std::span<const float> row = from.row(t).subspan(group * dims_, dims_);
        for (size_t c = 0; c < dims_; ++c) target.sum[c] += static_cast<double>(row[c]);
      }
      target.mean_tokens += from.rows - first;
    }
  }
}

void Statistics::fix_means() {
  for (size_t index = 0; index < spaces_.size(); ++index) {
    Space& target = spaces_[index];
    const bool raw = index % 2 == 0 && options_.key_mean == KeyMean::none;
    if (raw || target.mean_tokens == 0) continue;
    for (size_t c = 0; c < dims_; ++c) {
      target.mean[c] = static_cast<float>(target.sum[c] / static_cast<double>(target.mean_tokens));
    }
  }
}

void Statistics::extend_angles(size_t layer, size_t positions) {
  auto& [cos, sin] = angles_[layer_types_.index_of(layer)];
  const Rotary& rotary = layer_types_.of(layer).rotary;
  const size_t have = cos.rows();
  if (positions <= have) return;
  cos.reshape(positions, rotary.pairs());
  sin.reshape(positions, rotary.pairs());
  for (size_t t = have; t < positions; ++t) {
    rotary.angles(static_cast<double>(t), cos.row(t), sin.row(t));
  }
}

void Statistics::centre(const LayerObservation& seen, size_t index, size_t first,
                        Matrix<float>& columns) const {
  const bool is_key = index % 2 == 0;
  const View<const float> from = is_key ? seen.keys : seen.values;
  const size_t offset = index / 2 % groups_ * dims_;
  const Angles& angles = angles_[layer_types_.index_of(seen.layer)];
  const std::vector<float>& mean = spaces_[index].mean;
  const bool turns = is_key && options_.key_mean == KeyMean::position;
  columns.reshape(dims_, from.rows - first);
  std::vector<float> turned = mean;
  for (size_t t = first; t < from.rows; ++t) {
    if (turns) {
      const size_t position = seen.first_position + t;
      turned = mean;
      rope_heads(turned, shape_.head_dim, angles.cos.row(position), angles.sin.row(position));
    }
    const float* row = from.row(t).data() + offset;
    for (size_t c = 0; c < dims_; ++c) columns.at(c, t - first) = row[c] - turned[c];
  }
}

void Statistics::add(const LayerObservation& seen, Workers& workers) {
  const size_t first = first_counted(seen, options_.sinks);
  if (first == seen.keys.rows) return;
  MKV_CHECK(seen.keys.cols == groups_ * dims_ && seen.values.cols == groups_ * dims_);
  extend_angles(seen.layer, seen.first_position + seen.keys.rows);
  scratch_.resize(std::max(scratch_.size(), workers.count()));
  workers.run(groups_ * 2, [&](size_t task, size_t worker) {
    WorkerScratch& scratch = scratch_[worker];
    Space& target = spaces_[seen.layer * groups_ * 2 + task];
    centre(seen, seen.layer * groups_ * 2 + task, first, scratch.columns);
    scratch.product.reshape(dims_, dims_);
    gemm(scratch.columns.view(), scratch.columns.view(), Transpose::yes, 0.0f,
         scratch.product.view());
    const std::span<const float> product = scratch.product.span();
    const std::span<double> moment = target.moment.span();
    for (size_t i = 0; i < moment.size(); ++i) moment[i] += static_cast<double>(product[i]);
    target.tokens += seen.keys.rows - first;
  });
}

Matrix<double> Statistics::covariance(size_t space) const {
  Matrix<double> out = spaces_[space].moment.clone();
  const double scale =
      spaces_[space].tokens == 0 ? 0.0 : 1.0 / static_cast<double>(spaces_[space].tokens);
  for (double& x : out.span()) x *= scale;
  return out;
}

Result<Statistics> gather_statistics(const Model& model,
                                     std::span<const std::vector<TokenId>> sequences,
                                     const StatisticsOptions& options, const ProgressSink& progress,
                                     Workers& workers) {
  const size_t heads = model.config().num_kv_heads;
  if (options.group_size == 0 || heads % options.group_size != 0) {
    return make_error(ErrorCode::invalid_argument,
                      "statistics: a group size of " + std::to_string(options.group_size) +
                          " does not divide " + std::to_string(heads) + " KV heads");
  }
  Statistics statistics(model.config(), options);
  const size_t total = count_tokens(sequences);
  const size_t for_means = std::min(options.mean_tokens, total);
  for (size_t i = 0, done = 0; i < sequences.size() && done < for_means; ++i) {
    MKV_TRY(observe(model, sequences[i], workers,
                    [&](const LayerObservation& seen) { statistics.add_to_means(seen); }));
    done += sequences[i].size();
    report(progress, {"means", std::min(done, for_means), for_means, {}});
  }
  statistics.fix_means();
  size_t done = 0;
  for (const std::vector<TokenId>& sequence : sequences) {
    MKV_TRY(observe(model, sequence, workers,
                    [&](const LayerObservation& seen) { statistics.add(seen, workers); }));
    done += sequence.size();
    report(progress, {"statistics", done, total, {}});
  }
  return statistics;
}

}  // namespace mkv
