#include "cli/budgets.h"

#include <algorithm>

namespace mkv::cli {
namespace {

bool needs_nest(const std::string& budget) {
  return budget != "exact" && budget != "f32" && budget != "q8_0" && budget != "q4_0";
}

}  // namespace

void BudgetOptions::declare(CLI::App& app) {
  model_.declare(app);
  CLI::Option* with_nest =
      app.add_option("--nest", cache_.nest, "Nest folder, for budgets that are a size of it");
  declare_coding(app, cache_, with_nest);
  app.add_option("--budgets", budgets_,
                 "Caches to compare: exact, f32 (exact without rounding to 16 bits), q8_0 and q4_0 "
                 "(rounded as llama.cpp's), and of the nest 25%, 2bits or max; without any: exact, "
                 "and max with a nest")
      ->delimiter(',');
}

Result<CacheFactory> BudgetOptions::caches_of(const std::string& budget) const {
  const Model& model = engine_->model;
  if (budget == "exact") return CacheFactory::exact(model);
  if (budget == "f32") return CacheFactory::exact(model, {.exact = DType::f32});
  if (budget == "q8_0") return CacheFactory::rounded(model, Rounding::q8_0);
  if (budget == "q4_0") return CacheFactory::rounded(model, Rounding::q4_0);
  MKV_ASSIGN(const size_t rung, rung_for_budget(*engine_->nest, budget));
  return CacheFactory::coded(model, *engine_->nest, engine_->nest->ranks_at(rung),
                             {.beam = engine_->beam});
}

Result<void> BudgetOptions::open() {
  if (budgets_.empty()) {
    budgets_ = cache_.nest.empty() ? std::vector<std::string>{"exact"}
                                   : std::vector<std::string>{"exact", "max"};
  }
  const auto of_nest = std::ranges::find_if(budgets_, needs_nest);
  if (of_nest != budgets_.end() && cache_.nest.empty()) {
    return make_error(ErrorCode::invalid_argument,
                      "--budgets " + *of_nest + ": needs --nest (without: exact, f32, q8_0, q4_0)");
  }
  if (of_nest == budgets_.end() && !cache_.nest.empty()) {
    return make_error(ErrorCode::invalid_argument, "--nest: --budgets names no size of it");
  }
  MKV_ASSIGN(engine_, open_engine(model_, cache_));
  for (const std::string& budget : budgets_) {
    auto caches = caches_of(budget);
    if (!caches) return in_context("--budgets", std::move(caches).error());
    all_.push_back({budget, std::move(*caches)});
  }
  return {};
}

void add_figures(OrderedJson& result, const KvFigures& kv) {
  result["kv_bytes_per_token"] = kv.kv_bytes_per_token;
  result["bits_per_value"] = kv.bits_per_value;
  result["coded_bits_per_value"] = kv.coded_bits_per_value;
}

Result<std::vector<double>> parse_fractions(const char* option,
                                            const std::vector<std::string>& texts) {
  std::vector<double> fractions;
  for (const std::string& text : texts) {
    auto fraction = parse_fraction(text);
    if (!fraction) return in_context(option, std::move(fraction).error());
    fractions.push_back(*fraction);
  }
  return fractions;
}

}  // namespace mkv::cli
