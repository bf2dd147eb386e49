#include "cli/chat_autopilot.h"

#include <utility>

#include "cli/output.h"
#include "eval/kl.h"

namespace mkv::cli {

Result<ChatAutopilot> ChatAutopilot::create(const Engine& engine, const AutopilotOptions& options) {
  if (!engine.nest) return make_error(ErrorCode::invalid_argument, "--autopilot: needs --nest");
  MKV_ASSIGN(std::vector<AutopilotLevel> levels, autopilot_levels(*engine.nest));
  MKV_ASSIGN(Autopilot autopilot, Autopilot::create(std::move(levels), options));
  return ChatAutopilot(engine, std::move(autopilot));
}

KvCache ChatAutopilot::make_cache(size_t capacity) const {
  return engine_->make_cache(capacity, ranks());
}

Result<std::string> ChatAutopilot::answered(Session& session, size_t answer) {
  const std::span<const TokenId> text = session.tokens();
  // A conversation that is all exact yet says nothing about codes.
  if (session.cache().coded() == 0 || answer == 0 || answer >= text.size()) return std::string();
  if (!autopilot_.wants_shadow()) return std::string();
  const AutopilotLevel before = level();
  MKV_ASSIGN(const CacheFactory caches,
             CacheFactory::coded(engine_->model, *engine_->nest, ranks(), {.beam = engine_->beam}));
  MKV_ASSIGN(const double kl,
             text_kl(engine_->model, caches, text, text.size() - answer, {}, *engine_->workers));
  const AutopilotDecision decision = autopilot_.observe(kl);
  std::string line = format("autopilot: KL %.4f, at most %.4f expected, %.2f bits a value", kl,
                            decision.kl_upper, before.bits_per_value);
  if (decision.move == AutopilotMove::fewer_bits) MKV_TRY(session.shrink(ranks()));
  // Codes that were not kept cannot be had back: the next turn reads the conversation again.
  if (decision.move == AutopilotMove::more_bits) {
    session.restart(make_cache(session.cache().capacity()));
  }
  if (decision.move != AutopilotMove::stay)
    line += format(", %.2f from now on", level().bits_per_value);
  if (decision.drift) {
    line += format("; the text has changed and costs %.1f times as much as in the beginning",
                   decision.drift_factor);
    if (decision.refit) line += ": a nest of such text is recommended (matryoshka fit --text)";
  }
  return line;
}

}  // namespace mkv::cli
