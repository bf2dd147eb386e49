#include "engine/sample_sequences.h"

#include <string>
#include <utility>

#include "engine/sampler.h"

namespace mkv {
namespace {

TokenId first_token(const SpecialTokens& special) {
  if (special.bos) return *special.bos;
  if (special.eos) return *special.eos;
  return special.end_of_generation.empty() ? 0 : special.end_of_generation.front();
}

// Each sequence draws from its own generator, so which worker samples it does not matter.
class Batch {
 public:
  Batch(const Model& model, const SequenceOptions& options, Workers& workers)
      : model_(model), options_(options), workers_(workers) {}

  Result<std::vector<std::vector<TokenId>>> run(const ProgressSink& progress) {
    MKV_TRY(start());
    for (size_t length = 1; length < options_.tokens_per_sequence; ++length) {
      MKV_TRY(step());
      report(progress, {"sample", length + 1, options_.tokens_per_sequence, {}});
    }
    return std::move(sequences_);
  }

 private:
  Result<void> start() {
    const size_t count = options_.sequences;
    Rng seeds(options_.seed);
    const TokenId first = first_token(model_.tokenizer().special());
    for (size_t i = 0; i < count; ++i) {
      MKV_ASSIGN(Sampler sampler, Sampler::create(SamplingOptions::unbiased(seeds.next())));
      samplers_.push_back(std::move(sampler));
      caches_.push_back(model_.exact_cache(options_.tokens_per_sequence));
      sequences_.push_back({first});
      sequences_.back().reserve(options_.tokens_per_sequence);
    }
    slices_.resize(count);
    failures_.resize(count);
    logits_.reshape(count, model_.config().vocab_size);
    return {};
  }

  Result<void> step() {
    for (size_t i = 0; i < slices_.size(); ++i) {
      slices_[i] = {std::span<const TokenId>(sequences_[i]).last(1), &caches_[i]};
    }
    MKV_TRY(model_.forward(slices_, hidden_, scratch_, workers_));
    model_.logits(hidden_.view(), logits_.view(), workers_);
    workers_.run(slices_.size(), [&](size_t i, size_t) {
      const auto token = samplers_[i].sample(logits_.row(i), {});
      failures_[i] = token ? Result<void>() : Result<void>(token.error());
      if (token) sequences_[i].push_back(*token);
    });
    for (const Result<void>& failure : failures_) MKV_TRY(failure);
    return {};
  }

  const Model& model_;
  const SequenceOptions& options_;
  Workers& workers_;
  std::vector<Sampler> samplers_;
  std::vector<KvCache> caches_;
  std::vector<std::vector<TokenId>> sequences_;
  std::vector<SequenceSlice> slices_;
  std::vector<Result<void>> failures_;
  Matrix<float> hidden_, logits_;
  Scratch scratch_;
};

}  // namespace

Result<std::vector<std::vector<TokenId>>> sample_sequences(const Model& model,
                                                           const SequenceOptions& options,
                                                           Workers& workers,
                                                           const ProgressSink& progress) {
  const size_t longest = model.config().max_position_embeddings;
  if (options.sequences == 0 || options.tokens_per_sequence == 0 ||
      options.tokens_per_sequence > longest) {
    return make_error(ErrorCode::invalid_argument,
                      "sample: found " + std::to_string(options.sequences) + " sequences of " +
                          std::to_string(options.tokens_per_sequence) +
                          " tokens, expected at least 1 of 1 ... " + std::to_string(longest));
  }
  return Batch(model, options, workers).run(progress);
}

}  // namespace mkv
