// Options that several commands share, declared once, and what they open.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/workers.h"
#include "engine/sampler.h"
#include "model/model.h"
#include "nest/kv_cache.h"
#include "nest/nest.h"

namespace mkv::cli {

inline constexpr size_t kDefaultContext = 8192;

// A whole number as an option; what is not one (-1, 1e99) is a usage error.
CLI::Option* add_count(CLI::App& app, const std::string& name, size_t& value,
                       const std::string& help);

// The same for a list, separated by commas.
CLI::Option* add_counts(CLI::App& app, const std::string& name, std::vector<size_t>& values,
                        const std::string& help);

struct ModelOptions {
  std::string model;   // MODEL
  size_t threads = 0;  // 0: one for each processor
  std::string isa = "auto";

  void declare(CLI::App& app);
};

struct CacheOptions {
  std::string nest;  // folder; empty: an exact cache
  std::string budget = "max";
  DType exact = DType::f16;              // keys and values of an exact cache: f16 or f32
  std::string max_kl, max_ppl_increase;  // instead of a budget; empty: not asked for
  std::optional<size_t> recent;          // exact tokens; without: the nest's
  size_t beam = 1;                       // paths when coding

  void declare(CLI::App& app);
  std::string name() const;  // of what was asked for, e.g. "2bits", "KL <= 0.01" or "exact"
};

// --recent and --beam: how a nest is used, whatever its budget.
void declare_coding(CLI::App& app, CacheOptions& cache, CLI::Option* with_nest);
void declare_sampling(CLI::App& app, SamplingOptions& options);
void declare_json(CLI::App& app, bool& json);

// A model, the nest that goes with it if any, and the threads to run them.
struct Engine {
  Model model;
  std::optional<Nest> nest;
  size_t rung = 0;  // of the nest's ladder
  Ranks ranks;      // at that rung
  std::unique_ptr<Workers> workers;
  DType exact = DType::f16;  // of exact tokens
  size_t beam = 1;           // paths when coding

  KvCache make_cache(size_t capacity) const;
  // Coded at other ranks of the nest, which there is.
  KvCache make_cache(size_t capacity, const Ranks& at) const;
  // min(what the model was trained for, kDefaultContext) unless asked for something else.
  Result<size_t> context(size_t asked) const;
};

// On the heap, as caches point to the model and the nest inside.
Result<std::unique_ptr<Engine>> open_engine(const ModelOptions& model, const CacheOptions& cache);
// The rung of a nest that the options ask for, by size or by tolerance.
Result<size_t> chosen_rung(const Nest& nest, const CacheOptions& cache);
// A nest made for this model: the same weights, the same shape.
Result<Nest> open_nest(const std::string& folder, const Model& model);

}  // namespace mkv::cli
