// An autopilot over a stream of requests, with the model's real divergences: what it saw, what it
// did, and what it did not see.
#pragma once

#include <string>
#include <vector>

#include "eval/evaluation.h"
#include "pilot/autopilot.h"
#include "pilot/refit.h"

namespace mkv {

// Requests of one kind of text: windows, whose second halves are what is served.
struct StreamPart {
  std::string name;
  Windows windows;
};

struct StreamOptions {
  EvalOptions eval;
  RefitOptions refit;  // without RefitOptions::make drift is only reported
};

struct StreamRequest {
  size_t part = 0;  // index
  AutopilotLevel level;
  double kl = 0;               // mean of its served tokens; measured whether shadowed or not
  bool shadowed = false;       // the autopilot saw it
  AutopilotDecision decision;  // if so
};

struct StreamReport {
  std::vector<AutopilotLevel> levels;  // of the nest that it began with
  std::vector<StreamRequest> requests;
  std::vector<RefitRecord> refits;
  double kl = 0;              // mean over all requests
  double bits_per_value = 0;  // the same
  double seconds = 0;
};

// The parts one after the other, request by request at the level that the autopilot keeps. While a
// refit is made on a thread of its own the old nest serves; then every request is served by the old
// one and measured with both; the new one serves from the next on if it was better, with an
// autopilot of its own. The report's seconds apart, it is the same in every run.
// Errors: no request, a level's rung that the nest does not have, what evaluate_kl refuses.
Result<StreamReport> run_stream(const Model& model, const Nest& nest,
                                const std::vector<StreamPart>& parts, Autopilot autopilot,
                                const StreamOptions& options, Workers& workers);

}  // namespace mkv
