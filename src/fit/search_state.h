// What a ladder search knows between two measurements, and its checkpoint file. Internal to fit/.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "fit/search.h"

namespace mkv {

struct SearchState {
  // By space: what its next cut adds to the objective for each step that it takes, as last
  // measured, and in which round that was; round 0 = never (rounds count from 1).
  std::vector<double> costs;
  std::vector<size_t> measured_in;
  size_t round = 1;
  std::vector<uint32_t> cuts;
  std::vector<double> values;  // the objective after each cut
  size_t evaluations = 0;
  double seconds = 0;
};

// What must be equal for a checkpoint to be continued: options, model, nest and calibration tokens,
// by name so that an error can say what differs.
using SearchIdentity = std::map<std::string, std::string>;
SearchIdentity search_identity(const Model& model, const Nest& nest,
                               std::span<const std::vector<TokenId>> sequences,
                               const SearchOptions& options);

Result<void> write_checkpoint(const std::filesystem::path& path, const SearchIdentity& identity,
                              const SearchState& state);
// Nothing when there is no such file. Errors: another search's, or not a whole checkpoint.
Result<std::optional<SearchState>> read_checkpoint(const std::filesystem::path& path,
                                                   const SearchIdentity& identity,
                                                   const Nest& nest);

}  // namespace mkv
