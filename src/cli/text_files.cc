#include "cli/text_files.h"

#include <iostream>
#include <iterator>
#include <optional>

#include "store/mapped_file.h"
#include "text/documents.h"

namespace mkv::cli {

Result<std::string> read_text(const std::string& path) {
  if (path == "-") return std::string(std::istreambuf_iterator<char>(std::cin), {});
  MKV_ASSIGN(const MappedFile file, MappedFile::open(path));
  return std::string(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
}

Result<std::vector<std::string>> read_documents(const std::string& path) {
  MKV_ASSIGN(DocumentReader reader, DocumentReader::open(path));
  std::vector<std::string> documents;
  while (true) {
    MKV_ASSIGN(std::optional<Document> document, reader.next());
    if (!document) return documents;
    documents.push_back(std::move(document->text));
  }
}

Result<std::vector<std::string>> read_documents(const std::vector<std::string>& paths) {
  std::vector<std::string> documents;
  for (const std::string& path : paths) {
    MKV_ASSIGN(std::vector<std::string> more, read_documents(path));
    documents.insert(documents.end(), std::make_move_iterator(more.begin()),
                     std::make_move_iterator(more.end()));
  }
  return documents;
}

}  // namespace mkv::cli
