// safetensors: one file, or a model folder of one or several.
//
//   u64 header bytes, header, data
//   header: JSON {name: {"dtype", "shape", "data_offsets": [begin, end)}, "__metadata__": {..}}
//
// The data is little-endian and row-major, without overlaps and without holes: what the reference
// reader refuses is refused here. Immutable, safe from many threads; views last as long as it does.
#pragma once

#include <cstddef>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/buffer.h"
#include "base/result.h"
#include "store/mapped_file.h"
#include "store/tensor_table.h"

namespace mkv {

// A tensor of any element type, as the file has it. The bytes may lie on any address.
struct RawTensor {
  std::string name;
  std::string dtype;          // "F32", "F16", "BF16", "U8", ...
  std::vector<size_t> shape;  // outermost first; empty for one element
  std::span<const std::byte> bytes;
};

// Bytes of one element, or 0 for a type that the format does not define.
size_t safetensors_element_bytes(std::string_view dtype);

class SafetensorsFile {
 public:
  static Result<SafetensorsFile> open(const std::filesystem::path& path);
  // Of bytes that outlive the SafetensorsFile; `name` stands for the path.
  static Result<SafetensorsFile> parse(std::span<const std::byte> bytes, std::string name);

  // The tensors of F32, F16 and BF16.
  const TensorTable& tensors() const { return tensors_; }
  Result<const TensorView*> find(std::string_view name) const { return tensors_.find(name); }
  Result<const TensorView*> get(std::string_view name) const { return tensors_.get(name); }
  // All tensors, in the order of their data.
  std::span<const RawTensor> raw_tensors() const { return raw_tensors_; }
  const RawTensor* find_raw(std::string_view name) const;  // null: not there
  // `__metadata__`; empty if there is none.
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const std::string& path() const { return tensors_.source(); }

 private:
  void add_tensor(const RawTensor& raw);

  MappedFile file_;
  TensorTable tensors_;
  std::vector<RawTensor> raw_tensors_;
  std::vector<Buffer<std::byte>> aligned_copies_;
  std::map<std::string, std::string> metadata_;
};

class SafetensorsFolder {
 public:
  // `folder`/model.safetensors, or else the files that `folder`/model.safetensors.index.json names.
  static Result<SafetensorsFolder> open(const std::filesystem::path& folder);

  const TensorTable& tensors() const { return tensors_; }
  Result<const TensorView*> find(std::string_view name) const { return tensors_.find(name); }
  Result<const TensorView*> get(std::string_view name) const { return tensors_.get(name); }
  std::span<const SafetensorsFile> files() const { return files_; }

 private:
  std::vector<SafetensorsFile> files_;
  TensorTable tensors_;
};

// Atomic and durable (see AtomicFile); the same input gives the same bytes. Every dtype that
// safetensors_element_bytes knows.
Result<void> write_safetensors(const std::filesystem::path& path,
                               std::span<const RawTensor> tensors,
                               const std::map<std::string, std::string>& metadata = {});

}  // namespace mkv
