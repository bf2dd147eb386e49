#include "cli/generation.h"

namespace mkv::cli {
namespace {

double rate(size_t tokens, double seconds) {
  return seconds > 0 ? static_cast<double>(tokens) / seconds : 0;
}

double prompt_rate(const Timings& timings) {
  return rate(timings.prompt_tokens - timings.reused_tokens, timings.prompt_seconds);
}

}  // namespace

TokenSink print_as_it_comes() {
  return [](const TokenEvent& event) {
    std::fwrite(event.text.data(), 1, event.text.size(), stdout);
    return std::fflush(stdout) == 0;
  };
}

OrderedJson completion_json(const Completion& completion, const KvCache& cache) {
  const Timings& timings = completion.timings;
  return OrderedJson{
      {"text", completion.text},
      {"tokens", completion.tokens},
      {"finish_reason", name(completion.finish_reason)},
      {"prompt_tokens", timings.prompt_tokens},
      {"reused_tokens", timings.reused_tokens},
      {"completion_tokens", timings.generated_tokens},
      {"prefill_tokens_per_s", prompt_rate(timings)},
      {"decode_tokens_per_s", rate(timings.generated_tokens, timings.generated_seconds)},
      {"kv_tokens", cache.length()},
      {"kv_bytes", cache.bytes()},
  };
}

std::string timing_line(const Completion& completion, const KvCache& cache) {
  const Timings& timings = completion.timings;
  std::string line =
      format("%zu tokens of prompt at %.1f/s", timings.prompt_tokens, prompt_rate(timings));
  if (timings.reused_tokens > 0) line += format(" (%zu reused)", timings.reused_tokens);
  line += format(", %zu tokens at %.1f/s, ", timings.generated_tokens,
                 rate(timings.generated_tokens, timings.generated_seconds));
  line += name(completion.finish_reason);
  return line + ", KV cache " + byte_text(static_cast<double>(cache.bytes()));
}

}  // namespace mkv::cli
