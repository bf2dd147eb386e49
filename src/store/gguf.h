// GgufFile: a GGUF file (versions 2 and 3, little-endian): metadata, and tensors in its mapping.
//
//   "GGUF", u32 version, u64 tensors, u64 keys
//   keys:    string key, u32 type, value          string = u64 length, bytes
//   tensors: string name, u32 dimensions, u64 extents[] (innermost first), u32 type, u64 offset
//   padding to `general.alignment` (32 if absent), then the data that the offsets count from
//
// All of it is checked when it is opened: every tensor lies inside the file, on the alignment and
// on no other. Immutable, safe from many threads; views into it last as long as it does.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"
#include "store/gguf_metadata.h"
#include "store/mapped_file.h"
#include "store/tensor_table.h"

namespace mkv {

class GgufFile {
 public:
  static Result<GgufFile> open(const std::filesystem::path& path);
  // Of bytes that outlive the GgufFile; `name` stands for the path.
  static Result<GgufFile> parse(std::span<const std::byte> bytes, std::string name);

  const GgufMetadata& metadata() const { return metadata_; }
  const TensorTable& tensors() const { return tensors_; }
  Result<const TensorView*> find(std::string_view name) const { return tensors_.find(name); }
  Result<const TensorView*> get(std::string_view name) const { return tensors_.get(name); }
  const std::string& path() const { return tensors_.source(); }
  std::span<const std::byte> bytes() const { return file_.bytes(); }

 private:
  MappedFile file_;
  GgufMetadata metadata_;
  TensorTable tensors_;
};

// ggml's number of a type, as the file has it.
uint32_t gguf_type_id(DType type);

}  // namespace mkv
