#include "fit/cut_evaluator.h"

#include <algorithm>
#include <numeric>
#include <string>

#include "eval/divergence.h"

namespace mkv {
namespace {

constexpr size_t kLogitRows = 128;  // computed at a time
constexpr size_t kLeastTokens = 4;  // of a sequence: its second half must score something

void copy(const Matrix<float>& from, Matrix<float>& to) {
  to.reshape(from.rows(), from.cols());
  std::ranges::copy(from.span(), to.data());
}

}  // namespace

Result<CutEvaluator> CutEvaluator::create(const Model& model, const Nest& nest,
                                          std::span<const std::vector<TokenId>> sequences,
                                          SearchObjective objective, Workers& workers) {
  CutEvaluator out(model, nest, objective, workers);
  out.sequences_ = sequences;
  std::vector<TokenId> tokens;
  std::vector<KvCache> caches;
  for (const std::vector<TokenId>& sequence : sequences) {
    if (sequence.size() < kLeastTokens) {
      return make_error(ErrorCode::invalid_argument,
                        "search: a sequence of " + std::to_string(sequence.size()) +
                            " tokens is shorter than " + std::to_string(kLeastTokens));
    }
    for (size_t t = sequence.size() / 2; t + 1 < sequence.size(); ++t) {
      out.scored_rows_.push_back(tokens.size() + t);
    }
    tokens.insert(tokens.end(), sequence.begin(), sequence.end());
    caches.push_back(model.exact_cache(sequence.size()));
  }
  if (sequences.empty()) {
    return make_error(ErrorCode::invalid_argument, "search: no calibration tokens");
  }
  const size_t layers = model.config().num_layers;
  out.inputs_.resize(layers);
  out.pending_.resize(layers);
  MKV_TRY(model.embed(tokens, out.inputs_[0]));
  MKV_TRY(out.run(caches, 0));
  out.gather_scored(out.base_scored_);
  const size_t scored = out.scored_rows_.size();
  out.row_values_.resize(scored);
  if (objective == SearchObjective::kl) {
    const size_t vocab = model.config().vocab_size;
    out.base_logits_ = Matrix<float>(scored, vocab);
    out.logits_ = Matrix<float>(std::min(scored, kLogitRows), vocab);
    model.logits(out.base_scored_.view(), out.base_logits_.view(), workers);
  }
  return out;
}

Result<void> CutEvaluator::run(std::vector<KvCache>& caches, size_t layer) {
  std::vector<SequenceSlice> slices;
  for (size_t i = 0; i < sequences_.size(); ++i) slices.push_back({sequences_[i], &caches[i]});
  copy(inputs_[layer], hidden_);
  for (size_t l = layer; l < inputs_.size(); ++l) {
    if (l > layer) copy(hidden_, pending_[l]);
    MKV_TRY(model_->run_layers(slices, l, l + 1, hidden_, scratch_, *workers_));
  }
  return {};
}

void CutEvaluator::gather_scored(Matrix<float>& scored) {
  scored.reshape(scored_rows_.size(), hidden_.cols());
  for (size_t i = 0; i < scored_rows_.size(); ++i) {
    std::ranges::copy(hidden_.row(scored_rows_[i]), scored.row(i).begin());
  }
  model_->finish(scored);
}

double CutEvaluator::compare_logits_with_base() {
  for (size_t first = 0; first < scored_.rows(); first += logits_.rows()) {
    const size_t rows = std::min(logits_.rows(), scored_.rows() - first);
    model_->logits(scored_.view().rows_from(first, rows), logits_.view().rows_from(0, rows),
                   *workers_);
    workers_->run(rows, [&](size_t row, size_t) {
      row_values_[first + row] = kl_divergence(base_logits_.row(first + row), logits_.row(row));
    });
  }
  return average(row_values_).mean;
}

double CutEvaluator::compare_hidden_with_base() const {
  double error = 0.0, size = 0.0;
  for (size_t row = 0; row < scored_.rows(); ++row) {
    const std::span<const float> base = base_scored_.row(row), now = scored_.row(row);
    for (size_t i = 0; i < base.size(); ++i) {
      const double difference = static_cast<double>(now[i]) - base[i];
      error += difference * difference;
      size += static_cast<double>(base[i]) * base[i];
    }
  }
  return error / size;
}

double CutEvaluator::compare() {
  gather_scored(scored_);
  return objective_ == SearchObjective::kl ? compare_logits_with_base()
                                           : compare_hidden_with_base();
}

Result<double> CutEvaluator::measure(const Ranks& ranks, size_t layer) {
  std::vector<KvCache> caches;
  for (const std::vector<TokenId>& sequence : sequences_) {
    caches.emplace_back(*nest_, ranks, model_->config().layer_types, sequence.size());
  }
  pending_ranks_.clear();  // until the run is whole
  // A layer's later sinks may be those of the layer before: nothing is left out then.
  MKV_TRY(run(caches, nest_->config().later_sinks > 0 ? 0 : layer));
  pending_value_ = compare();
  pending_ranks_ = ranks;
  return pending_value_;
}

Result<double> CutEvaluator::start(const Ranks& ranks) {
  pending_ranks_.clear();
  return advance(ranks, 0);
}

Result<double> CutEvaluator::advance(const Ranks& ranks, size_t layer) {
  if (pending_ranks_ != ranks) MKV_TRY(measure(ranks, layer));
  for (size_t l = layer + 1; l < inputs_.size(); ++l) std::swap(inputs_[l], pending_[l]);
  pending_ranks_.clear();  // what is pending now are the former inputs
  return pending_value_;
}

}  // namespace mkv
