// An autopilot's flight as JSON, and as a page with its trace.
#pragma once

#include <string>
#include <vector>

#include "pilot/stream.h"
#include "store/json.h"

namespace mkv {

struct StreamContext {
  std::string command, created, model, nest;  // names; created: YYYY-MM-DD
};

// format_version 1 (docs/formats.md "The autopilot's trace").
Json stream_json(const StreamReport& report, const std::vector<StreamPart>& parts,
                 const AutopilotOptions& options, const StreamContext& context);

// One HTML document that needs nothing else. Errors: text that is not UTF-8.
Result<std::string> stream_page(const Json& report);

}  // namespace mkv
