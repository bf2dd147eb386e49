#include "fit/search_state.h"

#include <cmath>

#include "store/atomic_file.h"
#include "store/hash.h"
#include "store/json.h"

namespace mkv {
namespace {

constexpr size_t kMostBytes = size_t{1} << 28;
constexpr size_t kFormat = 1;

template <class T>
void hash_values(Sha256& hash, std::span<const T> values) {
  hash.update(std::as_bytes(values));
}

void hash_size(Sha256& hash, size_t value) {
  const auto wide = static_cast<uint64_t>(value);
  hash_values(hash, std::span(&wide, 1));
}

std::string hash_of(const Nest& nest) {
  Sha256 hash;
  const NestConfig& config = nest.config();
  for (const size_t value :
       {config.group_size, static_cast<size_t>(config.slab_kind),
        static_cast<size_t>(config.key_mean), config.sinks, config.recent, config.later_sinks}) {
    hash_size(hash, value);
  }
  for (size_t space = 0; space < nest.spaces(); ++space) {
    const Basis& basis = nest.basis(nest.unflat(space));
    hash_values(hash, basis.encode.span());
    hash_values(hash, basis.decode.span());
    hash_values(hash, std::span<const float>(basis.mean));
    hash_size(hash, basis.slabs.size());
    for (const CodeSlab& slab : basis.slabs) {
      hash_size(hash, slab.first_column);
      for (const auto& column : slab.codebook.entry) {
        hash_values(hash, std::span<const float>(column));
      }
      hash_values(hash, std::span<const float>(slab.scale));
    }
  }
  return hash.hex();
}

std::string hash_of(std::span<const std::vector<TokenId>> sequences) {
  Sha256 hash;
  for (const std::vector<TokenId>& sequence : sequences) {
    hash_size(hash, sequence.size());
    hash_values(hash, std::span<const TokenId>(sequence));
  }
  return hash.hex();
}

Result<std::vector<double>> get_doubles(const Json& object, std::string_view key) {
  MKV_ASSIGN(const Json* array, get_array(object, key));
  std::vector<double> out;
  for (const Json& value : *array) {
    if (!value.is_number() || !std::isfinite(value.get<double>())) {
      return make_error(ErrorCode::corrupt, std::string(key) + ": expected finite numbers");
    }
    out.push_back(value.get<double>());
  }
  return out;
}

Result<void> check_identity(const Json& file, const SearchIdentity& identity) {
  MKV_ASSIGN(const size_t format, get_size(file, "format"));
  if (format != kFormat) {
    return make_error(
        ErrorCode::unsupported,
        "format " + std::to_string(format) + ", this program reads " + std::to_string(kFormat));
  }
  MKV_ASSIGN(const Json* found, get_object(file, "search"));
  for (const auto& [name, value] : identity) {
    MKV_ASSIGN(const std::string there, get_string(*found, name));
    if (there != value) {
      return make_error(ErrorCode::invalid_argument, "a checkpoint of another search: " + name +
                                                         " is " + there + " there, " + value +
                                                         " here");
    }
  }
  return {};
}

// The numbers of the state must fit each other and the nest, whatever the file says.
Result<void> check_state(const SearchState& state, const Nest& nest, size_t step) {
  const auto corrupt = [](const std::string& what) { return make_error(ErrorCode::corrupt, what); };
  if (state.costs.size() != nest.spaces() || state.measured_in.size() != nest.spaces()) {
    return corrupt("costs for " + std::to_string(state.costs.size()) + " and rounds for " +
                   std::to_string(state.measured_in.size()) + " of " +
                   std::to_string(nest.spaces()) + " latent spaces");
  }
  if (state.cuts.size() != state.values.size()) {
    return corrupt(std::to_string(state.cuts.size()) + " cuts but " +
                   std::to_string(state.values.size()) + " values");
  }
  std::vector<size_t> cut(nest.spaces(), 0);
  for (const uint32_t space : state.cuts) {
    if (space >= nest.spaces() || (cut[space] += step) > nest.slabs_in(space)) {
      return corrupt("cuts that latent space " + std::to_string(space) + " does not have");
    }
  }
  return {};
}

Result<SearchState> parse_state(const Json& file, const Nest& nest, size_t step) {
  SearchState state;
  MKV_ASSIGN(state.costs, get_doubles(file, "costs"));
  MKV_ASSIGN(state.measured_in, get_sizes(file, "measured_in"));
  MKV_ASSIGN(state.round, get_size(file, "round"));
  MKV_ASSIGN(const std::vector<size_t> cuts, get_sizes(file, "cuts"));
  for (const size_t space : cuts) {
    if (space >= nest.spaces()) {
      return make_error(ErrorCode::corrupt, "cut of latent space " + std::to_string(space) +
                                                " of " + std::to_string(nest.spaces()));
    }
    state.cuts.push_back(static_cast<uint32_t>(space));
  }
  MKV_ASSIGN(state.values, get_doubles(file, "values"));
  MKV_ASSIGN(state.evaluations, get_size(file, "evaluations"));
  MKV_ASSIGN(state.seconds, get_double(file, "seconds"));
  MKV_TRY(check_state(state, nest, step));
  return state;
}

}  // namespace

SearchIdentity search_identity(const Model& model, const Nest& nest,
                               std::span<const std::vector<TokenId>> sequences,
                               const SearchOptions& options) {
  return {{"model", model.weights_hash()},
          {"nest", hash_of(nest)},
          {"calibration", hash_of(sequences)},
          {"step", std::to_string(options.step)},
          {"cut_share", std::to_string(options.cut_share)},
          {"objective", options.objective == SearchObjective::kl ? "kl" : "hidden_error"},
          {"exhaustive", options.exhaustive ? "yes" : "no"},
          {"cuts_per_round", std::to_string(options.cuts_per_round)},
          {"floor", std::to_string(options.floor)}};
}

Result<void> write_checkpoint(const std::filesystem::path& path, const SearchIdentity& identity,
                              const SearchState& state) {
  const Json file = {{"format", kFormat},       {"search", identity},
                     {"cuts", state.cuts},      {"values", state.values},
                     {"costs", state.costs},    {"measured_in", state.measured_in},
                     {"round", state.round},    {"evaluations", state.evaluations},
                     {"seconds", state.seconds}};
  MKV_ASSIGN(const std::string text, dump_json(file));
  return write_file_atomically(path, std::as_bytes(std::span(text)));
}

Result<std::optional<SearchState>> read_checkpoint(const std::filesystem::path& path,
                                                   const SearchIdentity& identity,
                                                   const Nest& nest) {
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) return std::optional<SearchState>();
  MKV_ASSIGN(const Json file, read_json_file(path, kMostBytes));
  const Result<void> same = check_identity(file, identity);
  if (!same) return in_context(path.string(), same.error());
  Result<SearchState> state = parse_state(file, nest, std::stoul(identity.at("step")));
  if (!state) return in_context(path.string(), std::move(state).error());
  return std::optional(std::move(state).value());
}

}  // namespace mkv
