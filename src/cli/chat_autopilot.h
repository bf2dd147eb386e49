// The autopilot of a conversation: some answers are computed again with the exact cache, and the
// next turn's size follows from how far they were apart.
#pragma once

#include <string>
#include <vector>

#include "cli/options.h"
#include "engine/session.h"
#include "pilot/autopilot.h"

namespace mkv::cli {

class ChatAutopilot {
 public:
  // Borrows the engine. Errors: no nest, one without measurements, options out of range.
  static Result<ChatAutopilot> create(const Engine& engine, const AutopilotOptions& options);

  // The cache to begin with.
  KvCache make_cache(size_t capacity) const;
  // After an answer of so many tokens: the latest of the session. Moves the session's cache to the
  // size of the next turn. Returns what happened in a line of text; empty: nothing.
  Result<std::string> answered(Session& session, size_t answer);

  const AutopilotLevel& level() const { return autopilot_.level(); }

 private:
  ChatAutopilot(const Engine& engine, Autopilot autopilot)
      : engine_(&engine), autopilot_(std::move(autopilot)) {}
  Ranks ranks() const { return engine_->nest->ranks_at(level().rung); }

  const Engine* engine_;
  Autopilot autopilot_;
};

}  // namespace mkv::cli
