// Models with bytes cut off or changed load, or are an error on one line that names the file.
#include <gtest/gtest.h>

#include <fstream>
#include <string>

#include "base/rng.h"
#include "model/golden.h"
#include "store/temp_dir.h"

namespace mkv {
namespace {

namespace fs = std::filesystem;

constexpr size_t kCuts = 40, kChanges = 120;
constexpr size_t kHeadBytes = 16384;  // changes go where the structure is, not into the weights

std::string read_bytes(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void write_bytes(const fs::path& path, std::string_view bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

// Loads `model`, one of whose files is damaged, and judges the answer.
void check(const fs::path& model, const std::string& damage) {
  const auto loaded = Model::load(model);
  if (loaded) return;  // e.g. another letter in a name that nobody reads
  const Error& error = loaded.error();
  EXPECT_NE(error.message.find(model.string()), std::string::npos) << damage << error.message;
  EXPECT_EQ(error.message.find('\n'), std::string::npos) << damage << error.message;
  EXPECT_NE(error.code, ErrorCode::invalid_argument) << damage << error.message;
}

// Damages `file`, which belongs to `model` (or is the model), in many ways.
void damage(const fs::path& model, const fs::path& file, uint64_t seed) {
  const std::string whole = read_bytes(file);
  ASSERT_FALSE(whole.empty()) << file;
  Rng rng(seed);
  for (size_t i = 0; i < kCuts; ++i) {
    const size_t length = rng.below(whole.size());
    write_bytes(file, std::string_view(whole).substr(0, length));
    check(model, file.filename().string() + " cut to " + std::to_string(length) + ": ");
  }
  for (size_t i = 0; i < kChanges; ++i) {
    std::string bytes = whole;
    const size_t at = rng.below(std::min(whole.size(), kHeadBytes));
    bytes[at] = static_cast<char>(rng.below(256));
    write_bytes(file, bytes);
    check(model, file.filename().string() + " changed at " + std::to_string(at) + ": ");
  }
  write_bytes(file, whole);
}

class Damaged : public testing::TempDir, public ::testing::WithParamInterface<std::string> {};

TEST_P(Damaged, GgufFile) {
  const fs::path file = dir_ / "model.gguf";
  fs::copy_file(golden::gguf_of(GetParam()), file);
  damage(file, file, 1);
}

TEST_P(Damaged, HuggingFaceFolder) {
  const fs::path model = dir_ / "model";
  fs::copy(golden::folder_of(GetParam()), model);
  uint64_t seed = 2;
  for (const char* name :
       {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}) {
    damage(model, model / name, seed++);
  }
  EXPECT_TRUE(Model::load(model));  // put back as it was
}

INSTANTIATE_TEST_SUITE_P(Models, Damaged, ::testing::Values("llama", "llama_spm", "qwen3"));

}  // namespace
}  // namespace mkv
