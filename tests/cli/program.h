// Runs the built program as a user would, and keeps what it said.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "store/json.h"

namespace mkv {

struct Outcome {
  int exit_code = -1;  // -1: ended by a signal
  std::string out, err;
};

struct Launch {
  std::string input = {};                // stdin
  size_t most_file_bytes = 0;            // RLIMIT_FSIZE, as on a full disk; 0: no limit
  std::string stdout_path = {};          // stdout goes to this file instead of Outcome::out
  std::function<bool()> kill_when = {};  // asked again and again; SIGKILL once it is true
};

// A folder of its own, removed at the end.
class ScratchFolder {
 public:
  ScratchFolder();
  ~ScratchFolder();
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

// `arguments` follow the program's name.
Outcome matryoshka(const std::vector<std::string>& arguments, const Launch& launch = {});

// What a run that must have succeeded printed; an empty object if it did not.
Json json_of(const Outcome& outcome);

// tests/golden/models/NAME
std::string golden_model(const std::string& name);

// Lines of a text; a last one without a line feed counts.
size_t count_lines(const std::string& text);

}  // namespace mkv
