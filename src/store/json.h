// JSON of outside origin. nlohmann's types pass through this header; its exceptions do not.
//
// The getters name the key in their errors; the caller adds the file with in_context().
#pragma once

#include <cstddef>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace mkv {

using Json = nlohmann::json;  // objects are sorted by key; of equal keys the last one counts

// `what` names the text in errors, e.g. a path. At most 64 levels of nesting; UTF-8 only.
Result<Json> parse_json(std::string_view text, std::string_view what);
Result<Json> read_json_file(const std::filesystem::path& path, size_t max_bytes);
// On one line, or indented by `indent` spaces. Text that is not UTF-8 is an invalid_argument.
Result<std::string> dump_json(const Json& value, int indent = -1);

// A whole number in 0 ... 2^53 (4096.0 is one too).
Result<size_t> as_size(const Json& value);

// The value of `key`; not there (or null) is a not_found error.
Result<const Json*> get_value(const Json& object, std::string_view key);
Result<const Json*> get_object(const Json& object, std::string_view key);
Result<const Json*> get_array(const Json& object, std::string_view key);
Result<size_t> get_size(const Json& object, std::string_view key);
Result<double> get_double(const Json& object, std::string_view key);
Result<bool> get_bool(const Json& object, std::string_view key);
Result<std::string> get_string(const Json& object, std::string_view key);
Result<std::vector<size_t>> get_sizes(const Json& object, std::string_view key);

// The same with a value for keys that are absent or null; a wrong type is still an error.
Result<size_t> get_size_or(const Json& object, std::string_view key, size_t fallback);
Result<double> get_double_or(const Json& object, std::string_view key, double fallback);
Result<bool> get_bool_or(const Json& object, std::string_view key, bool fallback);
Result<std::string> get_string_or(const Json& object, std::string_view key, std::string fallback);

}  // namespace mkv
