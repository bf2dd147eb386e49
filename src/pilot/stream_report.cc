#include "pilot/stream_report.h"

#include <utility>

#include "pilot/page_files.h"

namespace mkv {
namespace {

constexpr int kFormatVersion = 1;

const char* name(AutopilotMove move) {
  switch (move) {
    case AutopilotMove::stay:
      return "stay";
    case AutopilotMove::more_bits:
      return "more_bits";
    case AutopilotMove::fewer_bits:
      return "fewer_bits";
  }
  return "unknown";
}

Json request_json(const StreamRequest& request) {
  Json json{{"part", request.part},
            {"rung", request.level.rung},
            {"bits_per_value", request.level.bits_per_value},
            {"kl", request.kl},
            {"shadowed", request.shadowed}};
  if (!request.shadowed) return json;
  const AutopilotDecision& decision = request.decision;
  json["move"] = name(decision.move);
  json["kl_estimate"] = decision.kl;
  json["kl_upper"] = decision.kl_upper;
  json["alert"] = decision.alert;
  if (decision.drift) {
    json["drift_factor"] = decision.drift_factor;
    json["refit"] = decision.refit;
  }
  return json;
}

Json optional_json(const std::optional<size_t>& value) { return value ? Json(*value) : Json(); }

Json refit_json(const RefitRecord& refit) {
  Json json{{"asked", refit.asked},     {"made", optional_json(refit.made)},
            {"tokens", refit.tokens},   {"tried", optional_json(refit.tried)},
            {"seconds", refit.seconds}, {"decided", optional_json(refit.decided)},
            {"kept", refit.kept}};
  if (refit.decided) {
    json["kl_before"] = refit.kl_before;
    json["kl_after"] = refit.kl_after;
  }
  if (!refit.failed.empty()) json["failed"] = refit.failed;
  return json;
}

}  // namespace

Json stream_json(const StreamReport& report, const std::vector<StreamPart>& parts,
                 const AutopilotOptions& options, const StreamContext& context) {
  Json json{{"format", "matryoshka-autopilot"},
            {"format_version", kFormatVersion},
            {"command", context.command},
            {"created", context.created},
            {"model", context.model},
            {"nest", context.nest},
            {"tolerance", options.tolerance},
            {"shadow_share", options.shadow_share},
            {"margin", options.margin},
            {"mean_kl", report.kl},
            {"mean_bits_per_value", report.bits_per_value},
            {"seconds", report.seconds},
            {"levels", Json::array()},
            {"parts", Json::array()},
            {"refits", Json::array()},
            {"requests", Json::array()}};
  for (const AutopilotLevel& level : report.levels) {
    json["levels"].push_back(
        {{"rung", level.rung}, {"bits_per_value", level.bits_per_value}, {"kl", level.kl}});
  }
  for (size_t p = 0; p < parts.size(); ++p) {
    double kl = 0, bits = 0;
    size_t count = 0;
    for (const StreamRequest& request : report.requests) {
      if (request.part != p) continue;
      ++count;
      kl += request.kl;
      bits += request.level.bits_per_value;
    }
    const auto requests = static_cast<double>(count == 0 ? 1 : count);
    json["parts"].push_back({{"name", parts[p].name},
                             {"context", parts[p].windows.context},
                             {"requests", count},
                             {"mean_kl", kl / requests},
                             {"mean_bits_per_value", bits / requests}});
  }
  for (const RefitRecord& refit : report.refits) json["refits"].push_back(refit_json(refit));
  for (const StreamRequest& request : report.requests) {
    json["requests"].push_back(request_json(request));
  }
  return json;
}

Result<std::string> stream_page(const Json& report) {
  using namespace page_files;
  const std::string_view scripts[] = {autopilot_js};
  return fill_page("Autopilot", autopilot_html, scripts, report);
}

}  // namespace mkv
