#include "cli/ladder_measurement.h"

#include <algorithm>

#include "cli/text_files.h"
#include "eval/windows.h"
#include "fit/measure.h"

namespace mkv::cli {

void LadderMeasurement::declare(CLI::App& app) {
  CLI::Option* text =
      app.add_option("--measure", text_,
                     "Text on which KL and perplexity along the ladder are "
                     "measured and kept in the nest; other than what it is made of");
  add_count(app, "--measure-windows", windows_, "Windows of 1024 tokens of it")
      ->check(CLI::PositiveNumber)
      ->needs(text);
  add_count(app, "--measure-rungs", rungs_, "Rungs to measure at")
      ->check(CLI::PositiveNumber)
      ->needs(text);
}

Result<void> LadderMeasurement::run(const Engine& engine, Nest& nest,
                                    const ProgressSink& progress) const {
  if (text_.empty()) return {};
  MKV_ASSIGN(const std::vector<std::string> documents, read_documents(text_));
  const size_t context = std::min<size_t>(1024, engine.model.config().max_position_embeddings);
  auto windows =
      make_windows(engine.model.tokenizer(), documents, {.context = context, .limit = windows_});
  if (!windows) return in_context(text_, std::move(windows).error());
  MeasureOptions options;
  options.rungs = rungs_;
  options.eval.progress = progress;
  return measure_ladder(engine.model, nest, *windows, options, *engine.workers);
}

}  // namespace mkv::cli
