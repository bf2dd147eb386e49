// What commands share that write a page: its name, and the .json beside it.
#pragma once

#include <CLI/CLI.hpp>
#include <filesystem>
#include <string>

#include "base/result.h"
#include "store/json.h"

namespace mkv::cli {

class PageOutput {
 public:
  void declare(CLI::App& app);  // -o
  // Before minutes of work: the name ends with .html, its folder is there.
  Result<void> check() const;

  const std::string& path() const { return path_; }
  // The same name with another ending, e.g. ".json".
  std::filesystem::path beside(const char* ending) const {
    return std::filesystem::path(path_).replace_extension(ending);
  }
  Result<void> write(const std::string& page, const Json& report) const;

 private:
  std::string path_;
};

// YYYY-MM-DD, local time.
std::string today();

}  // namespace mkv::cli
