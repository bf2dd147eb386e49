// matryoshka run: continues a text.
#include <cstdio>

#include "cli/command.h"
#include "cli/generation.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/text_files.h"

namespace mkv::cli {
namespace {

class Run : public Command {
 public:
  CLI::App* declare(CLI::App& parent) override {
    CLI::App* app = parent.add_subcommand("run", "Continue a text");
    model_.declare(*app);
    CLI::Option* prompt = app->add_option("-p,--prompt", prompt_, "The text to continue");
    CLI::Option* file = app->add_option("-f,--file", file_, "The same from a file; - is stdin");
    prompt->excludes(file);
    add_count(*app, "-n,--max-tokens", request_.max_tokens, "Most tokens to add");
    app->add_option("--stop", request_.stop, "End in front of this text; may be repeated")
        ->allow_extra_args(false);
    add_count(*app, "--context", context_, "Most tokens in all; 0 is min(model's limit, 8192)");
    cache_.declare(*app);
    declare_sampling(*app, request_.sampling);
    declare_json(*app, json_);
    app->footer(
        "Example:\n  matryoshka run model.gguf -p 'The sea is' -n 64 --temperature 0 \\\n"
        "      --nest nest --budget 25%");
    return app;
  }

  Result<void> run() override {
    if (prompt_.empty() && file_.empty()) {
      return make_error(ErrorCode::invalid_argument, "run: -p TEXT or -f FILE is required");
    }
    if (!file_.empty()) {
      MKV_ASSIGN(prompt_, read_text(file_));
      if (!prompt_.empty() && prompt_.back() == '\n') prompt_.pop_back();
    }
    MKV_TRY(request_.sampling.validate());
    MKV_ASSIGN(const std::unique_ptr<Engine> engine, open_engine(model_, cache_));
    MKV_ASSIGN(const size_t context, engine->context(context_));
    MKV_ASSIGN(request_.prompt, engine->model.tokenizer().encode(prompt_, {}));
    Session session(engine->model, engine->make_cache(context), *engine->workers);
    MKV_ASSIGN(const Completion completion,
               session.generate(request_, json_ ? TokenSink{} : print_as_it_comes()));
    if (json_) {
      OrderedJson result = completion_json(completion, session.cache());
      result["prompt"] = prompt_;
      result["budget"] = engine->nest ? cache_.budget : "exact";
      print_json(result);
    } else {
      std::printf("\n");
      std::fflush(stdout);
      std::fprintf(stderr, "%s\n", timing_line(completion, session.cache()).c_str());
    }
    return {};
  }

 private:
  ModelOptions model_;
  CacheOptions cache_;
  std::string prompt_, file_;
  size_t context_ = 0;
  Request request_;
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Command> make_run() { return std::make_unique<Run>(); }

}  // namespace mkv::cli
