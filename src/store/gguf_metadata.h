// The key-value part of a GGUF file. Values stay in the file's bytes; lookups convert them.
// Immutable, safe from many threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"
#include "store/byte_reader.h"
#include "store/message.h"

namespace mkv {

class GgufMetadata {
 public:
  // Reads `count` pairs. `source` names the file in the errors of lookups.
  static Result<GgufMetadata> parse(ByteReader& reader, uint64_t count, std::string source);

  // T is one of
  //   uint64_t          any integer that is not negative
  //   double            any number
  //   bool
  //   std::string_view  into the file's bytes; not promised to be UTF-8
  //   std::vector of std::string_view, of int32_t (any integers that fit) or of float.
  // Another type of value is a corrupt error. find: nothing if the key is not there; get: a
  // not_found error.
  template <class T>
  Result<std::optional<T>> find(std::string_view key) const;
  template <class T>
  Result<T> get(std::string_view key) const {
    MKV_ASSIGN(std::optional<T> value, find<T>(key));
    if (!value) {
      return make_error(ErrorCode::not_found,
                        concat(source_, ": key ", printable(key), ": not there"));
    }
    return *std::move(value);
  }
  template <class T>
  Result<T> get_or(std::string_view key, T fallback) const {
    MKV_ASSIGN(std::optional<T> value, find<T>(key));
    return value ? *std::move(value) : std::move(fallback);
  }

  bool contains(std::string_view key) const { return values_.count(key) != 0; }
  // True for arrays; false for scalars and absent keys (some keys may be either).
  bool is_array(std::string_view key) const;

  const std::string& source() const { return source_; }

  struct Value {
    uint32_t type = 0;  // of the value, or of the elements if it is an array
    bool array = false;
    uint64_t count = 1;
    std::span<const std::byte> bytes;  // all elements, one after the other
  };
  const std::map<std::string_view, Value>& values() const { return values_; }

 private:
  std::string source_;
  std::map<std::string_view, Value> values_;
};

}  // namespace mkv
