// Session: one conversation with a model. Keeps the cache from one generate() to the next, so that
// a prompt that goes on from the tokens already seen pays only for the new ones.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/prefill.h"
#include "engine/sampler.h"
#include "model/model.h"

namespace mkv {

struct Request {
  std::vector<TokenId> prompt;
  size_t max_tokens = 256;
  SamplingOptions sampling;
  std::vector<std::string>
      stop;  // the answer ends in front of any of these; empty ones are ignored
  std::function<bool()> cancelled;  // asked between pieces of the prompt and between tokens
};

enum class FinishReason : uint8_t {
  stop,       // an end-of-generation token or a stop string
  length,     // max_tokens, or the context is full
  cancelled,  // by the sink or by Request::cancelled
};
std::string_view name(FinishReason reason);

struct Timings {
  size_t prompt_tokens = 0;  // all of the prompt
  size_t reused_tokens = 0;  // of these, found in the cache
  double prompt_seconds = 0;
  size_t generated_tokens = 0;
  double generated_seconds = 0;  // from the end of the prompt to the last token
};

struct Completion {
  std::string text;             // valid UTF-8, without the stop string
  std::vector<TokenId> tokens;  // all that were sampled, an end-of-generation token included
  FinishReason finish_reason = FinishReason::stop;
  Timings timings;
};

// One sampled token, and the text that it releases: whole characters, none that may belong to a
// stop string, so often empty.
struct TokenEvent {
  TokenId token = 0;
  std::string_view text;
};
// Called once a token; false stops with FinishReason::cancelled. An empty function is allowed.
using TokenSink = std::function<bool(const TokenEvent&)>;

// Belongs to one thread, as do its cache and `workers`; the model may be shared and outlives it.
class Session {
 public:
  Session(const Model& model, KvCache cache, Workers& workers);

  // Errors: no prompt, options out of range, a prompt that does not fit the context, a token that
  // is not the model's; all found before work starts. Should the model fail (damaged weights give
  // no numbers), the session is empty afterwards.
  Result<Completion> generate(const Request& request, const TokenSink& sink);

  void clear();
  // An empty cache instead: the next request reads its whole prompt into it.
  void restart(KvCache cache);
  const KvCache& cache() const { return cache_; }
  const std::vector<TokenId>& tokens() const { return history_; }  // in the cache
  Result<void> shrink(const Ranks& ranks) { return cache_.shrink(ranks); }

 private:
  Result<void> check(const Request& request) const;
  size_t reusable(const std::vector<TokenId>& prompt) const;
  Result<bool> read_prompt(const Request& request, size_t reused);  // false: cancelled
  Result<FinishReason> decode(const Request& request, Sampler& sampler, const TokenSink& sink,
                              Completion& completion);
  Result<void> append(std::span<const TokenId> tokens);

  const Model* model_;
  KvCache cache_;
  Workers* workers_;
  PrefillScratch scratch_;
  std::vector<TokenId> history_;  // the tokens in the cache
  std::vector<float> hidden_;     // of the last of them, after the last norm
  std::vector<float> logits_;
};

}  // namespace mkv
