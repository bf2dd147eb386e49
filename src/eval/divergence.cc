#include "eval/divergence.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace mkv {
namespace {

size_t top_of(std::span<const float> logits) {
  return static_cast<size_t>(std::ranges::max_element(logits) - logits.begin());
}

// Two rows; log_sum of the logits less the largest.
struct Pair {
  size_t top_base = 0, top = 0;
  double log_sum_base = 0, log_sum = 0, kl = 0;
};

// ln p_i - ln q_i = d_i - (ln Z_p - ln Z_q), d_i = the difference of the shifted logits: one exp an
// element and side, and nothing is left when the rows are equal.
Pair compare(std::span<const float> base, std::span<const float> logits) {
  MKV_CHECK(base.size() == logits.size());
  Pair out{.top_base = top_of(base), .top = top_of(logits)};
  const double most_base = base[out.top_base], most = logits[out.top];
  double sum_base = 0.0, sum = 0.0, weighted = 0.0;
  for (size_t i = 0; i < base.size(); ++i) {
    const double shifted_base = base[i] - most_base, shifted = logits[i] - most;
    const double e = std::exp(shifted_base);
    sum_base += e;
    sum += std::exp(shifted);
    weighted += e * (shifted_base - shifted);
  }
  out.log_sum_base = std::log(sum_base);
  out.log_sum = std::log(sum);
  out.kl = weighted / sum_base - (out.log_sum_base - out.log_sum);
  if (out.kl < 0.0) out.kl = 0.0;  // rounding; a NaN stays one
  return out;
}

}  // namespace

double negative_log_likelihood(std::span<const float> logits, TokenId target) {
  MKV_CHECK(target >= 0 && static_cast<size_t>(target) < logits.size());
  const double most = logits[top_of(logits)];
  double sum = 0.0;
  for (const float logit : logits) sum += std::exp(logit - most);
  return std::log(sum) - (logits[static_cast<size_t>(target)] - most);
}

double kl_divergence(std::span<const float> base, std::span<const float> logits) {
  return compare(base, logits).kl;
}

Comparison compare_logits(std::span<const float> base, std::span<const float> logits,
                          TokenId target) {
  MKV_CHECK(target >= 0 && static_cast<size_t>(target) < logits.size());
  const auto t = static_cast<size_t>(target);
  const Pair pair = compare(base, logits);
  return {.kl = pair.kl,
          .nll_base = pair.log_sum_base - (static_cast<double>(base[t]) - base[pair.top_base]),
          .nll = pair.log_sum - (static_cast<double>(logits[t]) - logits[pair.top]),
          .same_top = pair.top_base == pair.top};
}

Average average(std::span<const double> values) {
  if (values.empty()) return {};
  double sum = 0.0, squares = 0.0;
  for (const double x : values) {
    sum += x;
    squares += x * x;
  }
  const auto n = static_cast<double>(values.size());
  Average out{.mean = sum / n, .standard_error = 0.0};
  if (values.size() > 1) {
    const double variance = std::max(0.0, squares / n - out.mean * out.mean);
    out.standard_error = std::sqrt(variance / (n - 1.0));
  }
  return out;
}

}  // namespace mkv
