// What every command of the program is: declared once to the option parser, then run.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <vector>

#include "base/result.h"

namespace mkv::cli {

class Command {
 public:
  virtual ~Command() = default;
  // Adds the command to its parent and binds its options; the help ends with an example.
  virtual CLI::App* declare(CLI::App& parent) = 0;
  // Results go to stdout, progress to stderr. invalid_argument is a usage error (exit code 2).
  virtual Result<void> run() = 0;
};

std::unique_ptr<Command> make_run();
std::unique_ptr<Command> make_chat();
std::unique_ptr<Command> make_fit();
std::unique_ptr<Command> make_train();
std::unique_ptr<Command> make_search();
std::unique_ptr<Command> make_eval_ppl();
std::unique_ptr<Command> make_eval_kl();
std::unique_ptr<Command> make_eval_tasks();
std::unique_ptr<Command> make_eval_long();
std::unique_ptr<Command> make_eval_retrieval();
std::unique_ptr<Command> make_eval_generation();
std::unique_ptr<Command> make_bench();
std::unique_ptr<Command> make_pilot();
std::unique_ptr<Command> make_autopilot();
std::unique_ptr<Command> make_inspect();

}  // namespace mkv::cli
