// matryoshka chat: a conversation, a line of stdin a turn.
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <iostream>
#include <optional>
#include <string>

#include "cli/chat_autopilot.h"
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
    CLI::Option* autopilot = app->add_flag("--autopilot", autopilot_,
                                           "Compute some answers with the exact cache too, and "
                                           "move to more or fewer bits between turns, "
                                           "so that the mean KL stays within --max-kl")
                                 ->needs("--max-kl");
    app->add_option("--shadow-share", piloting_.shadow_share, "Share of those answers")
        ->capture_default_str()
        ->needs(autopilot);
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
    MKV_ASSIGN(std::optional<ChatAutopilot> autopilot, open_autopilot(*engine));
    Session session(engine->model,
                    autopilot ? autopilot->make_cache(context) : engine->make_cache(context),
                    *engine->workers);
    request_.cancelled = [] { return interrupted != 0; };
    std::string line;
    while (read_line(line)) {
      if (line.empty()) continue;
      MKV_ASSIGN(request_.prompt, conversation.ask(line));
      MKV_ASSIGN(const Completion answer, reply(session));
      const bool by_token = !answer.tokens.empty() && conversation.ends(answer.tokens.back());
      conversation.answered(answer, request_.stop.empty() || by_token);
      if (!autopilot) continue;
      MKV_ASSIGN(const std::string said,
                 autopilot->answered(session, answer_in_cache(answer, session)));
      if (!said.empty()) std::fprintf(stderr, "%s\n", said.c_str());
    }
    return {};
  }

 private:
  Result<std::optional<ChatAutopilot>> open_autopilot(const Engine& engine) {
    if (!autopilot_) return std::optional<ChatAutopilot>();
    MKV_ASSIGN(piloting_.tolerance, parse_fraction(cache_.max_kl));
    auto made = ChatAutopilot::create(engine, piloting_);
    if (!made) return in_context("--autopilot", std::move(made).error());
    return std::optional<ChatAutopilot>(*std::move(made));
  }

  // The last token of an answer is sampled, but not always read.
  static size_t answer_in_cache(const Completion& answer, const Session& session) {
    return session.tokens().size() -
           std::min(session.tokens().size(), answer.timings.prompt_tokens);
  }

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
  AutopilotOptions piloting_;
  bool autopilot_ = false, json_ = false;
};

}  // namespace

std::unique_ptr<Command> make_chat() { return std::make_unique<Chat>(); }

}  // namespace mkv::cli
