#include "store/json.h"

#include <cmath>

#include "store/mapped_file.h"
#include "store/message.h"

namespace mkv {
namespace {

constexpr size_t kMaxDepth = 64;
constexpr double kMaxSize = 0x1p53;  // beyond it doubles skip integers, and so do many JSON writers

// Checked before parsing, so that neither the parser nor whoever walks its result has to care.
Result<void> check_depth(std::string_view text, std::string_view what) {
  size_t depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      if (++depth > kMaxDepth) {
        return make_error(ErrorCode::corrupt, concat(what, ": JSON nested deeper than ", kMaxDepth,
                                                     " levels at byte ", i));
      }
    } else if ((c == ']' || c == '}') && depth > 0) {
      --depth;
    }
  }
  return {};
}

// nlohmann's text without its "[json.exception.parse_error.101] ".
std::string reason(const Json::exception& exception) {
  const std::string_view text = exception.what();
  const size_t bracket = text.find("] ");
  return printable(bracket == text.npos ? text : text.substr(bracket + 2), 240);
}

Error key_error(std::string_view key, std::string message) {
  return make_error(ErrorCode::corrupt, concat("key ", printable(key), ": ", message));
}

Error type_error(const Json& value, std::string_view expected) {
  std::string found = value.type_name();
  if (value.is_number()) found = value.dump();
  return make_error(ErrorCode::corrupt, concat("expected ", expected, ", found ", found));
}

Result<double> as_double(const Json& value) {
  if (!value.is_number()) return type_error(value, "a number");
  return value.get<double>();
}

Result<bool> as_bool(const Json& value) {
  if (!value.is_boolean()) return type_error(value, "true or false");
  return value.get<bool>();
}

Result<std::string> as_string(const Json& value) {
  if (!value.is_string()) return type_error(value, "a string");
  return value.get<std::string>();
}

Result<const Json*> as_object(const Json& value) {
  if (!value.is_object()) return type_error(value, "an object");
  return &value;
}

Result<const Json*> as_array(const Json& value) {
  if (!value.is_array()) return type_error(value, "an array");
  return &value;
}

Result<std::vector<size_t>> as_sizes(const Json& value) {
  if (!value.is_array()) return type_error(value, "an array");
  std::vector<size_t> sizes;
  for (const Json& element : value) {
    MKV_ASSIGN(const size_t size, as_size(element));
    sizes.push_back(size);
  }
  return sizes;
}

const Json* find_value(const Json& object, std::string_view key) {
  const auto found = object.find(key);  // end() as well if it is no object
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

template <class T>
Result<T> get(const Json& object, std::string_view key, Result<T> (*convert)(const Json&)) {
  MKV_ASSIGN(const Json* value, get_value(object, key));
  auto converted = convert(*value);
  if (!converted) return key_error(key, converted.error().message);
  return converted;
}

template <class T>
Result<T> get_or(const Json& object, std::string_view key, Result<T> (*convert)(const Json&),
                 T fallback) {
  if (find_value(object, key) == nullptr) return fallback;
  return get(object, key, convert);
}

}  // namespace

Result<Json> parse_json(std::string_view text, std::string_view what) {
  MKV_TRY(check_depth(text, what));
  try {
    return Json::parse(text.begin(), text.end());
  } catch (const Json::exception& exception) {
    return make_error(ErrorCode::corrupt, concat(what, ": ", reason(exception)));
  }
}

Result<Json> read_json_file(const std::filesystem::path& path, size_t max_bytes) {
  MKV_ASSIGN(const MappedFile file, MappedFile::open(path));
  const auto bytes = file.bytes();
  if (bytes.size() > max_bytes) {
    return make_error(ErrorCode::capacity, concat(path.string(), ": expected at most ", max_bytes,
                                                  " bytes, found ", bytes.size()));
  }
  return parse_json({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path.string());
}

Result<std::string> dump_json(const Json& value, int indent) {
  try {
    return value.dump(indent);
  } catch (const Json::exception& exception) {
    return make_error(ErrorCode::invalid_argument, concat("JSON: ", reason(exception)));
  }
}

Result<size_t> as_size(const Json& value) {
  constexpr std::string_view kExpected = "a whole number from 0 to 2^53";
  if (value.is_number_unsigned()) {
    const uint64_t number = value.get<uint64_t>();
    if (number > static_cast<uint64_t>(kMaxSize)) return type_error(value, kExpected);
    return static_cast<size_t>(number);
  }
  if (!value.is_number()) return type_error(value, kExpected);
  const double number = value.get<double>();
  if (!(number >= 0 && number <= kMaxSize && number == std::floor(number))) {
    return type_error(value, kExpected);
  }
  return static_cast<size_t>(number);
}

Result<const Json*> get_value(const Json& object, std::string_view key) {
  if (!object.is_object()) return key_error(key, type_error(object, "an object").message);
  const Json* value = find_value(object, key);
  if (value == nullptr) {
    return make_error(ErrorCode::not_found, concat("key ", printable(key), ": not there, or null"));
  }
  return value;
}

Result<const Json*> get_object(const Json& object, std::string_view key) {
  return get(object, key, as_object);
}
Result<const Json*> get_array(const Json& object, std::string_view key) {
  return get(object, key, as_array);
}
Result<size_t> get_size(const Json& object, std::string_view key) {
  return get(object, key, as_size);
}
Result<double> get_double(const Json& object, std::string_view key) {
  return get(object, key, as_double);
}
Result<bool> get_bool(const Json& object, std::string_view key) {
  return get(object, key, as_bool);
}
Result<std::string> get_string(const Json& object, std::string_view key) {
  return get(object, key, as_string);
}
Result<std::vector<size_t>> get_sizes(const Json& object, std::string_view key) {
  return get(object, key, as_sizes);
}

Result<size_t> get_size_or(const Json& object, std::string_view key, size_t fallback) {
  return get_or(object, key, as_size, fallback);
}
Result<double> get_double_or(const Json& object, std::string_view key, double fallback) {
  return get_or(object, key, as_double, fallback);
}
Result<bool> get_bool_or(const Json& object, std::string_view key, bool fallback) {
  return get_or(object, key, as_bool, fallback);
}
Result<std::string> get_string_or(const Json& object, std::string_view key, std::string fallback) {
  return get_or(object, key, as_string, std::move(fallback));
}

}  // namespace mkv
