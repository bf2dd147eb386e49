// TensorTable: the tensors of a file or of several, by name. A model is loaded from one of these,
// whatever the format. Immutable once opened, safe from many threads.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "store/tensor.h"

namespace mkv {

class TensorTable {
 public:
  TensorTable() = default;
  explicit TensorTable(std::string source) : source_(std::move(source)) {}  // named in errors

  // Null if there is none of this name. A tensor that is there, but of a type without a DType, is
  // an unsupported error: an optional tensor must not pass for an absent one.
  Result<const TensorView*> find(std::string_view name) const;
  // The same, but not there is a not_found error.
  Result<const TensorView*> get(std::string_view name) const;

  // The tensors that have a DType, in file order.
  size_t size() const { return tensors_.size(); }
  auto begin() const { return tensors_.begin(); }
  auto end() const { return tensors_.end(); }
  // Whether every tensor of the file has a DType.
  bool complete() const { return tensors_.size() == by_name_.size(); }
  const std::string& source() const { return source_; }

  // For readers. False: the name is taken.
  bool add(TensorView tensor);
  bool add_unsupported(std::string_view name, std::string type_name);

 private:
  struct Entry {
    size_t index = 0;                        // into tensors_
    std::optional<std::string> unsupported;  // or else the name of its type
  };
  std::string source_;
  std::vector<TensorView> tensors_;
  std::map<std::string, Entry, std::less<>> by_name_;
};

// Elements of a shape, or an error if their number or their bytes cannot be counted.
Result<size_t> count_elements(const std::vector<size_t>& shape);
// "[2, 3]"
std::string shape_text(const std::vector<size_t>& shape);

}  // namespace mkv
