// train --sft: fine-tuning by examples instead of training on text.
#pragma once

#include <CLI/CLI.hpp>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "cli/options.h"
#include "train/sft.h"
#include "train/sft_examples.h"

namespace mkv::cli {

class TrainSft {
 public:
  void declare(CLI::App& app);
  bool asked() const { return !files_.empty(); }
  // Options of text or of rotations alone that were given all the same are errors.
  Result<void> check(const CLI::App& app) const;
  // `run`: what both kinds of training share; where it was not given, fine-tuning has defaults of
  // its own. Writes the model to --merged and the nest to `output`.
  Result<void> run(const CLI::App& app, const TrainOptions& run, const ModelOptions& model,
                   const std::string& nest, const std::string& output, bool json);

 private:
  Result<std::vector<ScoredTokens>> hold_out(std::vector<ScoredTokens>& examples) const;
  Result<void> write(const Engine& engine, const std::string& source, const SftReport& report,
                     Nest* nest, const std::string& output) const;
  void print(const SftReport& report, bool json) const;

  SftOptions options_;
  std::vector<std::string> files_;
  std::string merged_;
  std::optional<DType> type_;
  size_t longest_ = 512, held_out_ = 64;
};

}  // namespace mkv::cli
