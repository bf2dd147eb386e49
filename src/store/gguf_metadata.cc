#include "store/gguf_metadata.h"

#include <iterator>
#include <limits>
#include <type_traits>
#include <utility>
#include <vector>

namespace mkv {
namespace {

using Value = GgufMetadata::Value;
__extension__ using Wide = __int128;  // holds every integer of the format

enum Type : uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64 };

struct TypeInfo {
  std::string_view name;
  size_t bytes;  // the least that one value takes
};
constexpr TypeInfo kTypes[] = {
    {"u8", 1},   {"i8", 1},     {"u16", 2},    {"i16", 2}, {"u32", 4}, {"i32", 4}, {"f32", 4},
    {"bool", 1}, {"string", 8}, {"array", 12}, {"u64", 8}, {"i64", 8}, {"f64", 8},
};

Result<Value> read_value(ByteReader& reader) {
  Value value;
  MKV_ASSIGN(value.type, reader.read<uint32_t>("value type"));
  if (value.type == array) {
    value.array = true;
    MKV_ASSIGN(value.type, reader.read<uint32_t>("element type"));
    MKV_ASSIGN(value.count, reader.read<uint64_t>("element count"));
    if (value.type == array) {
      return make_error(ErrorCode::unsupported, "an array of arrays is not supported");
    }
  }
  if (value.type >= std::size(kTypes)) {
    return make_error(ErrorCode::corrupt, concat("expected a value type below ", std::size(kTypes),
                                                 ", found ", value.type));
  }
  MKV_TRY(reader.check_count(value.count, kTypes[value.type].bytes, "elements"));
  if (value.type != string) {
    MKV_ASSIGN(value.bytes, reader.take(value.count * kTypes[value.type].bytes, "value"));
    return value;
  }
  ByteReader walker = reader;  // finds where the strings end
  for (uint64_t i = 0; i < value.count; ++i) MKV_TRY(walker.read_string("string"));
  MKV_ASSIGN(value.bytes, reader.take(walker.offset() - reader.offset(), "strings"));
  return value;
}

template <class T>
T load(const Value& value, size_t i) {
  T number;
  std::memcpy(&number, value.bytes.data() + i * sizeof(T), sizeof(T));
  return number;
}

std::optional<Wide> load_integer(const Value& value, size_t i) {
  switch (value.type) {
    case u8:
      return load<uint8_t>(value, i);
    case i8:
      return load<int8_t>(value, i);
    case u16:
      return load<uint16_t>(value, i);
    case i16:
      return load<int16_t>(value, i);
    case u32:
      return load<uint32_t>(value, i);
    case i32:
      return load<int32_t>(value, i);
    case u64:
      return load<uint64_t>(value, i);
    case i64:
      return load<int64_t>(value, i);
    default:
      return std::nullopt;
  }
}

std::optional<double> load_number(const Value& value, size_t i) {
  if (value.type == f32) return load<float>(value, i);
  if (value.type == f64) return load<double>(value, i);
  const auto integer = load_integer(value, i);
  if (!integer) return std::nullopt;
  return static_cast<double>(*integer);
}

std::string number_text(Wide number) {
  return number < 0 ? std::to_string(static_cast<int64_t>(number))
                    : std::to_string(static_cast<uint64_t>(number));
}

Error type_error(const Value& value, std::string_view expected) {
  return make_error(ErrorCode::corrupt,
                    concat("expected ", expected, ", found ", value.array ? "an array of " : "",
                           kTypes[value.type].name));
}

template <class T>
Result<T> integer_in_range(const Value& value, size_t i, std::string_view expected) {
  const auto integer = load_integer(value, i);
  if (!integer) return type_error(value, expected);
  constexpr Wide kMin = std::numeric_limits<T>::min(), kMax = std::numeric_limits<T>::max();
  if (*integer < kMin || *integer > kMax) {
    return make_error(ErrorCode::corrupt,
                      concat("expected a number from ", number_text(kMin), " to ",
                             number_text(kMax), ", found ", number_text(*integer)));
  }
  return static_cast<T>(*integer);
}

Result<void> convert(const Value& value, uint64_t& out) {
  if (value.array) return type_error(value, "an integer");
  MKV_ASSIGN(out, integer_in_range<uint64_t>(value, 0, "an integer"));
  return {};
}

Result<void> convert(const Value& value, double& out) {
  const auto number = load_number(value, 0);
  if (value.array || !number) return type_error(value, "a number");
  out = *number;
  return {};
}

Result<void> convert(const Value& value, bool& out) {
  if (value.array || value.type != boolean) return type_error(value, "a bool");
  const auto byte = load<uint8_t>(value, 0);
  if (byte > 1) return make_error(ErrorCode::corrupt, concat("expected 0 or 1, found ", byte));
  out = byte == 1;
  return {};
}

Result<void> convert(const Value& value, std::string_view& out) {
  if (value.array || value.type != string) return type_error(value, "a string");
  MKV_ASSIGN(out, ByteReader(value.bytes).read_string("string"));
  return {};
}

Result<void> convert(const Value& value, std::vector<std::string_view>& out) {
  if (!value.array || value.type != string) return type_error(value, "an array of strings");
  ByteReader reader(value.bytes);
  out.reserve(value.count);
  for (uint64_t i = 0; i < value.count; ++i) {
    MKV_ASSIGN(const std::string_view element, reader.read_string("string"));
    out.push_back(element);
  }
  return {};
}

Result<void> convert(const Value& value, std::vector<int32_t>& out) {
  constexpr std::string_view kExpected = "an array of integers";
  if (!value.array || value.type == string) return type_error(value, kExpected);
  out.reserve(value.count);
  for (uint64_t i = 0; i < value.count; ++i) {
    MKV_ASSIGN(const int32_t element, integer_in_range<int32_t>(value, i, kExpected));
    out.push_back(element);
  }
  return {};
}

Result<void> convert(const Value& value, std::vector<float>& out) {
  if (!value.array || value.type != f32) return type_error(value, "an array of f32");
  out.resize(value.count);
  if (!out.empty()) std::memcpy(out.data(), value.bytes.data(), value.bytes.size());
  return {};
}

}  // namespace

Result<GgufMetadata> GgufMetadata::parse(ByteReader& reader, uint64_t count, std::string source) {
  // A key's length, a type and a value of one byte.
  MKV_TRY(reader.check_count(count, 8 + 4 + 1, "keys"));
  GgufMetadata metadata;
  metadata.source_ = std::move(source);
  for (uint64_t i = 0; i < count; ++i) {
    MKV_ASSIGN(const std::string_view key, reader.read_string("key"));
    auto value = read_value(reader);
    if (!value) {
      return in_context(concat("key ", printable(key)), std::move(value).error());
    }
    if (!metadata.values_.emplace(key, *value).second) {
      return make_error(ErrorCode::corrupt,
                        concat("key ", printable(key), ": expected once, found twice"));
    }
  }
  return metadata;
}

bool GgufMetadata::is_array(std::string_view key) const {
  const auto found = values_.find(key);
  return found != values_.end() && found->second.array;
}

template <class T>
Result<std::optional<T>> GgufMetadata::find(std::string_view key) const {
  const auto found = values_.find(key);
  if (found == values_.end()) return std::optional<T>();
  T value{};
  if (auto converted = convert(found->second, value); !converted) {
    return in_context(concat(source_, ": key ", printable(key)), std::move(converted).error());
  }
  return std::optional<T>(std::move(value));
}

template Result<std::optional<uint64_t>> GgufMetadata::find(std::string_view) const;
template Result<std::optional<double>> GgufMetadata::find(std::string_view) const;
template Result<std::optional<bool>> GgufMetadata::find(std::string_view) const;
template Result<std::optional<std::string_view>> GgufMetadata::find(std::string_view) const;
template Result<std::optional<std::vector<std::string_view>>> GgufMetadata::find(
    std::string_view) const;
template Result<std::optional<std::vector<int32_t>>> GgufMetadata::find(std::string_view) const;
template Result<std::optional<std::vector<float>>> GgufMetadata::find(std::string_view) const;

}  // namespace mkv
