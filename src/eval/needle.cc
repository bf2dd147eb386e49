#include "eval/needle.h"

#include <algorithm>
#include <cstdio>

#include "base/stopwatch.h"
#include "eval/greedy.h"

namespace mkv {
namespace {

NeedleCell& cell_of(std::vector<NeedleCell>& cells, const NeedlePrompt& prompt) {
  for (NeedleCell& cell : cells) {
    if (cell.length == prompt.length && cell.depth == prompt.depth) return cell;
  }
  return cells.emplace_back(NeedleCell{.length = prompt.length, .depth = prompt.depth});
}

}  // namespace

Result<NeedleReport> evaluate_needles(const Model& model, const CacheFactory& caches,
                                      std::span<const NeedlePrompt> prompts,
                                      const NeedleOptions& options, Workers& workers) {
  if (prompts.empty()) return make_error(ErrorCode::invalid_argument, "needle: no prompt");
  const Stopwatch watch;
  GreedyDecoder decoder(model, workers);
  NeedleReport out;
  size_t longest = 0, found = 0;
  for (size_t i = 0; i < prompts.size(); ++i) {
    const NeedlePrompt& prompt = prompts[i];
    KvCache cache =
        caches.make(prompt.tokens.size() + std::max(options.answer, prompt.key_tokens.size()));
    MKV_TRY(decoder.read(prompt.tokens, cache));
    if (prompt.tokens.size() > longest) out.kv = kv_figures(model, caches, cache);
    longest = std::max(longest, prompt.tokens.size());
    KvCache copy = cache.clone();
    MKV_ASSIGN(const double key_log_likelihood, decoder.log_likelihood(prompt.key_tokens, copy));
    MKV_ASSIGN(const std::vector<TokenId> answer, decoder.generate(options.answer, cache));
    NeedleCell& cell = cell_of(out.cells, prompt);
    const std::string text = model.tokenizer().decode_all(answer, false);
    const bool hit = text.find(prompt.key) != std::string::npos;
    ++cell.samples;
    cell.found += hit ? 1 : 0;
    found += hit ? 1 : 0;
    cell.key_log_likelihood += key_log_likelihood;
    out.key_log_likelihood += key_log_likelihood;
    char detail[40];
    std::snprintf(detail, sizeof detail, "%zu of %zu found", found, i + 1);
    report(options.progress, {"needles", i + 1, prompts.size(), detail});
  }
  for (NeedleCell& cell : out.cells) cell.key_log_likelihood /= static_cast<double>(cell.samples);
  out.found = static_cast<double>(found) / static_cast<double>(prompts.size());
  out.key_log_likelihood /= static_cast<double>(prompts.size());
  out.seconds = watch.seconds();
  return out;
}

}  // namespace mkv
