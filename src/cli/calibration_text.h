// The text that fit and search look at: files, or what the model itself writes.
#pragma once

#include <CLI/CLI.hpp>
#include <map>
#include <string>
#include <vector>

#include "base/progress.h"
#include "cli/options.h"
#include "fit/calibration.h"

namespace mkv::cli {

struct Calibration {
  Sequences sequences;  // windows of equal length
  std::string source;   // for the model card: file names, or how it was sampled
};

class CalibrationText {
 public:
  explicit CalibrationText(size_t tokens) { options_.tokens = tokens; }
  // --text, --tokens and so on; with a prefix, e.g. "fit-", --fit-text and so on.
  void declare(CLI::App& app, const std::string& prefix = "");
  size_t seed() const { return options_.seed; }
  Result<Calibration> read(const Engine& engine, const ProgressSink& progress) const;

 private:
  std::vector<std::string> files_;
  CalibrationOptions options_;
};

// How a nest was made, for Nest::origin: the model, the text and its tokens.
std::map<std::string, std::string> origin_of(const Calibration& calibration,
                                             const ModelConfig& model);
// What a part of making it took, in whole seconds; `key` ends in "_seconds".
void record_seconds(Nest& nest, const std::string& key, double seconds);

// Before minutes of work: the folder that will hold `path` is there, and `path` may be replaced.
Result<void> check_output_folder(const std::string& path);

}  // namespace mkv::cli
