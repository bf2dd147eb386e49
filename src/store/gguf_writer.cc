#include "store/gguf_writer.h"

#include <vector>

#include "store/atomic_file.h"
#include "store/message.h"

namespace mkv {
namespace {

constexpr uint32_t kVersion = 3, kTypeUint32 = 4, kTypeArray = 9;

class Header {
 public:
  template <class T>
  void number(T value) {
    append(std::as_bytes(std::span(&value, 1)));
  }
  void text(std::string_view value) {
    number(uint64_t{value.size()});
    append(std::as_bytes(std::span(value)));
  }
  void append(std::span<const std::byte> bytes) {
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
  }
  void pad(size_t alignment) {
    bytes_.resize((bytes_.size() + alignment - 1) / alignment * alignment);
  }
  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

void append_metadata(Header& header, const GgufMetadata& metadata,
                     const std::map<std::string, uint32_t>& numbers) {
  for (const auto& [key, value] : metadata.values()) {
    if (numbers.contains(std::string(key))) continue;
    header.text(key);
    if (value.array) {
      header.number(kTypeArray);
      header.number(value.type);
      header.number(value.count);
    } else {
      header.number(value.type);
    }
    header.append(value.bytes);
  }
  for (const auto& [key, value] : numbers) {
    header.text(key);
    header.number(kTypeUint32);
    header.number(value);
  }
}

size_t count_keys(const GgufMetadata& metadata, const std::map<std::string, uint32_t>& numbers) {
  size_t keys = metadata.values().size();
  for (const auto& [key, value] : numbers) keys += metadata.contains(key) ? 0 : 1;
  return keys;
}

Result<void> check(const TensorView& tensor) {
  MKV_ASSIGN(const size_t elements, count_elements(tensor.shape));
  const DTypeInfo& type = info(tensor.type);
  if (tensor.shape.empty() || tensor.shape.back() % type.block_elements != 0) {
    return make_error(ErrorCode::invalid_argument,
                      concat("shape ", shape_text(tensor.shape), ", expected a multiple of ",
                             type.block_elements, " columns for ", type.name));
  }
  if (row_bytes(tensor.type, elements) != tensor.size_bytes) {
    return make_error(
        ErrorCode::invalid_argument,
        concat("expected ", row_bytes(tensor.type, elements), " bytes for ", type.name, " ",
               shape_text(tensor.shape), ", found ", tensor.size_bytes));
  }
  return {};
}

}  // namespace

Result<void> write_gguf(const std::filesystem::path& path, const GgufMetadata& metadata,
                        const std::map<std::string, uint32_t>& numbers,
                        std::span<const TensorView> tensors) {
  MKV_ASSIGN(const size_t alignment, metadata.get_or<uint64_t>("general.alignment", 32));
  const auto aligned = [&](size_t size) { return (size + alignment - 1) / alignment * alignment; };
  Header header;
  header.append(std::as_bytes(std::span("GGUF", 4)));
  header.number(kVersion);
  header.number(uint64_t{tensors.size()});
  header.number(uint64_t{count_keys(metadata, numbers)});
  append_metadata(header, metadata, numbers);
  uint64_t offset = 0;
  for (const TensorView& tensor : tensors) {
    if (auto checked = check(tensor); !checked) {
      return in_context(concat(path.string(), ": tensor ", printable(tensor.name)),
                        std::move(checked).error());
    }
    header.text(tensor.name);
    header.number(static_cast<uint32_t>(tensor.shape.size()));
    for (size_t d = tensor.shape.size(); d-- > 0;) header.number(uint64_t{tensor.shape[d]});
    header.number(gguf_type_id(tensor.type));
    header.number(offset);
    offset += aligned(tensor.size_bytes);
  }
  header.pad(alignment);
  MKV_ASSIGN(AtomicFile file, AtomicFile::create(path));
  MKV_TRY(file.write(header.bytes()));
  const std::vector<std::byte> padding(alignment);
  for (const TensorView& tensor : tensors) {
    MKV_TRY(file.write({tensor.data, tensor.size_bytes}));
    MKV_TRY(file.write(std::span(padding).first(aligned(tensor.size_bytes) - tensor.size_bytes)));
  }
  return file.commit();
}

}  // namespace mkv
