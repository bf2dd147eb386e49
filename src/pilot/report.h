// What the pilot found, as JSON and as a page that needs nothing else.
#pragma once

#include <string>
#include <vector>

#include "pilot/pilot.h"
#include "store/json.h"

namespace mkv {

// What the measurement does not know; empty and negative: unknown.
struct PilotContext {
  std::string command;  // that made the report
  std::string created;  // date, YYYY-MM-DD
  std::string model_path, nest_path;
  std::vector<std::string> texts;  // names of the files
  size_t threads = 0;
  double preparation_seconds = -1;  // of fitting, training and searching the nest
  std::string preparation_source;   // how that is known
};

// Seconds that making the nest took, by the keys of its origin that end in "_seconds"; negative
// when there is none.
double recorded_seconds(const Nest& nest);

// format_version 1 (docs/formats.md "Pilot report").
Json pilot_json(const Model& model, const Nest& nest, const PilotResult& result,
                const PilotOptions& options, const PilotContext& context);

// One HTML document: src/pilot/page/ with the report as its data. Errors: text in the report that
// is not UTF-8.
Result<std::string> pilot_page(const Json& report);

}  // namespace mkv
