#include "eval/long_text.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "base/stopwatch.h"
#include "store/message.h"

namespace mkv {
namespace {

Error invalid(std::string message) {
  return make_error(ErrorCode::invalid_argument, "long: " + std::move(message));
}

Result<void> check(const Model& model, const LongOptions& options) {
  if (options.context < 2 || options.bucket == 0) {
    return invalid(concat("a context of ", options.context, " tokens (2 are the least) in buckets ",
                          "of ", options.bucket, " (1 is the least)"));
  }
  if (options.eval.chunk == 0 || options.eval.logit_rows == 0) {
    return invalid("chunk and logit_rows must be at least 1");
  }
  const size_t longest = model.config().max_position_embeddings;
  if (longest != 0 && options.context > longest) {
    return invalid(
        concat("a context of ", options.context, " tokens, the model's limit is ", longest));
  }
  return {};
}

LongBucket summarise(size_t first, size_t end, std::span<const double> nll) {
  LongBucket bucket{.first = first, .end = end, .tokens = nll.size(), .perplexity = 0, .nll = {}};
  bucket.nll = average(nll);
  bucket.perplexity = std::exp(bucket.nll.mean);
  return bucket;
}

}  // namespace

Result<std::vector<std::vector<TokenId>>> cut_documents(const Model& model,
                                                        std::span<const std::string> documents,
                                                        const LongOptions& options) {
  MKV_TRY(check(model, options));
  const SpecialTokens& special = model.tokenizer().special();
  const bool with_bos = special.add_bos;
  std::vector<std::vector<TokenId>> pieces;
  for (const std::string& document : documents) {
    MKV_ASSIGN(const std::vector<TokenId> tokens,
               model.tokenizer().encode(document, {.add_special = false, .parse_special = false}));
    const size_t room = options.context - (with_bos ? 1 : 0);
    size_t count = 0;
    for (size_t at = 0; at < tokens.size(); at += room) {
      if (options.limit != 0 && count++ == options.limit) break;
      std::vector<TokenId> piece;
      if (with_bos) piece.push_back(*special.bos);
      const auto begin = tokens.begin() + static_cast<std::ptrdiff_t>(at);
      const size_t size = std::min(room, tokens.size() - at);
      piece.insert(piece.end(), begin, begin + static_cast<std::ptrdiff_t>(size));
      if (piece.size() >= 2) pieces.push_back(std::move(piece));
    }
  }
  if (pieces.empty()) return invalid("the text has no two tokens that follow each other");
  return pieces;
}

Result<LongReport> evaluate_long(const Model& model, const CacheFactory& caches,
                                 std::span<const std::vector<TokenId>> pieces,
                                 const LongOptions& options, Workers& workers) {
  MKV_TRY(check(model, options));
  const Stopwatch watch;
  const size_t bucket_count = (options.context + options.bucket - 1) / options.bucket;
  std::vector<std::vector<double>> by_bucket(bucket_count);
  std::vector<double> all, nll;
  TextPass pass(model, options.eval, workers);
  LogitRows logits(model, options.eval, workers);
  Matrix<float> hidden;
  LongReport out;
  size_t longest = 0;
  for (const std::vector<TokenId>& piece : pieces) {
    if (piece.size() < 2 || piece.size() > options.context) {
      return invalid(
          concat("a piece of ", piece.size(), " tokens, 2 to ", options.context, " are right"));
    }
    KvCache cache = caches.make(piece.size());
    hidden.reshape(piece.size() - 1, model.config().hidden_size);
    MKV_TRY(pass.run(piece, 0, cache, hidden.view()));
    nll.assign(piece.size(), 0.0);
    logits.visit(hidden.view(), [&](size_t row, std::span<const float> of_row) {
      nll[row + 1] = negative_log_likelihood(of_row, piece[row + 1]);
    });
    for (size_t t = 1; t < nll.size(); ++t) by_bucket[t / options.bucket].push_back(nll[t]);
    all.insert(all.end(), nll.begin() + 1, nll.end());
    if (piece.size() > longest) out.kv = kv_figures(model, caches, cache);
    longest = std::max(longest, piece.size());
    char detail[40];
    std::snprintf(detail, sizeof detail, "perplexity %.3f", std::exp(average(all).mean));
    report(options.eval.progress, {"long", ++out.pieces, pieces.size(), detail});
  }
  for (size_t b = 0; b < bucket_count; ++b) {
    if (by_bucket[b].empty()) continue;
    out.buckets.push_back(summarise(
        b * options.bucket, std::min((b + 1) * options.bucket, options.context), by_bucket[b]));
  }
  out.all = summarise(0, options.context, all);
  out.seconds = watch.seconds();
  return out;
}

}  // namespace mkv
