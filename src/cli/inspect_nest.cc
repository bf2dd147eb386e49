#include "cli/inspect_nest.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>

#include "cli/output.h"

namespace mkv::cli {
namespace {

std::string_view name(KeyMean mean) {
  switch (mean) {
    case KeyMean::none:
      return "none";
    case KeyMean::plain:
      return "plain";
    case KeyMean::position:
      return "position";
  }
  return "unknown";
}

std::string_view name(SlabKind kind) { return kind == SlabKind::column ? "column" : "code"; }

// Where the ladder stands at a share of its full size.
struct Step {
  std::string budget;
  size_t rung = 0;
  double bits = 0, key_slabs = 0, value_slabs = 0;  // averages
  size_t least = 0, most = 0;                       // slabs of one space
};

// Budgets as percent of 16 bits; those above the nest's full size or below its least are left out.
std::vector<Step> ladder_steps(const Nest& nest) {
  std::vector<Step> steps;
  for (const char* budget : {"max", "100%", "87.5%", "75%", "62.5%", "50%", "37.5%", "25%",
                             "18.75%", "12.5%", "9.375%", "6.25%"}) {
    const auto rung = rung_for_budget(nest, budget);
    if (!rung || (!steps.empty() && steps.back().rung == *rung)) continue;
    const Ranks ranks = nest.ranks_at(*rung);
    Step step{budget, *rung, nest.coded_bits_per_value(ranks)};
    for (size_t space = 0; space < nest.spaces(); ++space) {
      const bool key = nest.unflat(space).side == Side::key;
      (key ? step.key_slabs : step.value_slabs) += ranks[space];
    }
    step.key_slabs /= static_cast<double>(nest.spaces()) / 2;
    step.value_slabs /= static_cast<double>(nest.spaces()) / 2;
    step.least = *std::min_element(ranks.begin(), ranks.end());
    step.most = *std::max_element(ranks.begin(), ranks.end());
    steps.push_back(step);
  }
  return steps;
}

double coded_bytes(const Nest& nest, double bits) {
  return bits * static_cast<double>(nest.config().shape.values_per_token()) / 8;
}

void print_ladder(const Nest& nest) {
  std::printf("\nladder of %zu rungs, %zu slabs a cut; slabs a latent space:\n",
              nest.ladder().rungs(), nest.ladder().step);
  std::vector<std::vector<std::string>> rows{
      {"budget", "rung", "bits/value", "coded bytes/token", "keys", "values", "least", "most"}};
  for (const Step& step : ladder_steps(nest)) {
    rows.push_back({step.budget, std::to_string(step.rung), format("%.3f", step.bits),
                    format("%.0f", coded_bytes(nest, step.bits)), format("%.1f", step.key_slabs),
                    format("%.1f", step.value_slabs), std::to_string(step.least),
                    std::to_string(step.most)});
  }
  print_table(rows);
}

void print_measurements(const Nest& nest) {
  if (nest.measurements().empty()) return;
  std::printf("\nmeasured when it was made:\n");
  std::vector<std::vector<std::string>> rows{{"rung", "bits/value", "KL", "perplexity"}};
  for (const RungMeasurement& measured : nest.measurements()) {
    rows.push_back({std::to_string(measured.rung), format("%.3f", measured.bits_per_value),
                    format("%.4f", measured.kl),
                    format("%+.2f %%", 100 * measured.perplexity_increase)});
  }
  print_table(rows);
}

}  // namespace

bool is_nest(const std::string& path) {
  std::error_code error;
  return std::filesystem::exists(std::filesystem::path(path) / "matryoshka_kv_config.json", error);
}

Result<void> print_nest_json(const Nest& nest) {
  const NestConfig& config = nest.config();
  OrderedJson result{{"kind", "nest"},
                     {"num_layers", config.shape.layers},
                     {"num_kv_heads", config.shape.kv_heads},
                     {"head_dim", config.shape.head_dim},
                     {"group_size", config.group_size},
                     {"slab_kind", name(config.slab_kind)},
                     {"key_mean", name(config.key_mean)},
                     {"sinks", config.sinks},
                     {"recent", config.recent},
                     {"later_sinks", config.later_sinks},
                     {"model_hash", config.model_hash},
                     {"origin", config.origin},
                     {"spaces", nest.spaces()},
                     {"orthogonality_error", nest.orthogonality_error()},
                     {"rungs", nest.ladder().rungs()},
                     {"slabs_per_cut", nest.ladder().step},
                     {"ladder", OrderedJson::array()},
                     {"measurements", OrderedJson::array()}};
  for (const Step& step : ladder_steps(nest)) {
    result["ladder"].push_back({{"budget", step.budget},
                                {"rung", step.rung},
                                {"coded_bits_per_value", step.bits},
                                {"coded_bytes_per_token", coded_bytes(nest, step.bits)},
                                {"key_slabs", step.key_slabs},
                                {"value_slabs", step.value_slabs},
                                {"least_slabs", step.least},
                                {"most_slabs", step.most}});
  }
  for (const RungMeasurement& measured : nest.measurements()) {
    result["measurements"].push_back({{"rung", measured.rung},
                                      {"bits_per_value", measured.bits_per_value},
                                      {"kl", measured.kl},
                                      {"perplexity_increase", measured.perplexity_increase}});
  }
  print_json(result);
  return {};
}

Result<void> print_nest_text(const Nest& nest) {
  const NestConfig& config = nest.config();
  std::printf("nest for %zu layers, %zu KV heads of %zu; %zu heads share a basis\n",
              config.shape.layers, config.shape.kv_heads, config.shape.head_dim, config.group_size);
  std::printf("slabs: %s, key mean: %s, exact: first %zu and last %zu tokens, %zu later sinks\n",
              std::string(name(config.slab_kind)).c_str(),
              std::string(name(config.key_mean)).c_str(), config.sinks, config.recent,
              config.later_sinks);
  std::printf("orthogonality error %.2e\nmodel hash: %s\n", nest.orthogonality_error(),
              config.model_hash.c_str());
  for (const auto& [key, value] : config.origin) {
    std::printf("%s: %s\n", key.c_str(), value.c_str());
  }
  print_ladder(nest);
  print_measurements(nest);
  return {};
}

}  // namespace mkv::cli
