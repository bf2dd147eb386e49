#include "pilot/answers.h"

#include <algorithm>

#include "engine/conversation.h"
#include "eval/agreement.h"
#include "text/utf8.h"

namespace mkv {
namespace {

constexpr const char* kQuestion = "In two or three sentences, what is the text above about?";
constexpr size_t kTemplateTokens = 128;  // room that a template's own words may take

struct Prompts {
  std::vector<AnswerSet> sets;  // without answers
  std::vector<std::vector<TokenId>> tokens;
};

std::string text_of(const Model& model, std::span<const TokenId> tokens) {
  return replace_invalid_utf8(model.tokenizer().decode_all(tokens, false));
}

// A template that cannot do it is as none.
Result<void> ask(const Model& model, AnswerSet& set, std::vector<TokenId>& tokens) {
  MKV_ASSIGN(Conversation conversation, Conversation::create(model, {}));
  MKV_ASSIGN(tokens, conversation.ask(set.excerpt + "\n\n" + kQuestion));
  set.question = kQuestion;
  return {};
}

Result<Prompts> make_prompts(const Model& model, std::span<const std::string> documents,
                             const AnswerOptions& options) {
  AgreementOptions cut{.prompts = options.prompts,
                       .prompt = options.excerpt_tokens,
                       .tokens = options.tokens + kTemplateTokens,
                       .progress = {}};
  const size_t longest = model.config().max_position_embeddings;
  if (longest != 0 && cut.tokens < longest) {
    cut.prompt = std::min(cut.prompt, longest - cut.tokens);
  }
  Prompts prompts;
  auto excerpts = cut_prompts(model, documents, cut);
  if (!excerpts) return prompts;  // the text, or the model's context, is too short
  for (std::vector<TokenId>& tokens : *excerpts) {
    AnswerSet set;
    set.excerpt = text_of(model, tokens);
    if (model.chat_template()) {
      std::vector<TokenId> asked;
      if (ask(model, set, asked) && asked.size() + options.tokens <= longest) tokens = asked;
    }
    prompts.sets.push_back(std::move(set));
    prompts.tokens.push_back(std::move(tokens));
  }
  return prompts;
}

Answer compare(const Model& model, std::span<const TokenId> base, std::span<const TokenId> tokens) {
  Answer answer;
  const auto differs = std::ranges::mismatch(base, tokens);
  answer.agreed_tokens = static_cast<size_t>(differs.in2 - tokens.begin());
  answer.tokens = tokens.size();
  // The whole text is split, as a character may be of several tokens.
  const std::string all = text_of(model, tokens);
  answer.agreed = text_of(model, tokens.first(answer.agreed_tokens));
  answer.agreed.resize(
      static_cast<size_t>(std::ranges::mismatch(answer.agreed, all).in2 - all.begin()));
  while (!is_valid_utf8(answer.agreed)) answer.agreed.pop_back();
  answer.differs = all.substr(answer.agreed.size());
  return answer;
}

}  // namespace

Result<std::vector<AnswerSet>> collect_answers(const Model& model,
                                               std::span<const NamedFactory> caches,
                                               std::span<const std::string> documents,
                                               const AnswerOptions& options, Workers& workers) {
  if (caches.empty()) {
    return make_error(ErrorCode::invalid_argument, "answers: 0 caches were given, 1 is the least");
  }
  MKV_ASSIGN(Prompts prompts, make_prompts(model, documents, options));
  const AgreementOptions generation{.tokens = options.tokens, .progress = {}};
  std::vector<std::vector<TokenId>> base;
  for (size_t c = 0; c < caches.size(); ++c) {
    report(options.progress, {"answers", c, caches.size(), caches[c].budget});
    MKV_ASSIGN(const std::vector<std::vector<TokenId>> answers,
               greedy_answers(model, caches[c].caches, prompts.tokens, generation, workers));
    if (c == 0) base = answers;
    for (size_t p = 0; p < answers.size(); ++p) {
      Answer answer = compare(model, base[p], answers[p]);
      answer.budget = caches[c].budget;
      prompts.sets[p].answers.push_back(std::move(answer));
    }
  }
  report(options.progress, {"answers", caches.size(), caches.size(), {}});
  return std::move(prompts.sets);
}

}  // namespace mkv
