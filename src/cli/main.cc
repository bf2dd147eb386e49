// matryoshka: the command-line program. Exit codes: 0 done, 1 failed, 2 used wrongly.
#include <algorithm>
#include <cstdio>
#include <exception>
#include <string>

#include "base/peak_memory.h"
#include "cli/command.h"
#include "cli/nearest.h"

#ifndef MKV_VERSION
#define MKV_VERSION "0.1.0"
#endif

namespace mkv::cli {
namespace {

constexpr int kFailed = 1, kUsage = 2;

struct Entry {
  CLI::App* app;
  std::unique_ptr<Command> command;
};

// On one line, and without the control characters that a file's names may carry to a terminal.
void print_error(std::string message) {
  std::ranges::replace(message, '\n', ' ');
  std::ranges::replace_if(
      message, [](char c) { return static_cast<unsigned char>(c) < ' ' || c == '\x7f'; }, '?');
  std::fprintf(stderr, "matryoshka: %s\n", message.c_str());
}

std::vector<Entry> declare_commands(CLI::App& app) {
  std::vector<Entry> entries;
  const auto add = [&](CLI::App& parent, std::unique_ptr<Command> command) {
    CLI::App* declared = command->declare(parent);
    entries.push_back({declared, std::move(command)});
  };
  add(app, make_run());
  add(app, make_chat());
  add(app, make_fit());
  add(app, make_train());
  add(app, make_search());
  CLI::App* eval = app.add_subcommand("eval", "Measure what a nest at a budget costs");
  eval->require_subcommand(1);
  eval->footer(
      "Example:\n  matryoshka eval kl model.gguf --nest nest --budget 25% --text test.txt");
  add(*eval, make_eval_ppl());
  add(*eval, make_eval_kl());
  add(*eval, make_eval_tasks());
  add(*eval, make_eval_long());
  add(*eval, make_eval_retrieval());
  add(*eval, make_eval_generation());
  add(app, make_bench());
  add(app, make_pilot());
  add(app, make_autopilot());
  add(app, make_inspect());
  return entries;
}

// The innermost command that was named.
const CLI::App& named_command(const CLI::App& app) {
  const CLI::App* last = &app;
  while (!last->get_subcommands().empty()) last = last->get_subcommands().front();
  return *last;
}

// The words the parser knows where it stopped: options and commands.
std::vector<std::string> known_words(const CLI::App& command) {
  std::vector<std::string> words;
  for (const CLI::App* sub : command.get_subcommands({})) words.push_back(sub->get_name());
  for (const CLI::Option* option : command.get_options()) {
    for (const std::string& name : option->get_lnames()) words.push_back("--" + name);
  }
  return words;
}

int usage_error(const CLI::App& app, const CLI::ParseError& error) {
  const CLI::App& command = named_command(app);
  std::string path;
  for (const CLI::App* part = &command; part != nullptr; part = part->get_parent()) {
    path.insert(0, part->get_name() + " ");
  }
  std::string message = error.what();
  const std::vector<std::string> rest = app.remaining(true);
  if (!rest.empty()) {
    message = "unknown argument " + rest.front();
    const std::string meant = nearest_word(rest.front(), known_words(command));
    if (!meant.empty()) message += " (did you mean " + meant + "?)";
  } else if (!command.get_subcommands({}).empty()) {
    message = path + "needs a command";
  }
  print_error(message + "; see " + path + "--help");
  return kUsage;
}

int run_chosen(const std::vector<Entry>& entries) {
  for (const Entry& entry : entries) {
    if (!entry.app->parsed()) continue;
    const Result<void> done = entry.command->run();
    if (!done) {
      print_error(done.error().message);
      return done.error().code == ErrorCode::invalid_argument ? kUsage : kFailed;
    }
  }
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
    print_error("stdout: cannot write");
    return kFailed;
  }
  return 0;
}

int run_program(int argc, char** argv) {
  CLI::App app("Language models with a size dial on their KV cache", "matryoshka");
  app.set_version_flag("--version", "matryoshka " MKV_VERSION);
  app.require_subcommand(1);
  app.footer(
      "Example:\n  matryoshka run model.gguf -p 'The sea is' -n 32\n"
      "Each command has its own --help.");
  const std::vector<Entry> entries = declare_commands(app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
    return usage_error(app, error);
  }
  return run_chosen(entries);
}

}  // namespace
}  // namespace mkv::cli

int main(int argc, char** argv) {
  mkv::give_back_freed_buffers();
  try {
    return mkv::cli::run_program(argc, argv);
  } catch (const std::exception& error) {  // e.g. no memory
    mkv::cli::print_error(error.what());
    return mkv::cli::kFailed;
  }
}
