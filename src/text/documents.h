// DocumentReader: the texts of a path, one after the other, without holding all of them.
//
//   FILE.jsonl   a document for each line {"text": "..."}; other keys are ignored
//   FILE         any other file is one document, whatever its bytes
//   FOLDER       its files in the order of their names, those in folders below included; hidden
//                ones are left out
#pragma once

#include <cstddef>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"

namespace mkv {

struct Document {
  std::string text;
  std::string source;  // for messages: "train/books.jsonl:12"
};

// Belongs to one thread.
class DocumentReader {
 public:
  static constexpr size_t kMaxDocumentBytes = size_t{1} << 30;

  // A path without any file is an error.
  static Result<DocumentReader> open(const std::filesystem::path& path);
  // The next document; nothing at the end. A document without text is an error.
  Result<std::optional<Document>> next();

 private:
  Result<std::optional<Document>> next_line();
  Result<Document> read_file(const std::filesystem::path& path) const;

  std::vector<std::filesystem::path> files_;
  size_t next_file_ = 0;
  std::ifstream lines_;  // of files_[next_file_ - 1], while it is a .jsonl
  size_t line_ = 0;
};

}  // namespace mkv
