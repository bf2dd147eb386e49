// A model and the caches to compare: exact, other engines' roundings, a nest's budgets.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cli/options.h"
#include "cli/output.h"
#include "eval/evaluation.h"

namespace mkv::cli {

struct NamedCaches {
  std::string budget;  // as it was asked for
  CacheFactory caches;
};

class BudgetOptions {
 public:
  void declare(CLI::App& app);
  // Reads the model and the nest. A budget that needs a nest without one, or a nest that no budget
  // needs, is a usage error.
  Result<void> open();

  const Model& model() const { return engine_->model; }
  Workers& workers() const { return *engine_->workers; }
  const std::vector<NamedCaches>& all() const { return all_; }

  // A Report of each of all(), in their order, by `measure`: const CacheFactory& -> Result<Report>.
  template <class Report, class Measure>
  Result<std::vector<Report>> measure_all(const Measure& measure) const {
    std::vector<Report> reports;
    for (const NamedCaches& each : all_) {
      MKV_ASSIGN(Report report, measure(each.caches));
      reports.push_back(std::move(report));
    }
    return reports;
  }

  // A list of objects, one for each of all() and its report: the budget, then what `fill` adds:
  // const CacheFactory&, const Report&, OrderedJson&.
  template <class Report, class Fill>
  void print_reports(const std::vector<Report>& reports, const Fill& fill) const {
    OrderedJson list = OrderedJson::array();
    for (size_t b = 0; b < reports.size(); ++b) {
      OrderedJson result{{"budget", all_[b].budget}};
      fill(all_[b].caches, reports[b], result);
      list.push_back(std::move(result));
    }
    print_json(list);
  }

 private:
  Result<CacheFactory> caches_of(const std::string& budget) const;

  ModelOptions model_;
  CacheOptions cache_;  // the nest and its window; budgets are a list of their own
  std::vector<std::string> budgets_;
  std::unique_ptr<Engine> engine_;
  std::vector<NamedCaches> all_;
};

// kv_bytes_per_token, bits_per_value and coded_bits_per_value.
void add_figures(OrderedJson& result, const KvFigures& kv);

// A depth or a share as users write it: "50%", "0.5".
Result<std::vector<double>> parse_fractions(const char* option,
                                            const std::vector<std::string>& texts);

}  // namespace mkv::cli
