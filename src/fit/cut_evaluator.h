// How much a cut of one latent space changes the model's output: the measurement that a ladder
// search is made of. A cut in layer l leaves the layers before l as they were, so the hidden state
// at every layer's input is kept for the current ranks and only layers l ... run again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/buffer.h"
#include "base/result.h"
#include "base/workers.h"
#include "fit/calibration.h"
#include "model/model.h"
#include "nest/nest.h"

namespace mkv {

enum class SearchObjective : uint8_t {
  kl,            // mean KL divergence of the next token from the exact cache's
  hidden_error,  // relative squared error of the last hidden state, as the authors' code; no logits
};

// Scored are the positions of the second half of each sequence, as in an evaluation. One thread at
// a time; borrows the model, the nest and the sequences.
class CutEvaluator {
 public:
  static Result<CutEvaluator> create(const Model& model, const Nest& nest,
                                     std::span<const std::vector<TokenId>> sequences,
                                     SearchObjective objective, Workers& workers);

  // Runs everything at `ranks`, which become the current ones; returns the objective.
  Result<double> start(const Ranks& ranks);
  // The objective at ranks that differ from the current ones from `layer` on only.
  Result<double> measure(const Ranks& ranks, size_t layer);
  // Makes them the current ones. Costs nothing if they are what was measured last.
  Result<double> advance(const Ranks& ranks, size_t layer);

 private:
  CutEvaluator(const Model& model, const Nest& nest, SearchObjective objective, Workers& workers)
      : model_(&model), nest_(&nest), objective_(objective), workers_(&workers) {}

  Result<void> run(std::vector<KvCache>& caches, size_t layer);
  void gather_scored(Matrix<float>& scored);
  double compare();
  double compare_logits_with_base();
  double compare_hidden_with_base() const;

  const Model* model_;
  const Nest* nest_;
  SearchObjective objective_;
  Workers* workers_;
  std::span<const std::vector<TokenId>> sequences_;
  std::vector<size_t> scored_rows_;
  std::vector<Matrix<float>> inputs_;   // by layer [tokens x hidden], at the current ranks
  std::vector<Matrix<float>> pending_;  // the same at the ranks measured last
  Ranks pending_ranks_;
  double pending_value_ = 0;
  Matrix<float> hidden_, scored_, base_scored_, base_logits_, logits_;
  std::vector<double> row_values_;
  Scratch scratch_;
};

}  // namespace mkv
