// KL divergence of a compressed cache from the exact one: what compression alone changes, at every
// scored position, over the full vocabulary. Windows and scored positions as for perplexity.
#pragma once

#include <cstddef>
#include <span>

#include "eval/evaluation.h"

namespace mkv {

struct KlReport {
  double kl = 0;  // mean of KL(p_exact || p_compressed), in nats a token
  double kl_stderr = 0;
  double top1_agreement = 0;  // fraction of positions with the same most likely token
  double perplexity = 0;
  double perplexity_base = 0;  // of the exact cache
  // Standard error of ln(perplexity / perplexity_base), of the tokens in pairs: text that is hard
  // for both caches does not count.
  double log_ratio_stderr = 0;
  size_t tokens = 0;
  size_t windows = 0;
  KvFigures kv;
  double seconds = 0;  // without the exact pass

  // Fraction: 0.01 = 1 %.
  double perplexity_increase() const { return perplexity / perplexity_base - 1.0; }
};

// The exact pass over some windows, kept as the hidden states that score a token (2 KB a token for
// a hidden size of 576), so that many budgets cost one exact pass.
class BaseHidden {
 public:
  static Result<BaseHidden> compute(const Model& model, Windows windows, const EvalOptions& options,
                                    Workers& workers);

  const Windows& windows() const { return windows_; }
  const KvFigures& kv() const { return kv_; }  // of the exact cache
  // [scored x hidden] of one window.
  View<const float> hidden(size_t window) const {
    return hidden_.view().rows_from(window * windows_.scored(), windows_.scored());
  }

 private:
  Windows windows_;
  Matrix<float> hidden_;
  KvFigures kv_;
};

// What evaluate_kl says of the exact cache itself, without another pass.
KlReport report_exact(const Model& model, const BaseHidden& base, const EvalOptions& options,
                      Workers& workers);

// `base` is of the same model. For a nest at given ranks: CacheFactory::coded(model, nest, ranks).
Result<KlReport> evaluate_kl(const Model& model, const BaseHidden& base, const CacheFactory& caches,
                             const EvalOptions& options, Workers& workers);

// Mean KL of the tokens of one text from `first` on (1 or more), each after all before it.
Result<double> text_kl(const Model& model, const CacheFactory& caches,
                       std::span<const TokenId> text, size_t first, const EvalOptions& options,
                       Workers& workers);

}  // namespace mkv
