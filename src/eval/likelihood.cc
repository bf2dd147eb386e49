#include "eval/likelihood.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "eval/divergence.h"
#include "ops/ops.h"
#include "store/message.h"
#include "text/utf8.h"

namespace mkv {
namespace {

constexpr size_t kLogitRows = 64;  // rows of logits held at once

Error invalid(std::string message) {
  return make_error(ErrorCode::invalid_argument, "likelihood: " + std::move(message));
}

// Bytes of `text` in front of the white space at its end.
size_t without_trailing_space(std::string_view text) {
  size_t end = text.size();
  while (end > 0) {
    const CodePoint last = code_point_before(text, end);
    if (!last.valid || !is_space(last.value)) break;
    end -= last.bytes;
  }
  return end;
}

// As many leading tokens as all runs share, all of them before any scored token.
size_t shared_length(std::span<const ScoredTokens> runs) {
  const std::vector<TokenId>& first = runs.front().tokens;
  size_t shared = first.size();
  for (const ScoredTokens& run : runs) {
    const auto end = std::ranges::mismatch(first, run.tokens).in1;
    shared = std::min({shared, static_cast<size_t>(end - first.begin()), run.first});
  }
  return shared;
}

}  // namespace

Result<ScoredTokens> encode_scored(const Tokenizer& tokenizer, std::string_view context,
                                   std::string_view continuation, size_t longest) {
  const size_t end = without_trailing_space(context);
  const std::string whole = std::string(context) + std::string(continuation);
  ScoredTokens run;
  MKV_ASSIGN(run.tokens, tokenizer.encode(whole, {}));
  MKV_ASSIGN(const std::vector<TokenId> before, tokenizer.encode(context.substr(0, end), {}));
  run.first = before.size();
  if (run.first == 0) {
    const SpecialTokens& special = tokenizer.special();
    const std::optional<TokenId> start = special.bos ? special.bos : special.eos;
    if (!start) return invalid("an empty context, and the model has neither BOS nor EOS");
    run.tokens.insert(run.tokens.begin(), *start);
    run.first = 1;
  }
  if (run.tokens.size() <= run.first) return invalid("a continuation without tokens");
  if (run.tokens.size() > longest) {
    const size_t cut = run.tokens.size() - longest;
    if (cut >= run.first) {
      return invalid(concat("a continuation of ", run.tokens.size() - run.first,
                            " tokens, the model's limit is ", longest));
    }
    run.tokens.erase(run.tokens.begin(), run.tokens.begin() + static_cast<std::ptrdiff_t>(cut));
    run.first -= cut;
  }
  return run;
}

Result<std::vector<Likelihood>> LikelihoodScorer::score(std::span<const ScoredTokens> runs) {
  if (runs.empty()) return std::vector<Likelihood>{};
  size_t longest = 0;
  for (const ScoredTokens& run : runs) {
    if (run.first == 0 || run.first >= run.tokens.size()) {
      return invalid(
          concat("token ", run.first, " is the first scored of ", run.tokens.size(), " tokens"));
    }
    longest = std::max(longest, run.tokens.size());
  }
  const size_t shared = shared_length(runs);
  if (shared == 0) return invalid("the runs do not begin with the same token");
  KvCache cache = caches_.make(longest);
  boundary_.resize(model_.config().hidden_size);
  const SequenceSlice context{std::span(runs.front().tokens).first(shared), &cache};
  MKV_TRY(prefill(model_, context, boundary_, prefill_, workers_));
  shared_ += shared;
  coded_ += cache.coded();
  MKV_TRY(read_rest(runs, shared, cache));
  std::vector<Likelihood> out;
  size_t row = 0;
  for (const ScoredTokens& run : runs) {
    MKV_ASSIGN(const Likelihood likelihood, score_run(run, shared, row));
    out.push_back(likelihood);
    row += run.tokens.size() - 1 - shared;
  }
  return out;
}

// All runs at once, each on a copy of the cache; the last token of a run foretells nothing.
Result<void> LikelihoodScorer::read_rest(std::span<const ScoredTokens> runs, size_t shared,
                                         const KvCache& cache) {
  std::vector<KvCache> copies;
  copies.reserve(runs.size());
  std::vector<SequenceSlice> slices;
  for (const ScoredTokens& run : runs) {
    const std::span<const TokenId> rest =
        std::span(run.tokens).subspan(shared, run.tokens.size() - 1 - shared);
    if (rest.empty()) continue;
    copies.push_back(cache.clone());
    slices.push_back({rest, &copies.back()});
  }
  if (slices.empty()) return {};
  return model_.forward(slices, rest_, prefill_.model, workers_);
}

// `first_row`: of rest_, where the run's own tokens begin.
Result<Likelihood> LikelihoodScorer::score_run(const ScoredTokens& run, size_t shared,
                                               size_t first_row) {
  const size_t count = run.tokens.size() - run.first;
  states_.reshape(count, boundary_.size());
  for (size_t i = 0; i < count; ++i) {
    const size_t position = run.first - 1 + i;  // of the token that foretells
    const std::span<const float> state = position < shared
                                             ? std::span<const float>(boundary_)
                                             : rest_.row(first_row + position - shared);
    std::ranges::copy(state, states_.row(i).begin());
  }
  Likelihood out{.sum = 0, .tokens = count, .greedy = true};
  for (size_t at = 0; at < count; at += kLogitRows) {
    const size_t rows = std::min(kLogitRows, count - at);
    logits_.reshape(rows, model_.config().vocab_size);
    model_.logits(states_.view().rows_from(at, rows), logits_.view(), workers_);
    for (size_t i = 0; i < rows; ++i) {
      const TokenId target = run.tokens[run.first + at + i];
      const std::span<const float> row = logits_.row(i);
      out.sum -= negative_log_likelihood(row, target);
      out.greedy &= index_of_largest(row) == static_cast<size_t>(target);
    }
  }
  if (!std::isfinite(out.sum)) {
    return make_error(ErrorCode::corrupt, "likelihood: the model's logits are no numbers");
  }
  return out;
}

}  // namespace mkv
