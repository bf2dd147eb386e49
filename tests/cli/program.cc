#include "cli/program.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <iterator>

namespace mkv {
namespace {

std::string contents(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void redirect(int fd, const std::string& path, int flags) {
  const int opened = open(path.c_str(), flags, 0600);
  if (opened < 0 || dup2(opened, fd) < 0) _exit(126);
}

[[noreturn]] void become_program(const std::vector<std::string>& arguments, const Launch& launch,
                                 const std::string& in, const std::string& out,
                                 const std::string& err) {
  redirect(STDIN_FILENO, in, O_RDONLY);
  redirect(STDOUT_FILENO, out, O_WRONLY | O_CREAT | O_TRUNC);
  redirect(STDERR_FILENO, err, O_WRONLY | O_CREAT | O_TRUNC);
  if (launch.most_file_bytes != 0) {
    const rlimit limit{launch.most_file_bytes, launch.most_file_bytes};
    setrlimit(RLIMIT_FSIZE, &limit);
    std::signal(SIGXFSZ, SIG_IGN);  // write() fails instead, as it does when a disk is full
  }
  const std::string program = std::string(MKV_BIN_DIR) + "/matryoshka";
  std::vector<char*> argv{const_cast<char*>(program.c_str())};
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  execv(program.c_str(), argv.data());
  _exit(127);
}

}  // namespace

ScratchFolder::ScratchFolder() {
  std::string name = (std::filesystem::temp_directory_path() / "matryoshka-XXXXXX").string();
  if (mkdtemp(name.data()) == nullptr) std::abort();
  path_ = name;
}

ScratchFolder::~ScratchFolder() { std::filesystem::remove_all(path_); }

Outcome matryoshka(const std::vector<std::string>& arguments, const Launch& launch) {
  const ScratchFolder folder;
  const std::string in = (folder.path() / "in").string();
  const std::string err = (folder.path() / "err").string();
  const std::string out =
      launch.stdout_path.empty() ? (folder.path() / "out").string() : launch.stdout_path;
  std::ofstream(in, std::ios::binary) << launch.input;
  const pid_t child = fork();
  if (child < 0) return {};
  if (child == 0) become_program(arguments, launch, in, out, err);
  int status = 0;
  if (launch.kill_when) {
    while (waitpid(child, &status, WNOHANG) == 0) {
      if (launch.kill_when()) kill(child, SIGKILL);
      usleep(500);
    }
  } else {
    waitpid(child, &status, 0);
  }
  Outcome outcome;
  if (WIFEXITED(status)) outcome.exit_code = WEXITSTATUS(status);
  if (launch.stdout_path.empty()) outcome.out = contents(out);
  outcome.err = contents(err);
  return outcome;
}

Json json_of(const Outcome& outcome) {
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  auto json = parse_json(outcome.out, "output");
  EXPECT_TRUE(json) << outcome.out;
  return json ? *json : Json::object();
}

std::string golden_model(const std::string& name) {
  return std::string(MKV_SOURCE_DIR) + "/tests/golden/models/" + name;
}

size_t count_lines(const std::string& text) {
  const auto feeds = static_cast<size_t>(std::count(text.begin(), text.end(), '\n'));
  return feeds + (!text.empty() && text.back() != '\n' ? 1 : 0);
}

}  // namespace mkv
