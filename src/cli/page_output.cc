#include "cli/page_output.h"

#include <cstdio>
#include <ctime>
#include <span>

#include "store/atomic_file.h"

namespace mkv::cli {
namespace {

Result<void> write_text(const std::filesystem::path& path, const std::string& text) {
  return write_file_atomically(path, std::as_bytes(std::span(text)));
}

}  // namespace

void PageOutput::declare(CLI::App& app) {
  app.add_option("-o,--output", path_, "The page, an .html file; a .json goes beside it")
      ->required();
}

Result<void> PageOutput::check() const {
  namespace fs = std::filesystem;
  if (fs::path(path_).extension() != ".html") {
    return make_error(ErrorCode::invalid_argument,
                      "-o " + path_ + ": the page's name ends with .html");
  }
  std::error_code error;
  const fs::path folder = fs::absolute(path_, error).parent_path();
  if (fs::is_directory(folder, error)) return {};
  return make_error(ErrorCode::not_found, folder.string() + ": no such folder");
}

Result<void> PageOutput::write(const std::string& page, const Json& report) const {
  MKV_ASSIGN(const std::string json, dump_json(report, 1));
  MKV_TRY(write_text(path_, page));
  MKV_TRY(write_text(beside(".json"), json + "\n"));
  std::fprintf(stderr, "%s: written, with %s\n", path_.c_str(), beside(".json").c_str());
  return {};
}

std::string today() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  localtime_r(&now, &parts);
  char text[16];
  std::strftime(text, sizeof text, "%Y-%m-%d", &parts);
  return text;
}

}  // namespace mkv::cli
