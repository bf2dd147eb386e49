// Texts from files.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"

namespace mkv::cli {

// A whole file; "-" is stdin.
Result<std::string> read_text(const std::string& path);

// All documents of a text file, a .jsonl file or a folder (text/documents.h).
Result<std::vector<std::string>> read_documents(const std::string& path);
// The same of several, one after the other.
Result<std::vector<std::string>> read_documents(const std::vector<std::string>& paths);

}  // namespace mkv::cli
