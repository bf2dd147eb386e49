// What each size of a nest costs in quality, on the user's text; and which of them to use.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "eval/kl.h"

namespace mkv {

// A cache that was measured.
struct QualityPoint {
  std::string budget;                // as --budget takes it; or exact, q8_0, q4_0
  std::optional<size_t> rung;        // of the nest's ladder
  KlReport quality;                  // against the exact cache
  size_t context = 0;                // tokens at which quality.kv was counted
  double coded_bytes_per_token = 0;  // what a coded token takes, in all layers

  // exp(ln ratio + errors * standard error) - 1: the increase itself for errors = 0.
  double perplexity_increase(double errors) const;
};

struct QualityOptions {
  double tolerance = 0.01;  // most increase of perplexity, a fraction
  std::vector<double> shares = {1,   0.8, 0.7, 0.6,  0.5,
                                0.4, 0.3, 0.2, 0.15, 0.1};  // of the nest's full size; falling
  size_t refinements = 3;  // further sizes between the last that keeps the tolerance and the next
  EvalOptions eval;        // progress is told cache by cache
};

// The exact cache, q8_0 and q4_0 where the model's shape allows them, then sizes of the nest from
// the largest to the smallest.
// Errors: shares out of (0, 1], a negative tolerance, what evaluate_kl refuses.
Result<std::vector<QualityPoint>> measure_quality(const Model& model, const Nest& nest,
                                                  const Windows& windows,
                                                  const QualityOptions& options, Workers& workers);

// Standard errors that a one-sided confidence of 95 % takes.
inline constexpr double kConfidentErrors = 1.645;

// Index of the smallest size of the nest whose increase is within the tolerance, and so is that of
// every larger one; nothing when not even the largest is.
std::optional<size_t> smallest_within(std::span<const QualityPoint> points, double tolerance,
                                      double errors);

}  // namespace mkv
