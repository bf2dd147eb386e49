#include "store/safetensors.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <optional>
#include <utility>

#include "store/byte_reader.h"
#include "store/json.h"
#include "store/message.h"

namespace mkv {
namespace {

constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the reference reader's limit
constexpr std::string_view kMetadataKey = "__metadata__";

struct ElementType {
  std::string_view name;
  size_t bytes;
};
constexpr ElementType kElementTypes[] = {
    {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E4M3", 1}, {"F8_E5M2", 1},
    {"U16", 2},  {"I16", 2}, {"F16", 2}, {"BF16", 2},    {"U32", 4},
    {"I32", 4},  {"F32", 4}, {"U64", 8}, {"I64", 8},     {"F64", 8},
};

std::optional<DType> dtype_of(std::string_view name) {
  for (const DType type : {DType::f32, DType::f16, DType::bf16}) {
    if (info(type).name == name) return type;
  }
  return std::nullopt;
}

Result<RawTensor> read_tensor(const std::string& name, const Json& entry,
                              std::span<const std::byte> data) {
  RawTensor tensor;
  tensor.name = name;
  MKV_ASSIGN(tensor.dtype, get_string(entry, "dtype"));
  MKV_ASSIGN(tensor.shape, get_sizes(entry, "shape"));
  MKV_ASSIGN(const auto offsets, get_sizes(entry, "data_offsets"));
  if (offsets.size() != 2 || offsets[0] > offsets[1]) {
    return make_error(ErrorCode::corrupt,
                      "key data_offsets: expected [begin, end], found " + shape_text(offsets));
  }
  if (offsets[1] > data.size()) {
    return make_error(ErrorCode::corrupt,
                      concat("expected ", offsets[1], " bytes of data, found ", data.size()));
  }
  tensor.bytes = data.subspan(offsets[0], offsets[1] - offsets[0]);
  const size_t element_bytes = safetensors_element_bytes(tensor.dtype);
  MKV_ASSIGN(const size_t elements, count_elements(tensor.shape));
  if (element_bytes != 0 && elements * element_bytes != tensor.bytes.size()) {
    return make_error(ErrorCode::corrupt,
                      concat("expected ", elements * element_bytes, " bytes for ", tensor.dtype,
                             " ", shape_text(tensor.shape), ", found ", tensor.bytes.size()));
  }
  return tensor;
}

Result<std::map<std::string, std::string>> read_metadata(const Json& header) {
  std::map<std::string, std::string> metadata;
  const auto found = header.find(kMetadataKey);
  if (found == header.end()) return metadata;
  MKV_ASSIGN(const Json* entries, get_object(header, kMetadataKey));
  for (const auto& item : entries->items()) {
    MKV_ASSIGN(metadata[item.key()], get_string(*entries, item.key()));
  }
  return metadata;
}

Result<std::vector<RawTensor>> read_tensors(const Json& header, std::span<const std::byte> data) {
  std::vector<RawTensor> tensors;
  for (const auto& item : header.items()) {
    if (item.key() == kMetadataKey) continue;
    auto tensor = read_tensor(item.key(), item.value(), data);
    if (!tensor) return in_context("tensor " + printable(item.key()), std::move(tensor).error());
    tensors.push_back(*std::move(tensor));
  }
  return tensors;
}

// Sorted tensors must follow each other from the first byte of the data to the last.
Result<void> check_contiguous(std::span<const RawTensor> tensors, std::span<const std::byte> data) {
  size_t expected = 0;
  for (const RawTensor& tensor : tensors) {
    const auto begin = static_cast<size_t>(tensor.bytes.data() - data.data());
    if (begin != expected) {
      return make_error(ErrorCode::corrupt,
                        concat("tensor ", printable(tensor.name), ": expected to begin at ",
                               expected, ", where the one before ends, found ", begin));
    }
    expected = begin + tensor.bytes.size();
  }
  if (expected != data.size()) {
    return make_error(
        ErrorCode::corrupt,
        concat("expected ", expected, " bytes of data for all tensors, found ", data.size()));
  }
  return {};
}

Result<Json> read_header(ByteReader& reader) {
  MKV_ASSIGN(const uint64_t size, reader.read<uint64_t>("header size"));
  if (size > kMaxHeaderBytes) {
    return make_error(ErrorCode::corrupt, concat("expected a header of at most ", kMaxHeaderBytes,
                                                 " bytes, found ", size));
  }
  MKV_ASSIGN(const auto text, reader.take(size, "header"));
  MKV_ASSIGN(Json header,
             parse_json({reinterpret_cast<const char*>(text.data()), text.size()}, "header"));
  if (!header.is_object()) {
    return make_error(ErrorCode::corrupt,
                      concat("header: expected an object, found ", header.type_name()));
  }
  return header;
}

}  // namespace

size_t safetensors_element_bytes(std::string_view dtype) {
  for (const ElementType& type : kElementTypes) {
    if (type.name == dtype) return type.bytes;
  }
  return 0;
}

void SafetensorsFile::add_tensor(const RawTensor& raw) {
  const auto type = dtype_of(raw.dtype);
  if (!type) {
    tensors_.add_unsupported(raw.name, raw.dtype);  // the names are a JSON object's: all different
    return;
  }
  const std::byte* data = raw.bytes.data();
  // Old writers did not pad the header, and any may put F32 behind an odd number of F16.
  if (reinterpret_cast<uintptr_t>(data) % info(*type).block_bytes != 0) {
    Buffer<std::byte>& copy = aligned_copies_.emplace_back(raw.bytes.size());
    if (!raw.bytes.empty()) std::memcpy(copy.data(), data, raw.bytes.size());
    data = copy.data();
  }
  tensors_.add({raw.name, *type, raw.shape, data, raw.bytes.size()});
}

Result<SafetensorsFile> SafetensorsFile::open(const std::filesystem::path& path) {
  MKV_ASSIGN(MappedFile mapped, MappedFile::open(path));
  MKV_ASSIGN(SafetensorsFile file, parse(mapped.bytes(), path.string()));
  file.file_ = std::move(mapped);
  return file;
}

Result<SafetensorsFile> SafetensorsFile::parse(std::span<const std::byte> bytes, std::string name) {
  SafetensorsFile file;
  file.tensors_ = TensorTable(name);
  const auto parsed = [&]() -> Result<void> {
    ByteReader reader(bytes);
    MKV_ASSIGN(const Json header, read_header(reader));
    const auto data = bytes.subspan(reader.offset());
    MKV_ASSIGN(file.metadata_, read_metadata(header));
    MKV_ASSIGN(file.raw_tensors_, read_tensors(header, data));
    std::sort(file.raw_tensors_.begin(), file.raw_tensors_.end(),
              [](const RawTensor& a, const RawTensor& b) {
                return std::pair(a.bytes.data(), a.bytes.size()) <
                       std::pair(b.bytes.data(), b.bytes.size());
              });
    return check_contiguous(file.raw_tensors_, data);
  }();
  if (!parsed) return in_context(name, parsed.error());
  for (const RawTensor& raw : file.raw_tensors_) file.add_tensor(raw);
  return file;
}

const RawTensor* SafetensorsFile::find_raw(std::string_view name) const {
  const auto found = std::find_if(raw_tensors_.begin(), raw_tensors_.end(),
                                  [&](const RawTensor& tensor) { return tensor.name == name; });
  return found == raw_tensors_.end() ? nullptr : &*found;
}

}  // namespace mkv
