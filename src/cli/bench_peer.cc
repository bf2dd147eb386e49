#include "cli/bench_peer.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <memory>

#include "store/json.h"

extern char** environ;

namespace mkv::cli {
namespace {

// Reads what is written to the pipe until nobody holds its other end.
std::string read_all(int pipe) {
  std::string text;
  std::array<char, 4096> bytes;
  for (;;) {
    const ssize_t count = read(pipe, bytes.data(), bytes.size());
    if (count > 0) {
      text.append(bytes.data(), static_cast<size_t>(count));
    } else if (count == 0 || errno != EINTR) {
      return text;
    }
  }
}

// Starts the command with stdout into `pipe` and stderr to nowhere; an errno, or 0.
int start(const std::vector<std::string>& command, int pipe, pid_t& child) {
  std::vector<char*> arguments;
  for (const std::string& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, pipe, STDOUT_FILENO);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  const int failed =
      posix_spawn(&child, command.front().c_str(), &actions, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  return failed;
}

}  // namespace

Result<std::string> output_of(const std::vector<std::string>& command) {
  const std::string& program = command.front();
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) {
    return make_error(ErrorCode::io, program + ": no pipe: " + std::strerror(errno));
  }
  pid_t child = 0;
  const int failed = start(command, ends[1], child);
  close(ends[1]);
  std::string text = failed == 0 ? read_all(ends[0]) : std::string();
  close(ends[0]);
  if (failed != 0) {
    return make_error(ErrorCode::io, program + ": cannot run: " + std::strerror(failed));
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return text;
  return make_error(
      ErrorCode::io,
      program + (WIFEXITED(status) ? ": ended with exit code " + std::to_string(WEXITSTATUS(status))
                                   : ": ended by signal " + std::to_string(WTERMSIG(status))));
}

Result<void> measure_peer(const PeerRun& run, PeerSpeed& speed) {
  const std::string program = (speed.mode.folder / "llama-bench").string();
  const auto text = [](size_t number) { return std::to_string(number); };
  MKV_ASSIGN(const std::string report, output_of({program,
                                                  "-m",
                                                  run.model,
                                                  "-p",
                                                  text(run.lengths.prefill),
                                                  "-n",
                                                  text(run.lengths.decode),
                                                  "-d",
                                                  text(speed.depth),
                                                  "-t",
                                                  text(run.threads),
                                                  "-ctk",
                                                  speed.mode.kv_type,
                                                  "-ctv",
                                                  speed.mode.kv_type,
                                                  "-fa",
                                                  speed.mode.flash_attention ? "1" : "0",
                                                  "-r",
                                                  "1",
                                                  "-o",
                                                  "json"}));
  MKV_ASSIGN(const Json json, parse_json(report, program));
  size_t found = 0;
  if (json.is_array()) {
    for (const Json& test : json) {
      if (!test.is_object() || !test.contains("n_gen") || !test.contains("avg_ts") ||
          !test["n_gen"].is_number_unsigned() || !test["avg_ts"].is_number()) {
        continue;
      }
      const double speed_found = test["avg_ts"].get<double>();
      if (!(speed_found > 0)) {
        return make_error(ErrorCode::corrupt, program + ": reports no speed");
      }
      Samples& samples = test["n_gen"].get<size_t>() == 0 ? speed.prefill : speed.decode;
      samples.values.push_back(speed_found);
      ++found;
    }
  }
  if (found != 2) {
    return make_error(ErrorCode::corrupt,
                      program + ": expected the speed of 2 tests, found " + std::to_string(found));
  }
  return {};
}

}  // namespace mkv::cli
