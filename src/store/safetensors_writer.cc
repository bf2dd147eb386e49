#include <algorithm>
#include <cstdint>
#include <utility>

#include "store/atomic_file.h"
#include "store/json.h"
#include "store/message.h"
#include "store/safetensors.h"

namespace mkv {
namespace {

constexpr size_t kHeaderAlignment = 8;
constexpr std::string_view kMetadataKey = "__metadata__";

Result<void> check(const RawTensor& tensor) {
  const size_t element_bytes = safetensors_element_bytes(tensor.dtype);
  if (element_bytes == 0) {
    return make_error(ErrorCode::invalid_argument,
                      "type " + printable(tensor.dtype) + " is not one of safetensors");
  }
  MKV_ASSIGN(const size_t elements, count_elements(tensor.shape));
  if (elements * element_bytes != tensor.bytes.size()) {
    return make_error(ErrorCode::invalid_argument,
                      concat("expected ", elements * element_bytes, " bytes for ", tensor.dtype,
                             " ", shape_text(tensor.shape), ", found ", tensor.bytes.size()));
  }
  return {};
}

// Wider elements first, as the reference writer does, so that each lies on its own alignment.
std::vector<const RawTensor*> data_order(std::span<const RawTensor> tensors) {
  std::vector<const RawTensor*> order;
  for (const RawTensor& tensor : tensors) order.push_back(&tensor);
  std::sort(order.begin(), order.end(), [](const RawTensor* a, const RawTensor* b) {
    const size_t bytes_a = safetensors_element_bytes(a->dtype);
    const size_t bytes_b = safetensors_element_bytes(b->dtype);
    return bytes_a != bytes_b ? bytes_a > bytes_b : a->name < b->name;
  });
  return order;
}

Result<std::string> make_header(std::span<const RawTensor* const> order,
                                const std::map<std::string, std::string>& metadata) {
  Json header = Json::object();
  if (!metadata.empty()) header[std::string(kMetadataKey)] = metadata;
  size_t offset = 0;
  for (const RawTensor* tensor : order) {
    if (tensor->name == kMetadataKey || header.contains(tensor->name)) {
      return make_error(ErrorCode::invalid_argument,
                        concat("tensor ", printable(tensor->name),
                               ": the name is taken by another or by the metadata"));
    }
    const size_t end = offset + tensor->bytes.size();
    header[tensor->name] = {{"dtype", tensor->dtype},
                            {"shape", tensor->shape},
                            {"data_offsets", Json::array({offset, end})}};
    offset = end;
  }
  MKV_ASSIGN(std::string text, dump_json(header));
  text.resize((text.size() + kHeaderAlignment - 1) / kHeaderAlignment * kHeaderAlignment, ' ');
  return text;
}

}  // namespace

Result<void> write_safetensors(const std::filesystem::path& path,
                               std::span<const RawTensor> tensors,
                               const std::map<std::string, std::string>& metadata) {
  for (const RawTensor& tensor : tensors) {
    if (auto checked = check(tensor); !checked) {
      return in_context(concat(path.string(), ": tensor ", printable(tensor.name)),
                        std::move(checked).error());
    }
  }
  const auto order = data_order(tensors);
  auto header = make_header(order, metadata);
  if (!header) return in_context(path.string(), std::move(header).error());
  const uint64_t header_bytes = header->size();
  MKV_ASSIGN(AtomicFile file, AtomicFile::create(path));
  MKV_TRY(file.write(std::as_bytes(std::span(&header_bytes, 1))));
  MKV_TRY(file.write(std::as_bytes(std::span(*header))));
  for (const RawTensor* tensor : order) MKV_TRY(file.write(tensor->bytes));
  return file.commit();
}

}  // namespace mkv
