// matryoshka chat: a conversation, a line of stdin a turn.
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <iostream>
#include <string>

#include "cli/command.h"
#include "cli/generation.h"
#include "cli/options.h"
#include "cli/output.h"
#include "engine/conversation.h"

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
