// matryoshka chat: a conversation, a line of stdin a turn.
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <iostream>
#include <optional>
#include <string>
#include <string_view>

#include "cli/command.h"
#include "cli/generation.h"
#include "cli/options.h"
#include "cli/output.h"
#include "text/chat_template.h"

namespace mkv::cli {
namespace {

volatile std::sig_atomic_t interrupted = 0;  // a signal handler can reach nothing else

// While it lives, Ctrl-C ends the answer instead of the program.
class InterruptGuard {
 public:
  InterruptGuard() {
    interrupted = 0;
    struct sigaction action = {};
    action.sa_handler = [](int) { interrupted = 1; };
    sigaction(SIGINT, &action, &before_);
  }
  ~InterruptGuard() { sigaction(SIGINT, &before_, nullptr); }
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;

 private:
  struct sigaction before_ = {};
};

// Messages so far, and how the model wants to read them.
class Conversation {
 public:
  static Result<Conversation> create(const Model& model, const std::string& system) {
    MKV_ASSIGN(ChatTemplate recipe, ChatTemplate::of_model(model.chat_template().value_or("")));
    Conversation conversation(model, std::move(recipe));
    const SpecialTokens& special = model.tokenizer().special();
    if (special.bos) conversation.options_.bos = model.tokenizer().decode(*special.bos, true);
    if (special.eos) conversation.options_.eos = model.tokenizer().decode(*special.eos, true);
    if (!system.empty()) conversation.messages_.push_back({"system", system});
    return conversation;
  }

  // The tokens that ask for the next answer. They go on from the tokens of the last one where the
  // template allows it, so that the cache can be kept: text, tokenised again, may give others.
  Result<std::vector<TokenId>> ask(std::string question) {
    messages_.push_back({"user", std::move(question)});
    auto rendered = recipe_.render(messages_, options_);
    if (!rendered) return make_error(ErrorCode::unsupported, rendered.error().message);
    std::string text = std::move(*rendered);
    std::optional<std::vector<TokenId>> tokens;
    if (!seen_tokens_.empty() && text.starts_with(seen_text_)) {
      MKV_ASSIGN(tokens, go_on(std::string_view(text).substr(seen_text_.size())));
    }
    if (!tokens) {
      MKV_ASSIGN(tokens, encode(text));
      const SpecialTokens& special = model_->tokenizer().special();
      const bool wants_bos = special.add_bos;
      if (wants_bos && (tokens->empty() || tokens->front() != *special.bos)) {
        tokens->insert(tokens->begin(), *special.bos);
      }
    }
    seen_text_ = std::move(text);
    seen_tokens_ = *tokens;
    return *std::move(tokens);
  }

  // `whole`: the answer's text is all of its tokens, not cut by a stop string.
  void answered(const Completion& answer, bool whole) {
    messages_.push_back({"assistant", answer.text});
    if (!whole) seen_tokens_.clear();
    if (seen_tokens_.empty()) return;
    seen_text_ += answer.text;
    seen_tokens_.insert(seen_tokens_.end(), answer.tokens.begin(), answer.tokens.end());
    if (!answer.tokens.empty() && ends(answer.tokens.back())) seen_tokens_.pop_back();
  }

  bool ends(TokenId token) const {
    const std::vector<TokenId>& all = model_->tokenizer().special().end_of_generation;
    return std::find(all.begin(), all.end(), token) != all.end();
  }

 private:
  Conversation(const Model& model, ChatTemplate recipe)
      : model_(&model), recipe_(std::move(recipe)) {}

  Result<std::vector<TokenId>> encode(std::string_view text) const {
    return model_->tokenizer().encode(text, {.add_special = false, .parse_special = true});
  }

  // The tokens seen and those of `rest`, if it begins with a special token: elsewhere its first
  // letters might have been part of the token before.
  Result<std::optional<std::vector<TokenId>>> go_on(std::string_view rest) const {
    std::optional<std::vector<TokenId>> tokens;
    MKV_ASSIGN(const std::vector<TokenId> more, encode(rest));
    if (!more.empty() && model_->tokenizer().decode(more.front(), false).empty()) {
      tokens = seen_tokens_;
      tokens->insert(tokens->end(), more.begin(), more.end());
    }
    return tokens;
  }

  const Model* model_;
  ChatTemplate recipe_;
  ChatOptions options_;
  std::vector<ChatMessage> messages_;
  std::string seen_text_;  // the last rendering and its answer, and their tokens
  std::vector<TokenId> seen_tokens_;
};

class Chat : public Command {
 public:
  CLI::App* declare(CLI::App& parent) override {
    CLI::App* app =
        parent.add_subcommand("chat", "Hold a conversation; each line of stdin is a turn");
    model_.declare(*app);
    app->add_option("--system", system_, "What the model is told before the conversation");
    add_count(*app, "-n,--max-tokens", request_.max_tokens, "Most tokens an answer");
    app->add_option("--stop", request_.stop, "End an answer in front of this; may be repeated")
        ->allow_extra_args(false);
    add_count(*app, "--context", context_, "Most tokens in all; 0 is min(model's limit, 8192)");
    cache_.declare(*app);
    declare_sampling(*app, request_.sampling);
    app->add_flag("--json", json_, "Each answer as a JSON object on one line");
    app->footer(
        "Example:\n  matryoshka chat model.gguf --nest nest --budget 25%\n"
        "  echo 'Why is the sky blue?' | matryoshka chat model.gguf --temperature 0");
    return app;
  }

  Result<void> run() override {
    MKV_TRY(request_.sampling.validate());
    MKV_ASSIGN(const std::unique_ptr<Engine> engine, open_engine(model_, cache_));
    MKV_ASSIGN(const size_t context, engine->context(context_));
    MKV_ASSIGN(Conversation conversation, Conversation::create(engine->model, system_));
    Session session(engine->model, engine->make_cache(context), *engine->workers);
    request_.cancelled = [] { return interrupted != 0; };
    std::string line;
    while (read_line(line)) {
      if (line.empty()) continue;
      MKV_ASSIGN(request_.prompt, conversation.ask(line));
      MKV_ASSIGN(const Completion answer, reply(session));
      const bool by_token = !answer.tokens.empty() && conversation.ends(answer.tokens.back());
      conversation.answered(answer, request_.stop.empty() || by_token);
    }
    return {};
  }

 private:
  static bool read_line(std::string& line) {
    if (isatty(STDIN_FILENO) == 1) std::fputs("> ", stderr);
    if (!std::getline(std::cin, line)) return false;
    if (!line.empty() && line.back() == '\r') line.pop_back();
    return true;
  }

  Result<Completion> reply(Session& session) {
    const InterruptGuard guard;
    MKV_ASSIGN(Completion answer,
               session.generate(request_, json_ ? TokenSink{} : print_as_it_comes()));
    if (json_) {
      const OrderedJson result = completion_json(answer, session.cache());
      std::printf("%s\n",
                  result.dump(-1, ' ', false, OrderedJson::error_handler_t::replace).c_str());
      std::fflush(stdout);
    } else {
      std::printf("\n");
      std::fflush(stdout);
      std::fprintf(stderr, "%s\n", timing_line(answer, session.cache()).c_str());
    }
    return answer;
  }

  ModelOptions model_;
  CacheOptions cache_;
  std::string system_;
  size_t context_ = 0;
  Request request_;
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Command> make_chat() { return std::make_unique<Chat>(); }

}  // namespace mkv::cli
