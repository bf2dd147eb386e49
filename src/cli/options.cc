#include "cli/options.h"

#include <algorithm>

#include "nest/beam_kernels.h"
#include "ops/instruction_set.h"

namespace mkv::cli {
namespace {

const std::map<std::string, DType> kExactTypes = {{"f16", DType::f16}, {"f32", DType::f32}};

std::string shape_text(const KvShape& shape) {
  return std::to_string(shape.layers) + " layers x " + std::to_string(shape.kv_heads) +
         " KV heads x " + std::to_string(shape.head_dim);
}

// CLI11 reads "-1" into an unsigned number as 2^64 - 1.
std::string check_whole_number(const std::string& text) {
  constexpr size_t kMostDigits = 18;  // below 2^63
  const bool digits = std::ranges::all_of(text, [](char c) { return c >= '0' && c <= '9'; });
  if (!text.empty() && digits && text.size() <= kMostDigits) return {};
  return "'" + text + "' is not a whole number from 0 on";
}

// An option that was not given leaves the bound as it is.
Result<void> read_bound(const char* option, const std::string& text, double& bound) {
  if (text.empty()) return {};
  auto value = parse_fraction(text);
  if (!value) return in_context(option, std::move(value).error());
  bound = *value;
  return {};
}

}  // namespace

CLI::Option* add_count(CLI::App& app, const std::string& name, size_t& value,
                       const std::string& help) {
  return app.add_option(name, value, help)->capture_default_str()->check(check_whole_number);
}

CLI::Option* add_counts(CLI::App& app, const std::string& name, std::vector<size_t>& values,
                        const std::string& help) {
  return app.add_option(name, values, help)
      ->delimiter(',')
      ->capture_default_str()
      ->check(check_whole_number);
}

void ModelOptions::declare(CLI::App& app) {
  app.add_option("MODEL", model, "GGUF file or Hugging Face folder")->required();
  add_count(app, "--threads", threads, "Threads; 0 is one for each processor")
      ->check(CLI::Range(0, 1024));
  std::string sets = "auto";
  for (const std::string_view set : instruction_sets()) sets.append(", ").append(set);
  app.add_option("--isa", isa, "Best instruction set to use: " + sets)->capture_default_str();
}

void CacheOptions::declare(CLI::App& app) {
  CLI::Option* with_nest =
      app.add_option("--nest", nest, "Nest folder; without one the cache is exact");
  app.add_option("--budget", budget,
                 "Size of the cache: 25% of 16 bits, 2bits a value of the coded tokens, or max")
      ->capture_default_str()
      ->needs(with_nest);
  app.add_option("--kv-type", exact, "Keys and values of the exact cache: f16 or f32")
      ->transform(CLI::CheckedTransformer(kExactTypes))
      ->default_str("f16")
      ->excludes(with_nest);
  app.add_option("--max-kl", max_kl, "Smallest cache that the nest measured at most this KL for")
      ->needs(with_nest)
      ->excludes("--budget");
  app.add_option("--max-ppl-increase", max_ppl_increase,
                 "Smallest cache that the nest measured at most this for, e.g. 1%")
      ->needs(with_nest)
      ->excludes("--budget");
  declare_coding(app, *this, with_nest);
}

void declare_coding(CLI::App& app, CacheOptions& cache, CLI::Option* with_nest) {
  app.add_option("--recent", cache.recent,
                 "Most recent tokens that stay exact, a multiple of 64; without: the nest's. More "
                 "are worth their bytes in long contexts")
      ->needs(with_nest)
      ->check(check_whole_number);
  add_count(app, "--beam", cache.beam,
            "Choices that are followed at once when a token is coded: more take time and bring "
            "less error; a cache that shrinks later equals one of the smaller size only with 1")
      ->needs(with_nest)
      ->check(CLI::Range(size_t{1}, kMostBeam));
}

std::string CacheOptions::name() const {
  if (nest.empty()) return "exact";
  if (max_kl.empty() && max_ppl_increase.empty()) return budget;
  std::string name = max_kl.empty() ? "" : "KL <= " + max_kl;
  if (!max_ppl_increase.empty()) {
    name += (name.empty() ? "" : ", ") + std::string("perplexity <= +") + max_ppl_increase;
  }
  return name;
}

Result<size_t> chosen_rung(const Nest& nest, const CacheOptions& cache) {
  if (cache.max_kl.empty() && cache.max_ppl_increase.empty()) {
    auto found = rung_for_budget(nest, cache.budget);
    if (!found) return in_context("--budget", std::move(found).error());
    return found;
  }
  Tolerance tolerance;
  MKV_TRY(read_bound("--max-kl", cache.max_kl, tolerance.kl));
  MKV_TRY(read_bound("--max-ppl-increase", cache.max_ppl_increase, tolerance.perplexity_increase));
  auto found = rung_for_tolerance(nest, tolerance);
  if (!found) return in_context(cache.nest, std::move(found).error());
  return found;
}

void declare_sampling(CLI::App& app, SamplingOptions& options) {
  app.add_option("--temperature", options.temperature, "0 always takes the likeliest token")
      ->capture_default_str();
  add_count(app, "--top-k", options.top_k, "Only the k likeliest tokens; 0 is all");
  app.add_option("--top-p", options.top_p, "The fewest tokens that hold this probability")
      ->capture_default_str();
  app.add_option("--min-p", options.min_p, "At least this fraction of the likeliest's probability")
      ->capture_default_str();
  app.add_option("--repeat-penalty", options.repetition_penalty, "On recent tokens; 1 is none")
      ->capture_default_str();
  add_count(app, "--seed", options.seed, "The same seed gives the same text");
}

void declare_json(CLI::App& app, bool& json) {
  app.add_flag("--json", json, "Results as one JSON object");
}

KvCache Engine::make_cache(size_t capacity) const {
  if (nest) return make_cache(capacity, ranks);
  return model.exact_cache(capacity, {.exact = exact, .arithmetic = Arithmetic::fast});
}

KvCache Engine::make_cache(size_t capacity, const Ranks& at) const {
  const KvOptions options{.exact = exact, .arithmetic = Arithmetic::fast, .beam = beam};
  return KvCache(*nest, at, model.config().layer_types, capacity, options);
}

Result<size_t> Engine::context(size_t asked) const {
  const size_t most = model.config().max_position_embeddings;
  if (asked == 0) return std::min(most, kDefaultContext);
  if (asked > most) {
    return make_error(
        ErrorCode::invalid_argument,
        "--context " + std::to_string(asked) + ": the model's limit is " + std::to_string(most));
  }
  return asked;
}

Result<Nest> open_nest(const std::string& folder, const Model& model) {
  MKV_ASSIGN(Nest nest, Nest::load(folder));
  const KvShape have = nest.config().shape, want = model.config().kv_shape();
  if (have != want) {
    return make_error(ErrorCode::unsupported, folder + ": made for " + shape_text(have) +
                                                  ", the model has " + shape_text(want));
  }
  const std::string hash = model.weights_hash();
  if (nest.config().model_hash != hash) {
    return make_error(ErrorCode::unsupported, folder + ": made for the model with hash " +
                                                  nest.config().model_hash + ", this one has " +
                                                  hash);
  }
  return nest;
}

Result<std::unique_ptr<Engine>> open_engine(const ModelOptions& model, const CacheOptions& cache) {
  if (auto set = set_instruction_set(model.isa); !set) {
    return in_context("--isa", std::move(set).error());
  }
  MKV_ASSIGN(Model loaded, Model::load(model.model));
  std::optional<Nest> nest;
  size_t rung = 0;
  Ranks ranks;
  if (!cache.nest.empty()) {
    MKV_ASSIGN(nest, open_nest(cache.nest, loaded));
    if (cache.recent) {
      if (auto set = nest->set_recent(*cache.recent); !set) {
        return in_context("--recent", std::move(set).error());
      }
    }
    if (cache.beam > 1 && nest->config().slab_kind == SlabKind::column) {
      return make_error(ErrorCode::invalid_argument,
                        "--beam " + std::to_string(cache.beam) + ": " + cache.nest +
                            " holds columns, which are rounded and not coded");
    }
    MKV_ASSIGN(rung, chosen_rung(*nest, cache));
    ranks = nest->ranks_at(rung);
    nest->compact();
  }
  return std::make_unique<Engine>(Engine{std::move(loaded), std::move(nest), rung, std::move(ranks),
                                         std::make_unique<Workers>(model.threads), cache.exact,
                                         cache.beam});
}

}  // namespace mkv::cli
