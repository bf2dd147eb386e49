// Ladders and budgets.
#include <algorithm>
#include <charconv>
#include <cmath>

#include "nest/nest.h"

namespace mkv {

Ladder uniform_ladder(const Nest& nest, size_t step) {
  Ladder ladder{.step = step, .cuts = {}};
  Ranks ranks = nest.full_ranks();
  const size_t most = ranks.empty() ? 0 : *std::max_element(ranks.begin(), ranks.end());
  for (size_t kept = most; kept >= step; kept -= step) {
    for (size_t space = 0; space < nest.spaces(); ++space) {
      if (ranks[space] >= kept) ladder.cuts.push_back(static_cast<uint32_t>(space));
    }
  }
  return ladder;
}

Result<size_t> rung_for_budget(const Nest& nest, std::string_view budget) {
  const auto fail = [&](const std::string& why) {
    return make_error(ErrorCode::invalid_argument, "budget '" + std::string(budget) + "': " + why);
  };
  if (budget == "max") return size_t{0};
  double number = 0.0;
  const auto [end, error] = std::from_chars(budget.data(), budget.data() + budget.size(), number);
  const std::string_view unit(end, static_cast<size_t>(budget.data() + budget.size() - end));
  if (error != std::errc() || (unit != "%" && unit != "bits")) {
    return fail("expected a percentage such as 25%, bits a value such as 2bits, or max");
  }
  const double limit = unit == "%" ? 100.0 : 16.0;
  if (!(number >= 0.0 && number <= limit)) {
    return fail("expected 0 to " + std::to_string(static_cast<int>(limit)) + " " +
                std::string(unit));
  }
  const double bits = unit == "%" ? number * 16.0 / 100.0 : number;
  const Ladder& ladder = nest.ladder();
  const double all = nest.coded_bits_per_value(nest.full_ranks());
  const double cut = static_cast<double>(ladder.step * nest.slab_bits()) /
                     static_cast<double>(nest.config().shape.values_per_token());
  const double least = all - cut * static_cast<double>(ladder.cuts.size());
  if (bits < least * (1.0 - 1e-9)) {
    return fail("the least that this nest can keep is " + std::to_string(least) + " bits a value");
  }
  // Every cut frees the same; a relative 1e-9 forgives the rounding of the budget itself.
  const double needed = std::ceil((all - bits) / cut * (1.0 - 1e-9) - 1e-9);
  return static_cast<size_t>(std::clamp(needed, 0.0, static_cast<double>(ladder.cuts.size())));
}

Result<size_t> rung_for_tolerance(const Nest& nest, const Tolerance& tolerance) {
  std::vector<RungMeasurement> measured = nest.measurements();
  if (measured.empty()) {
    return make_error(ErrorCode::invalid_argument,
                      "the nest holds no measurements: make it with --measure");
  }
  std::ranges::sort(measured, {}, &RungMeasurement::rung);
  const auto failing = std::ranges::find_if(measured, [&](const RungMeasurement& m) {
    return m.kl > tolerance.kl || m.perplexity_increase > tolerance.perplexity_increase;
  });
  if (failing != measured.begin()) return std::prev(failing)->rung;
  const bool by_kl = failing->kl > tolerance.kl;
  return make_error(ErrorCode::invalid_argument,
                    std::string(by_kl ? "KL" : "perplexity increase") + " of at most " +
                        std::to_string(by_kl ? tolerance.kl : tolerance.perplexity_increase) +
                        " was asked for, the nest has " +
                        std::to_string(by_kl ? failing->kl : failing->perplexity_increase) +
                        " at its best");
}

Result<double> parse_fraction(std::string_view text) {
  double number = 0.0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const std::string_view unit(end, static_cast<size_t>(text.data() + text.size() - end));
  if (error != std::errc() || (unit != "%" && !unit.empty()) || !(number >= 0.0)) {
    return make_error(ErrorCode::invalid_argument,
                      "'" + std::string(text) + "': expected a fraction such as 1% or 0.01");
  }
  return unit.empty() ? number : number / 100.0;
}

}  // namespace mkv
