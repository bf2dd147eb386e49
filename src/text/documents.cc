#include "text/documents.h"

#include <algorithm>
#include <cerrno>

#include "store/json.h"
#include "store/message.h"

namespace mkv {
namespace {

namespace fs = std::filesystem;

bool is_hidden(const fs::path& path) { return path.filename().string().starts_with('.'); }

Error io_error(const fs::path& path, const std::error_code& code) {
  return make_error(ErrorCode::io, concat(path.string(), ": ", code.message()));
}

Result<std::vector<fs::path>> files_of(const fs::path& folder) {
  std::vector<fs::path> files;
  std::error_code code;
  fs::recursive_directory_iterator entry(folder, code);
  while (!code && entry != fs::recursive_directory_iterator()) {
    const bool is_folder = entry->is_directory(code);
    if (code) break;
    if (is_hidden(entry->path())) {
      if (is_folder) entry.disable_recursion_pending();
    } else if (entry->is_regular_file(code)) {
      files.push_back(entry->path());
    }
    if (!code) entry.increment(code);
  }
  if (code) return io_error(folder, code);
  if (files.empty()) {
    return make_error(ErrorCode::not_found, folder.string() + ": the folder has no files");
  }
  std::sort(files.begin(), files.end());
  return files;
}

// As std::getline, but a line beyond the limit is an error instead of all the memory there is.
Result<bool> read_line(std::istream& in, std::string& line) {
  line.clear();
  std::streambuf& buffer = *in.rdbuf();
  for (int c = buffer.sbumpc(); c != std::char_traits<char>::eof(); c = buffer.sbumpc()) {
    if (c == '\n') return true;
    if (line.size() >= DocumentReader::kMaxDocumentBytes) {
      return make_error(ErrorCode::capacity, concat("a line of more than ",
                                                    DocumentReader::kMaxDocumentBytes, " bytes"));
    }
    line += static_cast<char>(c);
  }
  return !line.empty();
}

Result<std::string> text_of_line(const std::string& line) {
  MKV_ASSIGN(const Json json, parse_json(line, "line"));
  MKV_ASSIGN(std::string text, get_string(json, "text"));
  return text;
}

}  // namespace

Result<DocumentReader> DocumentReader::open(const fs::path& path) {
  DocumentReader reader;
  std::error_code code;
  const fs::file_status status = fs::status(path, code);
  if (!fs::exists(status)) {
    return make_error(ErrorCode::not_found, path.string() + ": there is no such file or folder");
  }
  if (fs::is_directory(status)) {
    MKV_ASSIGN(reader.files_, files_of(path));
  } else {
    reader.files_.push_back(path);
  }
  return reader;
}

Result<std::optional<Document>> DocumentReader::next() {
  while (true) {
    if (lines_.is_open()) {
      MKV_ASSIGN(std::optional<Document> document, next_line());
      if (document) return document;
      lines_.close();
    }
    if (next_file_ == files_.size()) return std::optional<Document>();
    const fs::path& path = files_[next_file_++];
    if (path.extension() != ".jsonl") {
      MKV_ASSIGN(Document document, read_file(path));
      return std::optional<Document>(std::move(document));
    }
    line_ = 0;
    lines_.clear();
    errno = 0;
    lines_.open(path, std::ios::binary);
    if (!lines_.is_open()) return os_error(path, "open", errno);
  }
}

Result<std::optional<Document>> DocumentReader::next_line() {
  const std::string path = files_[next_file_ - 1].string();
  std::string line;
  while (true) {
    Result<bool> found = read_line(lines_, line);
    if (!found) return in_context(concat(path, ":", line_ + 1), std::move(found).error());
    if (!*found) {
      if (line_ == 0) return make_error(ErrorCode::corrupt, path + ": the file has no lines");
      return std::optional<Document>();
    }
    ++line_;
    if (line.find_first_not_of(" \t\r") != std::string::npos) break;
  }
  Document document;
  document.source = concat(path, ":", line_);
  Result<std::string> text = text_of_line(line);
  if (!text) return in_context(document.source, std::move(text).error());
  if (text->empty()) {
    return make_error(ErrorCode::corrupt, document.source + ": the text is empty");
  }
  document.text = *std::move(text);
  return std::optional<Document>(std::move(document));
}

Result<Document> DocumentReader::read_file(const fs::path& path) const {
  std::error_code code;
  const auto size = fs::file_size(path, code);
  if (code) return io_error(path, code);
  if (size > kMaxDocumentBytes) {
    return make_error(ErrorCode::capacity, concat(path.string(), ": ", size, " bytes; at most ",
                                                  kMaxDocumentBytes, " are taken"));
  }
  if (size == 0) return make_error(ErrorCode::corrupt, path.string() + ": the file is empty");
  errno = 0;
  std::ifstream in(path, std::ios::binary);
  if (!in) return os_error(path, "open", errno);
  Document document;
  document.source = path.string();
  document.text.resize(size);
  in.read(document.text.data(), static_cast<std::streamsize>(size));
  if (static_cast<uintmax_t>(in.gcount()) != size) {
    return make_error(ErrorCode::io,
                      concat(path.string(), ": read ", in.gcount(), " of ", size, " bytes"));
  }
  return document;
}

}  // namespace mkv
