#include "text/documents.h"

#include "golden.h"

namespace mkv {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class Documents : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto* const test = ::testing::UnitTest::GetInstance()->current_test_info();
    folder_ = std::filesystem::path(testing::TempDir()) / (std::string("mkv_docs_") + test->name());
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  void write(const std::string& name, const std::string& text) {
    std::filesystem::create_directories((folder_ / name).parent_path());
    std::ofstream(folder_ / name, std::ios::binary) << text;
  }
  // The texts of a path; what is wrong with it comes last.
  std::vector<std::string> read(const std::string& name) {
    Result<DocumentReader> reader = DocumentReader::open(folder_ / name);
    if (!reader) return {reader.error().message};
    std::vector<std::string> texts;
    while (true) {
      const Result<std::optional<Document>> document = reader->next();
      if (!document) texts.push_back(document.error().message);
      if (!document || !*document) return texts;
      texts.push_back((*document)->text);
    }
  }
  std::filesystem::path folder_;
};

TEST_F(Documents, Files) {
  write("a.txt", std::string("any\0bytes\xFF\n", 11));
  EXPECT_THAT(read("a.txt"), ElementsAre(std::string("any\0bytes\xFF\n", 11)));
  write("b.jsonl", "{\"text\": \"one\"}\r\n\n{\"id\": 3, \"text\": \"t\\u00e9\\n\"}");
  EXPECT_THAT(read("b.jsonl"), ElementsAre("one", "t\u00E9\n"));
}

TEST_F(Documents, FoldersInTheOrderOfNames) {
  write("b.txt", "b");
  write("a.jsonl", "{\"text\": \"a1\"}\n{\"text\": \"a2\"}\n");
  write("c/d.raw", "d");
  write(".git/x", "hidden");
  write(".hidden", "hidden");
  EXPECT_THAT(read("."), ElementsAre("a1", "a2", "b", "d"));
}

TEST_F(Documents, ErrorsSayWhere) {
  EXPECT_THAT(read("none"), ElementsAre(HasSubstr("none")));
  EXPECT_THAT(read("."), ElementsAre(HasSubstr("no files")));
  write("empty.txt", "");
  EXPECT_THAT(read("empty.txt"), ElementsAre(HasSubstr("empty.txt")));
  write("empty.jsonl", "");
  EXPECT_THAT(read("empty.jsonl"), ElementsAre(HasSubstr("no lines")));
  write("bad.jsonl", "{\"text\": \"a\"}\n{\"text\": 3}\n");
  EXPECT_THAT(read("bad.jsonl"), ElementsAre("a", HasSubstr("bad.jsonl:2")));
  write("cut.jsonl", "{\"text\": \"a");
  EXPECT_THAT(read("cut.jsonl"), ElementsAre(HasSubstr("cut.jsonl:1")));
  write("blank.jsonl", "{\"text\": \"\"}");
  EXPECT_THAT(read("blank.jsonl"), ElementsAre(HasSubstr("empty")));
  write("other.jsonl", "[1]\n");
  EXPECT_THAT(read("other.jsonl"), ElementsAre(HasSubstr("other.jsonl:1")));
}

}  // namespace
}  // namespace mkv
