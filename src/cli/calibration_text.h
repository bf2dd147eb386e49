// The text that fit and search look at: files, or what the model itself writes.
#pragma once

#include <CLI/CLI.hpp>
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
  void declare(CLI::App& app);
  Result<Calibration> read(const Engine& engine, const ProgressSink& progress) const;

 private:
  std::vector<std::string> files_;
  CalibrationOptions options_;
};

// Before minutes of work: the folder that will hold `path` is there, and `path` may be replaced.
Result<void> check_output_folder(const std::string& path);

}  // namespace mkv::cli
