#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "ops/ops.h"

namespace mkv {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kLargest = std::numeric_limits<float>::max();

Error out_of_range(const char* name, float value, const char* range) {
  return make_error(ErrorCode::invalid_argument,
                    std::string(name) + ": found " + std::to_string(value) + ", expected " + range);
}

Error no_numbers(size_t logits) {
  return make_error(ErrorCode::corrupt, "none of the model's " + std::to_string(logits) +
                                            " logits is a number; are its weights damaged?");
}

// Likelier first; among equals the lower id, so that the order does not depend on the library.
constexpr auto likelier = [](const auto& a, const auto& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
};

}  // namespace

Result<void> SamplingOptions::validate() const {
  if (!(temperature >= 0 && temperature <= 100)) {
    return out_of_range("temperature", temperature, "0 ... 100");
  }
  if (!(top_p > 0 && top_p <= 1)) return out_of_range("top_p", top_p, "more than 0, at most 1");
  if (!(min_p >= 0 && min_p <= 1)) return out_of_range("min_p", min_p, "0 ... 1");
  if (!(repetition_penalty > 0 && repetition_penalty <= 100)) {
    return out_of_range("repetition_penalty", repetition_penalty, "more than 0, at most 100");
  }
  return {};
}

SamplingOptions SamplingOptions::greedy() {
  SamplingOptions options;
  options.temperature = 0;
  return options;
}

SamplingOptions SamplingOptions::unbiased(uint64_t seed) {
  SamplingOptions options;
  options.temperature = 1;
  options.top_k = 0;
  options.top_p = 1;
  options.min_p = 0;
  options.seed = seed;
  return options;
}

Result<Sampler> Sampler::create(const SamplingOptions& options) {
  MKV_TRY(options.validate());
  return Sampler(options);
}

bool Sampler::greedy() const { return options_.temperature == 0 || options_.top_k == 1; }

float Sampler::exact_within() const {
  if (options_.repetition_penalty != 1.0f) return kInfinity;  // which may move any logit to the top
  if (greedy()) return 0.0f;
  constexpr float kRounding = 1e-3f;
  return options_.min_p > 0 ? kRounding - std::log(options_.min_p) : kInfinity;
}

Result<TokenId> Sampler::sample(std::span<const float> logits, std::span<const TokenId> history) {
  if (greedy() && options_.repetition_penalty == 1.0f) {
    const size_t best = index_of_largest(logits);
    if (best == logits.size()) return no_numbers(logits.size());
    return static_cast<TokenId>(best);
  }
  candidates_.resize(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) {
    // Damaged weights give NaN; such a token is never chosen. Infinities would make others NaN.
    const float logit = std::isnan(logits[i]) ? -kInfinity : logits[i];
    candidates_[i] = {std::min(logit, kLargest), static_cast<TokenId>(i)};
  }
  penalise(history);
  const auto best = std::ranges::min_element(candidates_, likelier);
  if (best == candidates_.end() || best->logit == -kInfinity) {
    return no_numbers(logits.size());
  }
  if (greedy()) return best->token;
  keep_top_k();
  keep_probable();
  return draw();
}

void Sampler::penalise(std::span<const TokenId> history) {
  const float penalty = options_.repetition_penalty;
  if (penalty == 1.0f) return;
  const auto window = history.last(std::min(history.size(), options_.repetition_window));
  recent_.assign(window.begin(), window.end());
  std::ranges::sort(recent_);
  recent_.erase(std::unique(recent_.begin(), recent_.end()), recent_.end());
  for (TokenId token : recent_) {
    if (token < 0 || static_cast<size_t>(token) >= candidates_.size()) continue;
    float& logit = candidates_[static_cast<size_t>(token)].logit;
    logit = std::min(logit > 0 ? logit / penalty : logit * penalty, kLargest);
  }
}

void Sampler::keep_top_k() {
  if (options_.top_k == 0 || options_.top_k >= candidates_.size()) return;
  const auto end = candidates_.begin() + static_cast<std::ptrdiff_t>(options_.top_k);
  // A heap of k: most of a vocabulary is turned away by one comparison.
  std::partial_sort(candidates_.begin(), end, candidates_.end(), likelier);
  candidates_.erase(end, candidates_.end());
}

// top-p and min-p. The latter does not depend on the sum, so it goes first: fewer are sorted.
void Sampler::keep_probable() {
  const float best = std::ranges::min_element(candidates_, likelier)->logit;
  auto weight = [&](const Candidate& c) { return std::exp(static_cast<double>(c.logit - best)); };
  double total = 0;
  if (options_.top_p < 1) {
    for (const Candidate& c : candidates_) total += weight(c);
  }
  if (options_.min_p > 0) {
    const double least = static_cast<double>(options_.min_p);
    std::erase_if(candidates_, [&](const Candidate& c) { return weight(c) < least; });
  }
  if (options_.top_p < 1) {
    const double wanted = static_cast<double>(options_.top_p) * total;
    double sum = 0;
    size_t kept = 0, sorted = 0;
    while (kept < candidates_.size() && sum < wanted) {
      if (kept == sorted) {  // a few usually do: sorting a whole vocabulary takes milliseconds
        sorted = std::min(candidates_.size(), std::max<size_t>(256, sorted * 8));
        const auto at = [&](size_t i) { return candidates_.begin() + static_cast<ptrdiff_t>(i); };
        std::partial_sort(at(kept), at(sorted), candidates_.end(), likelier);
      }
      sum += weight(candidates_[kept++]);
    }
    candidates_.resize(kept);
  }
}

TokenId Sampler::draw() {
  const float best = std::ranges::min_element(candidates_, likelier)->logit;
  auto weight = [&](const Candidate& c) {
    return std::exp(static_cast<double>((c.logit - best) / options_.temperature));
  };
  double total = 0;
  for (const Candidate& c : candidates_) total += weight(c);
  double left = rng_.uniform() * total;
  const Candidate* chosen = nullptr;
  for (const Candidate& c : candidates_) {
    const double w = weight(c);
    if (w == 0) continue;
    chosen = &c;  // the last one if rounding leaves a remainder
    left -= w;
    if (left < 0) break;
  }
  return chosen->token;
}

}  // namespace mkv
