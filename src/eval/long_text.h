// Perplexity by position over whole documents: whether a cache loses more the longer a text is.
//
// Every document is tokenised (BOS where the model adds it) and cut into pieces of `context`
// tokens, the last one shorter; each piece starts from an empty cache with BOS, and its tokens from
// the second on are scored by their position in it.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "eval/divergence.h"
#include "eval/evaluation.h"

namespace mkv {

struct LongOptions {
  size_t context = 8192;  // tokens a piece
  size_t bucket = 1024;   // positions that are summed up together
  size_t limit = 0;       // most pieces of a document, its first; 0: all
  EvalOptions eval;
};

// Pieces of at most `context` tokens. Errors: an option of 0, a context beyond the model's, no
// piece of two tokens.
Result<std::vector<std::vector<TokenId>>> cut_documents(const Model& model,
                                                        std::span<const std::string> documents,
                                                        const LongOptions& options);

struct LongBucket {
  size_t first = 0, end = 0;  // positions
  size_t tokens = 0;          // scored there
  double perplexity = 0;
  Average nll;  // nats a token
};

struct LongReport {
  std::vector<LongBucket> buckets;  // by position; those without a token are left out
  LongBucket all;
  size_t pieces = 0;
  KvFigures kv;  // at the end of the longest piece
  double seconds = 0;
};

Result<LongReport> evaluate_long(const Model& model, const CacheFactory& caches,
                                 std::span<const std::vector<TokenId>> pieces,
                                 const LongOptions& options, Workers& workers);

}  // namespace mkv
