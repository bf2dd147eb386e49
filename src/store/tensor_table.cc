#include "store/tensor_table.h"

#include "store/message.h"

namespace mkv {

Result<const TensorView*> TensorTable::find(std::string_view name) const {
  const auto found = by_name_.find(name);
  if (found == by_name_.end()) return nullptr;
  const Entry& entry = found->second;
  if (entry.unsupported) {
    return make_error(ErrorCode::unsupported,
                      concat(source_, ": tensor ", printable(name), ": type ",
                             printable(*entry.unsupported), " is not supported"));
  }
  return &tensors_[entry.index];
}

Result<const TensorView*> TensorTable::get(std::string_view name) const {
  MKV_ASSIGN(const TensorView* tensor, find(name));
  if (tensor == nullptr) {
    return make_error(ErrorCode::not_found,
                      concat(source_, ": tensor ", printable(name), ": not there"));
  }
  return tensor;
}

bool TensorTable::add(TensorView tensor) {
  if (!by_name_.emplace(tensor.name, Entry{tensors_.size(), std::nullopt}).second) return false;
  tensors_.push_back(std::move(tensor));
  return true;
}

bool TensorTable::add_unsupported(std::string_view name, std::string type_name) {
  return by_name_.emplace(name, Entry{0, std::move(type_name)}).second;
}

Result<size_t> count_elements(const std::vector<size_t>& shape) {
  // Below 2^56 elements, no type's byte count overflows.
  constexpr size_t kMaxElements = size_t{1} << 56;
  size_t count = 1;
  for (const size_t extent : shape) {
    if (__builtin_mul_overflow(count, extent, &count) || count > kMaxElements) {
      return make_error(ErrorCode::corrupt,
                        concat("shape ", shape_text(shape), ": expected at most 2^56 elements"));
    }
  }
  return count;
}

std::string shape_text(const std::vector<size_t>& shape) {
  std::string text = "[";
  for (const size_t extent : shape) {
    if (text.size() > 1) text += ", ";
    text += std::to_string(extent);
  }
  return text + "]";
}

}  // namespace mkv
