// What fit and search share: figures along the ladder, kept in the nest.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "base/progress.h"
#include "cli/options.h"

namespace mkv::cli {

class LadderMeasurement {
 public:
  void declare(CLI::App& app);
  // Does nothing unless a text was given.
  Result<void> run(const Engine& engine, Nest& nest, const ProgressSink& progress) const;

 private:
  std::string text_;
  size_t windows_ = 4, rungs_ = 12;
};

}  // namespace mkv::cli
