#include <map>
#include <utility>

#include "store/json.h"
#include "store/message.h"
#include "store/safetensors.h"

namespace mkv {
namespace {

constexpr size_t kMaxIndexBytes = 100'000'000;

// A name from the index must not lead out of the folder.
bool is_plain_name(std::string_view name) {
  return !name.empty() && name != "." && name != ".." &&
         name.find_first_of(std::string_view("/\\\0", 3)) == name.npos;
}

// File name -> names of the tensors in it.
using Shards = std::map<std::string, std::vector<std::string>>;

Result<Shards> read_index(const std::filesystem::path& path) {
  MKV_ASSIGN(const Json index, read_json_file(path, kMaxIndexBytes));
  auto weight_map = get_object(index, "weight_map");
  if (!weight_map) return in_context(path.string(), std::move(weight_map).error());
  Shards shards;
  for (const auto& item : (*weight_map)->items()) {
    const Json& file = item.value();
    if (!file.is_string() || !is_plain_name(file.get_ref<const std::string&>())) {
      const std::string found = file.is_string() ? file.get<std::string>() : file.type_name();
      return make_error(
          ErrorCode::corrupt,
          concat(path.string(), ": tensor ", printable(item.key()),
                 ": expected a file name without a folder, found ", printable(found)));
    }
    shards[file.get<std::string>()].push_back(item.key());
  }
  return shards;
}

// Puts the tensor `name` of `file` into `table`.
Result<void> link_tensor(const SafetensorsFile& file, const std::string& name, TensorTable& table) {
  const auto found = file.find(name);
  if (!found) {
    table.add_unsupported(name, file.find_raw(name)->dtype);
    return {};
  }
  if (*found == nullptr) {
    return make_error(ErrorCode::corrupt, concat(file.path(), ": tensor ", printable(name),
                                                 ": expected from the index, but not there"));
  }
  table.add(**found);
  return {};
}

}  // namespace

Result<SafetensorsFolder> SafetensorsFolder::open(const std::filesystem::path& folder) {
  SafetensorsFolder result;
  result.tensors_ = TensorTable(folder.string());
  const auto single = folder / "model.safetensors";
  std::error_code ignored;
  if (std::filesystem::exists(single, ignored)) {
    MKV_ASSIGN(SafetensorsFile file, SafetensorsFile::open(single));
    for (const RawTensor& raw : file.raw_tensors()) {
      MKV_TRY(link_tensor(file, raw.name, result.tensors_));
    }
    result.files_.push_back(std::move(file));
    return result;
  }
  const auto index = folder / "model.safetensors.index.json";
  if (!std::filesystem::exists(index, ignored)) {
    return make_error(
        ErrorCode::not_found,
        folder.string() + ": neither model.safetensors nor model.safetensors.index.json is there");
  }
  MKV_ASSIGN(const Shards shards, read_index(index));
  for (const auto& [name, tensors] : shards) {
    MKV_ASSIGN(SafetensorsFile file, SafetensorsFile::open(folder / name));
    for (const std::string& tensor : tensors) {
      MKV_TRY(link_tensor(file, tensor, result.tensors_));
    }
    result.files_.push_back(std::move(file));
  }
  return result;
}

}  // namespace mkv
