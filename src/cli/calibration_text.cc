#include "cli/calibration_text.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <iterator>

#include "cli/inspect_nest.h"
#include "cli/output.h"
#include "cli/text_files.h"
#include "engine/sample_sequences.h"

namespace mkv::cli {
namespace {

constexpr size_t kSamplingBytes = size_t{1} << 30;  // of the caches of sequences sampled together

// Text of the model's own, in rounds whose caches fit kSamplingBytes.
Result<Sequences> sample_text(const Engine& engine, const CalibrationOptions& options,
                              const ProgressSink& progress) {
  const size_t sequence_bytes =
      2 * engine.model.config().kv_shape().values_per_token() * options.window;
  const size_t round = std::max<size_t>(1, kSamplingBytes / std::max<size_t>(1, sequence_bytes));
  const size_t wanted = (options.tokens + options.window - 1) / options.window;
  Sequences sequences;
  while (sequences.size() < wanted) {
    const SequenceOptions next{.sequences = std::min(round, wanted - sequences.size()),
                               .tokens_per_sequence = options.window,
                               .seed = options.seed + sequences.size()};
    MKV_ASSIGN(Sequences more, sample_sequences(engine.model, next, *engine.workers, progress));
    sequences.insert(sequences.end(), std::make_move_iterator(more.begin()),
                     std::make_move_iterator(more.end()));
  }
  return sequences;
}

// The tokens of all sequences, one after the other, cut into windows of one length.
Result<Sequences> equal_windows(const Sequences& sequences, size_t window) {
  std::vector<TokenId> tokens;
  for (const std::vector<TokenId>& sequence : sequences) {
    tokens.insert(tokens.end(), sequence.begin(), sequence.end());
  }
  if (tokens.size() < window) {
    return make_error(ErrorCode::invalid_argument, "the text has " + std::to_string(tokens.size()) +
                                                       " tokens, one window takes " +
                                                       std::to_string(window));
  }
  Sequences windows;
  for (size_t begin = 0; begin + window <= tokens.size(); begin += window) {
    const auto first = tokens.begin() + static_cast<std::ptrdiff_t>(begin);
    windows.emplace_back(first, first + static_cast<std::ptrdiff_t>(window));
  }
  return windows;
}

}  // namespace

void CalibrationText::declare(CLI::App& app, const std::string& prefix) {
  const std::string dashes = "--" + prefix;
  app.add_option(dashes + "text", files_,
                 "Text files, or .jsonl with a \"text\" in each line; without any the model "
                 "writes its own");
  add_count(app, dashes + "tokens", options_.tokens, "Tokens to look at")
      ->check(CLI::PositiveNumber);
  add_count(app, dashes + "window", options_.window, "Most tokens a sequence")
      ->check(CLI::PositiveNumber);
  add_count(app, dashes + "seed", options_.seed, "Of the choice of text");
}

Result<Calibration> CalibrationText::read(const Engine& engine,
                                          const ProgressSink& progress) const {
  CalibrationOptions options = options_;
  options.window = std::min(options.window, engine.model.config().max_position_embeddings);
  Calibration calibration;
  if (files_.empty()) {
    MKV_ASSIGN(calibration.sequences, sample_text(engine, options, progress));
    calibration.source = "sampled from the model, seed " + std::to_string(options.seed);
    return calibration;
  }
  report(progress, {.stage = "reading text", .done = 0, .total = 1, .detail = {}});
  MKV_ASSIGN(const std::vector<std::string> documents, read_documents(files_));
  for (const std::string& file : files_) {
    if (!calibration.source.empty()) calibration.source += ", ";
    calibration.source += std::filesystem::path(file).filename().string();
  }
  MKV_ASSIGN(const Sequences sequences,
             calibration_sequences(engine.model.tokenizer(), documents, options));
  MKV_ASSIGN(calibration.sequences, equal_windows(sequences, options.window));
  report(progress, {.stage = "reading text", .done = 1, .total = 1, .detail = {}});
  return calibration;
}

std::map<std::string, std::string> origin_of(const Calibration& calibration,
                                             const ModelConfig& model) {
  size_t tokens = 0;
  for (const std::vector<TokenId>& sequence : calibration.sequences) tokens += sequence.size();
  std::map<std::string, std::string> origin{{"calibration", calibration.source},
                                            {"tokens", std::to_string(tokens)}};
  if (!model.name.empty()) origin["model"] = model.name;
  return origin;
}

void record_seconds(Nest& nest, const std::string& key, double seconds) {
  nest.origin()[key] = format("%.0f", std::ceil(seconds));
}

Result<void> check_output_folder(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code error;
  const fs::path parent = fs::absolute(path, error).parent_path();
  if (!fs::is_directory(parent, error)) {
    return make_error(ErrorCode::not_found, parent.string() + ": no such folder");
  }
  if (!fs::exists(path, error)) return {};
  const bool empty = fs::is_directory(path, error) && fs::is_empty(path, error);
  if (!empty && !is_nest(path)) {
    return make_error(ErrorCode::io, path + ": is something else than a nest, and is not replaced");
  }
  return {};
}

}  // namespace mkv::cli
