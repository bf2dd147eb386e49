// What perplexity and KL divergence share: which cache is evaluated, and the pass over a window.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>

#include "base/progress.h"
#include "base/result.h"
#include "base/workers.h"
#include "eval/windows.h"
#include "model/model.h"
#include "nest/kv_cache.h"

namespace mkv {

struct EvalOptions {
  size_t chunk = 512;  // tokens a forward pass; a token's view of the cache does not depend on it
  size_t logit_rows = 128;  // rows of logits held at once: bounds the memory
  ProgressSink progress;    // may be empty
};

// Makes the caches of an evaluation. Borrows the model and the nest.
class CacheFactory {
 public:
  static CacheFactory exact(const Model& model, KvOptions options = {});
  // Exact but for the rounding of another engine's cache, whose bytes are the ones reported.
  // Errors: a token's keys are no multiple of kRoundingBlock values.
  static Result<CacheFactory> rounded(const Model& model, Rounding rounding);
  // Errors: the nest is not of the model's shape, or has another number of ranks.
  static Result<CacheFactory> coded(const Model& model, const Nest& nest, Ranks ranks,
                                    KvOptions options = {});

  KvCache make(size_t capacity) const;
  Rounding rounding() const { return options_.rounding; }
  double coded_bits_per_value() const;  // of the tokens that are coded; exact: of its type

 private:
  explicit CacheFactory(const Model& model) : model_(&model) {}
  const Model* model_;
  const Nest* nest_ = nullptr;
  Ranks ranks_;
  KvOptions options_;
};

// The cache at the end of a window.
struct KvFigures {
  double kv_bytes_per_token = 0;  // everything: codes, exact tokens, block padding; of a rounding
                                  // cache what the other engine stores
  double bits_per_value = 0;      // the same / values that the last token sees
  double coded_bits_per_value = 0;
};
KvFigures kv_figures(const Model& model, const CacheFactory& caches, const KvCache& cache);

// Errors: no window, a context beyond the model's, options of 0.
Result<void> check_evaluation(const Model& model, const Windows& windows,
                              const EvalOptions& options);

// Runs texts through a model, one after the other.
class TextPass {
 public:
  TextPass(const Model& model, const EvalOptions& options, Workers& workers)
      : model_(model), options_(options), workers_(workers) {}

  // Reads `text` into an empty cache; kept[n x hidden] = the last hidden states of the n tokens
  // from `first` on.
  Result<void> run(std::span<const TokenId> text, size_t first, KvCache& cache, View<float> kept);
  // Of a window: those that score a token.
  Result<void> run(const Windows& windows, size_t index, KvCache& cache, View<float> scored) {
    return run(windows.window(index), windows.first_scored(), cache, scored);
  }

 private:
  const Model& model_;
  const EvalOptions& options_;
  Workers& workers_;
  Scratch scratch_;
  Matrix<float> hidden_;
};

// Turns hidden states into logits, at most EvalOptions::logit_rows at once.
class LogitRows {
 public:
  LogitRows(const Model& model, const EvalOptions& options, Workers& workers)
      : model_(model), most_(options.logit_rows), workers_(workers) {}

  // use(row, logits) once for each row of `hidden`, from several threads.
  template <class Use>
  void visit(View<const float> hidden, const Use& use) {
    for (size_t first = 0; first < hidden.rows; first += most_) {
      const size_t rows = std::min(most_, hidden.rows - first);
      logits_.reshape(rows, model_.config().vocab_size);
      model_.logits(hidden.rows_from(first, rows), logits_.view(), workers_);
      workers_.run(rows, [&](size_t row, size_t) { use(first + row, logits_.row(row)); });
    }
  }

 private:
  const Model& model_;
  size_t most_;
  Workers& workers_;
  Matrix<float> logits_;  // [rows x vocab]
};

}  // namespace mkv
