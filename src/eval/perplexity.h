// Perplexity by llama.cpp's procedure (see windows.h), over an exact or a compressed cache.
#pragma once

#include <cstddef>

#include "eval/evaluation.h"

namespace mkv {

struct PerplexityReport {
  double perplexity = 0;
  double perplexity_stderr = 0;
  size_t tokens = 0;  // scored
  size_t windows = 0;
  KvFigures kv;
  double seconds = 0;
};

Result<PerplexityReport> evaluate_perplexity(const Model& model, const CacheFactory& caches,
                                             const Windows& windows, const EvalOptions& options,
                                             Workers& workers);

}  // namespace mkv
