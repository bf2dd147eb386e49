// From a path to a Model: which format it is, and its parts in the order in which they depend on
// each other.
#include <filesystem>
#include <memory>
#include <string>
#include <utility>

#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include "model/config.h"
#include "model/model_parts.h"
#include "model/pack_weights.h"
#include "store/json.h"
#include "store/mapped_file.h"
#include "store/message.h"
#include "text/tokenizer_loading.h"

namespace mkv {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kGgufMagic = "GGUF";
constexpr size_t kMaxConfigBytes = size_t{1} << 20;

Error not_a_model(const fs::path& path, std::string_view found) {
  return make_error(ErrorCode::unsupported,
                    concat(path.string(), ": found ", found,
                           ", expected a GGUF file or a folder with a config.json"));
}

// What reading a file left behind goes back to the system.
void trim_heap() {
#if defined(__GLIBC__)
  malloc_trim(0);
#endif
}

Result<void> check_magic(const fs::path& path) {
  MKV_ASSIGN(const MappedFile file, MappedFile::open(path));
  const std::string_view text(reinterpret_cast<const char*>(file.bytes().data()),
                              file.bytes().size());
  if (text.starts_with(kGgufMagic)) return {};
  if (text.empty()) return not_a_model(path, "an empty file");
  return not_a_model(path, concat("a file that begins with \"",
                                  printable(text.substr(0, kGgufMagic.size())), "\""));
}

}  // namespace

Result<Model> Model::load(const fs::path& path) {
  std::error_code ignored;
  const bool folder = fs::is_directory(path, ignored);
  auto parts = folder ? load_folder(path) : load_gguf(path);
  if (!parts) return std::move(parts).error();
  trim_heap();
  return Model(std::move(parts).value());
}

Result<std::unique_ptr<Model::Parts>> Model::load_gguf(const fs::path& path) {
  MKV_TRY(check_magic(path));
  MKV_ASSIGN(GgufFile file, GgufFile::open(path));
  auto parts = std::make_unique<Parts>(std::move(file));
  const GgufFile& gguf = std::get<GgufFile>(parts->file);
  MKV_ASSIGN(ModelDescription description, describe_gguf(gguf));
  MKV_ASSIGN(TokenizerData tokenizer, tokenizer_data_from_gguf(gguf));
  MKV_TRY(parts->assemble(std::move(description), kGgufNames, std::move(tokenizer), path));
  drop_pages(gguf.bytes());  // the metadata; what is still needed comes back
  return parts;
}

Result<std::unique_ptr<Model::Parts>> Model::load_folder(const fs::path& path) {
  const fs::path config_path = path / "config.json";
  std::error_code ignored;
  if (!fs::exists(config_path, ignored)) return not_a_model(path, "a folder without a config.json");
  MKV_ASSIGN(const Json json, read_json_file(config_path, kMaxConfigBytes));
  auto description = describe_hf(json);
  if (!description) return in_context(config_path.string(), std::move(description).error());
  MKV_ASSIGN(SafetensorsFolder file, SafetensorsFolder::open(path));
  auto parts = std::make_unique<Parts>(std::move(file));
  MKV_ASSIGN(TokenizerData tokenizer, tokenizer_data_from_hf(path));
  const TensorNames& names = description->post_norms ? kHuggingFaceGemmaNames : kHuggingFaceNames;
  MKV_TRY(parts->assemble(std::move(*description), names, std::move(tokenizer), path));
  return parts;
}

Result<void> Model::Parts::assemble(ModelDescription description, const TensorNames& names,
                                    TokenizerData data, const fs::path& path) {
  MKV_ASSIGN(weights, load_weights(description, names, tensors()));
  packed = pack_weights(weights, drop_pages);
  config = std::move(description.config);
  if (config.name.empty()) config.name = path.filename().string();
  interleaved_qk = description.interleaved_qk;
  if (!data.chat_template.empty()) chat_template = data.chat_template;
  auto made = make_tokenizer(std::move(data));
  if (!made) return in_context(path.string(), std::move(made).error());
  tokenizer = std::move(*made);
  return {};
}

}  // namespace mkv
