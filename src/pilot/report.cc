#include "pilot/report.h"

#include <algorithm>
#include <charconv>
#include <string_view>
#include <utility>

#include "pilot/page_files.h"

namespace mkv {
namespace {

constexpr int kFormatVersion = 1;

// A word as a shell takes it: in quotes where it needs them.
std::string shell_word(const std::string& text) {
  const auto plain = [](char c) {
    return std::string_view("-_./=:,%+@").find(c) != std::string_view::npos ||
           (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
  };
  if (!text.empty() && std::ranges::all_of(text, plain)) return text;
  std::string quoted = "'";
  for (const char c : text) c == '\'' ? quoted += "'\\''" : quoted += c;
  return quoted + "'";
}

// Of each layer: tokens that its sliding window holds; null: the whole context.
Json layer_windows(const ModelConfig& config) {
  Json windows = Json::array();
  for (size_t l = 0; l < config.kv_shape().layers; ++l) {
    const size_t window = config.layer_types.of(l).window;
    windows.push_back(window == kWholeContext ? Json() : Json(window));
  }
  return windows;
}

Json model_json(const Model& model, const PilotContext& context) {
  const ModelConfig& config = model.config();
  const KvShape shape = config.kv_shape();
  return {{"name", config.name},
          {"path", context.model_path},
          {"parameters", model.parameters()},
          {"weight_bytes", model.weight_bytes()},
          {"num_layers", shape.layers},
          {"num_kv_heads", shape.kv_heads},
          {"head_dim", shape.head_dim},
          {"max_position_embeddings", config.max_position_embeddings},
          {"layer_windows", layer_windows(config)},
          {"exact_bytes_per_token", 2 * shape.values_per_token()}};
}

// full_slabs: of the spaces in the order of `ranks`: layer-major, then group, key before value.
Json nest_json(const Nest& nest, const PilotContext& context) {
  const NestConfig& config = nest.config();
  return {{"path", context.nest_path},
          {"flag", "--nest " + shell_word(context.nest_path)},
          {"slab_kind", config.slab_kind == SlabKind::column ? "column" : "code"},
          {"slab_bits", nest.slab_bits()},
          {"groups", nest.groups()},
          {"group_size", config.group_size},
          {"dims", nest.dims()},
          {"sinks", config.sinks},
          {"recent", config.recent},
          {"later_sinks", config.later_sinks},
          {"rungs", nest.ladder().rungs()},
          {"full_slabs", nest.full_ranks()},
          {"origin", config.origin}};
}

Json quality_json(const Nest& nest, const QualityPoint& point) {
  const KlReport& report = point.quality;
  Json json{{"budget", point.budget},
            {"context", point.context},
            {"kv_bytes_per_token", report.kv.kv_bytes_per_token},
            {"bits_per_value", report.kv.bits_per_value},
            {"coded_bits_per_value", report.kv.coded_bits_per_value},
            {"coded_bytes_per_token", point.coded_bytes_per_token},
            {"kl", report.kl},
            {"kl_stderr", report.kl_stderr},
            {"perplexity", report.perplexity},
            {"perplexity_increase", point.perplexity_increase(0)},
            {"log_ratio_stderr", report.log_ratio_stderr},
            {"top1_agreement", report.top1_agreement},
            {"seconds", report.seconds}};
  if (point.rung) {
    json["rung"] = *point.rung;
    json["ranks"] = nest.ranks_at(*point.rung);
  }
  return json;
}

Json samples_json(const Samples& samples) {
  return {{"median", samples.median()}, {"min", samples.min()}, {"max", samples.max()}};
}

Json speed_json(const SpeedSeries& series) {
  Json depths = Json::array();
  for (const DepthSpeed& speed : series.depths) {
    depths.push_back({{"depth", speed.depth},
                      {"decode_tokens_per_s", samples_json(speed.decode)},
                      {"prefill_tokens_per_s", samples_json(speed.prefill)},
                      {"kv_bytes", speed.kv_bytes},
                      {"output_hash", speed.output_hash}});
  }
  return {{"budget", series.budget}, {"depths", std::move(depths)}};
}

Json answers_json(const AnswerSet& set) {
  Json answers = Json::array();
  for (const Answer& answer : set.answers) {
    answers.push_back({{"budget", answer.budget},
                       {"agreed", answer.agreed},
                       {"differs", answer.differs},
                       {"agreed_tokens", answer.agreed_tokens},
                       {"tokens", answer.tokens}});
  }
  return {{"question", set.question}, {"excerpt", set.excerpt}, {"answers", std::move(answers)}};
}

// null when no size keeps the tolerance.
Json choice_json(const PilotResult& result, std::optional<size_t> choice,
                 const std::string& nest_path) {
  if (!choice) return nullptr;
  const QualityPoint& point = result.quality[*choice];
  return {{"budget", point.budget},
          {"rung", *point.rung},
          {"flags", "--nest " + shell_word(nest_path) + " --budget " + point.budget},
          {"perplexity_increase", point.perplexity_increase(0)},
          {"kv_bytes_per_token", point.quality.kv.kv_bytes_per_token}};
}

template <class Items, class Make>
Json list_json(const Items& items, const Make& make) {
  Json list = Json::array();
  for (const auto& item : items) list.push_back(make(item));
  return list;
}

}  // namespace

double recorded_seconds(const Nest& nest) {
  constexpr std::string_view kEnding = "_seconds";
  double total = -1;
  for (const auto& [key, value] : nest.config().origin) {
    double seconds = 0;
    const char* end = value.data() + value.size();
    const bool number = std::from_chars(value.data(), end, seconds).ptr == end && !value.empty();
    if (key.ends_with(kEnding) && number && seconds >= 0) total = std::max(total, 0.0) + seconds;
  }
  return total;
}

Json pilot_json(const Model& model, const Nest& nest, const PilotResult& result,
                const PilotOptions& options, const PilotContext& context) {
  Json json{
      {"format", "matryoshka-pilot"},
      {"format_version", kFormatVersion},
      {"command", context.command},
      {"created", context.created},
      {"threads", context.threads},
      {"model", model_json(model, context)},
      {"nest", nest_json(nest, context)},
      {"text",
       {{"files", context.texts},
        {"context", result.windows.context},
        {"windows", result.windows.count()},
        {"scored_tokens", result.windows.count() * result.windows.scored()}}},
      {"tolerance", options.quality.tolerance},
      {"confident_errors", kConfidentErrors},
      {"quality", list_json(result.quality, [&](const auto& p) { return quality_json(nest, p); })},
      {"recommended", choice_json(result, result.recommended, context.nest_path)},
      {"confident", choice_json(result, result.confident, context.nest_path)},
      {"speed",
       {{"repetitions", options.speed.repetitions},
        {"prefill", options.speed.lengths.prefill},
        {"decode", options.speed.lengths.decode},
        {"series", list_json(result.speed, speed_json)}}},
      {"answers", list_json(result.answers, answers_json)},
      {"seconds",
       {{"quality", result.quality_seconds},
        {"speed", result.speed_seconds},
        {"answers", result.answers_seconds}}}};
  const bool known = context.preparation_seconds >= 0;
  json["preparation"] = {{"seconds", known ? Json(context.preparation_seconds) : Json()},
                         {"source", context.preparation_source}};
  return json;
}

Result<std::string> pilot_page(const Json& report) {
  using namespace page_files;
  const std::string_view scripts[] = {model_js, page_js};
  return fill_page("KV cache pilot", page_html, scripts, report);
}

}  // namespace mkv
