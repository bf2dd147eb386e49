// Ladders and budgets.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>

#include "nest/nest.h"

namespace mkv {

namespace {

// "25%": 25 and "%"; nothing if the text does not begin with a number.
struct Quantity {
  double number = 0.0;
  std::string_view unit;
};
std::optional<Quantity> parse_quantity(std::string_view text) {
  Quantity quantity;
  const char* last = text.data() + text.size();
  const auto [end, error] = std::from_chars(text.data(), last, quantity.number);
  if (error != std::errc()) return std::nullopt;
  quantity.unit = {end, static_cast<size_t>(last - end)};
  return quantity;
}

}  // namespace

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
  const std::optional<Quantity> asked = parse_quantity(budget);
  if (!asked || (asked->unit != "%" && asked->unit != "bits")) {
    return fail("expected a percentage such as 25%, bits a value such as 2bits, or max");
  }
  const auto [number, unit] = *asked;
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
  const std::optional<Quantity> given = parse_quantity(text);
  if (!given || (given->unit != "%" && !given->unit.empty()) || !(given->number >= 0.0)) {
    return make_error(ErrorCode::invalid_argument,
                      "'" + std::string(text) + "': expected a fraction such as 1% or 0.01");
  }
  return given->unit.empty() ? given->number : given->number / 100.0;
}

}  // namespace mkv
