// The pilot: what a nest saves and costs for one model and text, and which size of it to use. It
// measures; pilot/report.h says it as JSON and as a page.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "pilot/answers.h"
#include "pilot/quality.h"
#include "pilot/speed.h"

namespace mkv {

struct PilotOptions {
  WindowOptions windows{.context = 1024, .limit = 8};  // the context is the model's if less
  QualityOptions quality;
  SpeedOptions speed;
  AnswerOptions answers;
  ProgressSink progress;  // told by all parts; may be empty
};

struct PilotResult {
  Windows windows;
  std::vector<QualityPoint> quality;
  std::optional<size_t> recommended;  // of quality: the smallest size within the tolerance
  std::optional<size_t> confident;    // the same with a confidence of 95 %
  std::vector<SpeedSeries> speed;
  std::vector<AnswerSet> answers;
  double quality_seconds = 0, speed_seconds = 0, answers_seconds = 0;
};

// Speed and answers are those of the exact cache, of the recommended size (or of the largest, when
// none keeps the tolerance) and of one of about half of that; answers of q4_0 too.
// Errors: no text for one window, and what the parts refuse.
Result<PilotResult> run_pilot(const Model& model, const Nest& nest,
                              std::span<const std::string> documents, const PilotOptions& options,
                              Workers& workers);

}  // namespace mkv
