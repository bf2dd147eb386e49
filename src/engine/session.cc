#include "engine/session.h"

#include <algorithm>
#include <utility>

#include "base/stopwatch.h"
#include "engine/stop_strings.h"
#include "text/utf8.h"

namespace mkv {
namespace {

bool is_cancelled(const Request& request) { return request.cancelled && request.cancelled(); }

}  // namespace

std::string_view name(FinishReason reason) {
  switch (reason) {
    case FinishReason::stop:
      return "stop";
    case FinishReason::length:
      return "length";
    case FinishReason::cancelled:
      return "cancelled";
  }
  return {};
}

Session::Session(const Model& model, KvCache cache, Workers& workers)
    : model_(&model),
      cache_(std::move(cache)),
      workers_(&workers),
      hidden_(model.config().hidden_size),
      logits_(model.config().vocab_size) {
  MKV_CHECK(cache_.length() == 0);  // its tokens would be unknown
}

void Session::clear() {
  cache_.clear();
  history_.clear();
}

void Session::restart(KvCache cache) {
  MKV_CHECK(cache.length() == 0);
  cache_ = std::move(cache);
  history_.clear();
}

Result<Completion> Session::generate(const Request& request, const TokenSink& sink) {
  MKV_TRY(check(request));
  MKV_ASSIGN(Sampler sampler, Sampler::create(request.sampling));
  Completion completion;
  Stopwatch watch;
  const size_t reused = reusable(request.prompt);
  MKV_ASSIGN(const bool complete, read_prompt(request, reused));
  completion.timings.prompt_tokens = request.prompt.size();
  completion.timings.reused_tokens = reused;
  completion.timings.prompt_seconds = watch.lap();
  completion.finish_reason = FinishReason::cancelled;
  if (!complete) return completion;

  auto reason = decode(request, sampler, sink, completion);
  if (!reason) {
    clear();
    return std::move(reason).error();
  }
  completion.finish_reason = *reason;
  completion.timings.generated_tokens = completion.tokens.size();
  completion.timings.generated_seconds = watch.lap();
  return completion;
}

Result<void> Session::check(const Request& request) const {
  const size_t tokens = request.prompt.size();
  if (tokens == 0) return make_error(ErrorCode::invalid_argument, "the prompt has no tokens");
  if (tokens > cache_.capacity()) {
    return make_error(ErrorCode::capacity, "the prompt has " + std::to_string(tokens) +
                                               " tokens, the context holds " +
                                               std::to_string(cache_.capacity()));
  }
  return model_->check_tokens(request.prompt);
}

size_t Session::reusable(const std::vector<TokenId>& prompt) const {
  const bool goes_on = prompt.size() >= history_.size() &&
                       std::equal(history_.begin(), history_.end(), prompt.begin());
  return goes_on ? history_.size() : 0;
}

Result<bool> Session::read_prompt(const Request& request, size_t reused) {
  if (reused == 0) clear();
  const std::span<const TokenId> prompt(request.prompt);
  for (size_t at = reused; at < prompt.size(); at += kPrefillChunk) {
    if (is_cancelled(request)) return false;
    MKV_TRY(append(prompt.subspan(at, std::min(kPrefillChunk, prompt.size() - at))));
  }
  return true;
}

Result<FinishReason> Session::decode(const Request& request, Sampler& sampler,
                                     const TokenSink& sink, Completion& completion) {
  const Tokenizer& tokenizer = model_->tokenizer();
  const std::vector<TokenId>& ends = tokenizer.special().end_of_generation;
  Utf8Stream characters;
  StopStrings stops(request.stop);
  while (completion.tokens.size() < request.max_tokens) {
    if (is_cancelled(request)) return FinishReason::cancelled;
    model_->likely_logits(hidden_, sampler.exact_within(), logits_, *workers_);
    MKV_ASSIGN(const TokenId token, sampler.sample(logits_, history_));
    completion.tokens.push_back(token);

    const bool ended = std::ranges::find(ends, token) != ends.end();
    const bool full =
        completion.tokens.size() == request.max_tokens || cache_.length() == cache_.capacity();
    std::string text;
    if (!ended) text = stops.push(characters.push(tokenizer.decode(token, false)));
    if (ended || full) {
      text += stops.push(characters.finish());
      text += stops.finish();
    }
    completion.text += text;
    const bool go_on = !sink || sink({token, text});
    if (ended || stops.found()) return FinishReason::stop;
    if (!go_on) return FinishReason::cancelled;
    if (full) break;
    MKV_TRY(append({&token, 1}));
  }
  return FinishReason::length;
}

Result<void> Session::append(std::span<const TokenId> tokens) {
  MKV_TRY(prefill(*model_, {tokens, &cache_}, hidden_, scratch_, *workers_));
  history_.insert(history_.end(), tokens.begin(), tokens.end());
  return {};
}

}  // namespace mkv
