#include "eval/greedy.h"

#include <algorithm>
#include <cmath>

#include "eval/divergence.h"
#include "ops/ops.h"

namespace mkv {

GreedyDecoder::GreedyDecoder(const Model& model, Workers& workers)
    : model_(model),
      workers_(workers),
      hidden_(model.config().hidden_size),
      logits_(model.config().vocab_size) {}

void GreedyDecoder::update_logits() {
  model_.logits({hidden_.data(), 1, hidden_.size()}, {logits_.data(), 1, logits_.size()}, workers_);
}

Result<void> GreedyDecoder::read(std::span<const TokenId> tokens, KvCache& cache) {
  MKV_TRY(prefill(model_, {tokens, &cache}, hidden_, scratch_, workers_));
  update_logits();
  return {};
}

Result<double> GreedyDecoder::log_likelihood(std::span<const TokenId> tokens, KvCache& cache) {
  MKV_TRY(model_.check_tokens(tokens));
  const std::vector<float> hidden = hidden_, logits = logits_;
  double sum = 0.0;
  for (size_t i = 0; i < tokens.size(); ++i) {
    sum -= negative_log_likelihood(logits_, tokens[i]);
    if (i + 1 < tokens.size()) MKV_TRY(read(tokens.subspan(i, 1), cache));
  }
  hidden_ = hidden;
  logits_ = logits;
  return sum;
}

Result<std::vector<TokenId>> GreedyDecoder::generate(size_t count, KvCache& cache) {
  const std::vector<TokenId>& ends = model_.tokenizer().special().end_of_generation;
  std::vector<TokenId> tokens;
  while (tokens.size() < count) {
    const size_t likeliest = index_of_largest(logits_);
    if (likeliest == logits_.size() || !std::isfinite(logits_[likeliest])) {
      return make_error(ErrorCode::corrupt, "greedy decoding: the model's logits are no numbers");
    }
    tokens.push_back(static_cast<TokenId>(likeliest));
    if (std::ranges::find(ends, tokens.back()) != ends.end() || tokens.size() == count) break;
    MKV_TRY(read({&tokens.back(), 1}, cache));
  }
  return tokens;
}

}  // namespace mkv
