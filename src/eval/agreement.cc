#include "eval/agreement.h"

#include <algorithm>

#include "base/stopwatch.h"
#include "eval/greedy.h"
#include "store/message.h"

namespace mkv {
namespace {

Error invalid(std::string message) {
  return make_error(ErrorCode::invalid_argument, "generation: " + std::move(message));
}

double median(std::vector<size_t> values) {
  std::ranges::sort(values);
  const size_t middle = values.size() / 2;
  const auto high = static_cast<double>(values[middle]);
  return values.size() % 2 == 1 ? high : (static_cast<double>(values[middle - 1]) + high) / 2;
}

}  // namespace

Result<std::vector<std::vector<TokenId>>> cut_prompts(const Model& model,
                                                      std::span<const std::string> documents,
                                                      const AgreementOptions& options) {
  const SpecialTokens& special = model.tokenizer().special();
  const size_t bos = special.add_bos ? 1 : 0;
  if (options.prompts == 0 || options.prompt <= bos || options.tokens == 0) {
    return invalid("prompts, their length and the tokens to generate must be at least 1");
  }
  const size_t longest = model.config().max_position_embeddings;
  if (longest != 0 && options.prompt + options.tokens > longest) {
    return invalid(concat("prompts of ", options.prompt, " and answers of ", options.tokens,
                          " tokens, the model's limit is ", longest));
  }
  std::vector<TokenId> all;
  for (const std::string& document : documents) {
    MKV_ASSIGN(const std::vector<TokenId> tokens,
               model.tokenizer().encode(document, {.add_special = false, .parse_special = false}));
    all.insert(all.end(), tokens.begin(), tokens.end());
  }
  const size_t take = options.prompt - bos;
  if (all.size() < take) {
    return invalid(concat("the text has ", all.size(), " tokens, a prompt needs ", take));
  }
  std::vector<std::vector<TokenId>> prompts(options.prompts);
  for (size_t i = 0; i < prompts.size(); ++i) {
    if (bos == 1) prompts[i].push_back(*special.bos);
    const size_t begin = (all.size() - take) * i / std::max<size_t>(options.prompts - 1, 1);
    prompts[i].insert(prompts[i].end(), all.begin() + static_cast<std::ptrdiff_t>(begin),
                      all.begin() + static_cast<std::ptrdiff_t>(begin + take));
  }
  return prompts;
}

Result<std::vector<std::vector<TokenId>>> greedy_answers(
    const Model& model, const CacheFactory& caches, std::span<const std::vector<TokenId>> prompts,
    const AgreementOptions& options, Workers& workers) {
  GreedyDecoder decoder(model, workers);
  std::vector<std::vector<TokenId>> answers;
  for (const std::vector<TokenId>& prompt : prompts) {
    KvCache cache = caches.make(prompt.size() + options.tokens);
    MKV_TRY(decoder.read(prompt, cache));
    MKV_ASSIGN(std::vector<TokenId> answer, decoder.generate(options.tokens, cache));
    answers.push_back(std::move(answer));
    report(options.progress, {"generation", answers.size(), prompts.size(), {}});
  }
  return answers;
}

Result<AgreementReport> evaluate_agreement(const Model& model, const CacheFactory& caches,
                                           std::span<const std::vector<TokenId>> prompts,
                                           std::span<const std::vector<TokenId>> base,
                                           const AgreementOptions& options, Workers& workers) {
  if (prompts.empty() || base.size() != prompts.size()) {
    return invalid(concat(prompts.size(), " prompts, ", base.size(), " answers to compare with"));
  }
  const Stopwatch watch;
  MKV_ASSIGN(const std::vector<std::vector<TokenId>> answers,
             greedy_answers(model, caches, prompts, options, workers));
  AgreementReport out;
  size_t identical = 0, agreed = 0;
  for (size_t i = 0; i < answers.size(); ++i) {
    const auto differs = std::ranges::mismatch(base[i], answers[i]);
    out.first_difference.push_back(static_cast<size_t>(differs.in1 - base[i].begin()));
    agreed += out.first_difference.back();
    identical += answers[i] == base[i] ? 1 : 0;
  }
  const auto count = static_cast<double>(answers.size());
  out.identical = static_cast<double>(identical) / count;
  out.mean_agreed = static_cast<double>(agreed) / count;
  out.median_agreed = median(out.first_difference);
  out.seconds = watch.seconds();
  return out;
}

}  // namespace mkv
