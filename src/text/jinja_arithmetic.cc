// Operators and slices.
#include <algorithm>
#include <cmath>
#include <limits>

#include "text/jinja_builtins.h"
#include "text/jinja_text.h"
#include "text/utf8.h"

namespace mkv::jinja {
namespace {

Error type_error(std::string_view op, const Value& a, const Value& b) {
  const auto describe = [](const Value& v) {
    std::string text(type_name(v));
    if (v.is_undefined()) text += " (" + std::string(v.as<Undefined>().name) + ")";
    return text;
  };
  // Python formats texts with %.
  const bool formats = op == "%" && a.is_string();
  return make_error(formats ? ErrorCode::unsupported : ErrorCode::invalid_argument,
                    "\"" + std::string(op) + "\" of " + describe(a) + " and " + describe(b) +
                        " is not " + (formats ? "supported" : "possible"));
}

Error overflow(std::string_view op) {
  return make_error(ErrorCode::capacity, "\"" + std::string(op) + "\" leaves the 64-bit integers");
}

double as_double(const Value& value) {
  if (value.is<bool>()) return value.as<bool>() ? 1 : 0;
  if (value.is<int64_t>()) return static_cast<double>(value.as<int64_t>());
  return value.as<double>();
}

int64_t as_integer(const Value& value) {
  if (value.is<bool>()) return value.as<bool>() ? 1 : 0;
  return value.as<int64_t>();
}

Result<Value> power(int64_t base, int64_t exponent) {
  if (exponent < 0) {
    return Value(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  }
  int64_t result = 1;
  for (; exponent > 0; exponent /= 2) {
    if (exponent % 2 != 0 && __builtin_mul_overflow(result, base, &result)) return overflow("**");
    if (exponent > 1 && __builtin_mul_overflow(base, base, &base)) return overflow("**");
  }
  return Value(result);
}

Result<Value> of_integers(std::string_view op, int64_t a, int64_t b) {
  int64_t result = 0;
  bool overflows = false;
  if (op == "+") {
    overflows = __builtin_add_overflow(a, b, &result);
  } else if (op == "-") {
    overflows = __builtin_sub_overflow(a, b, &result);
  } else if (op == "*") {
    overflows = __builtin_mul_overflow(a, b, &result);
  } else if (op == "**") {
    return power(a, b);
  } else if (b == 0) {
    return failure("division by zero");
  } else if (op == "/") {
    return Value(static_cast<double>(a) / static_cast<double>(b));
  } else if (b == -1) {  // the one division that can overflow
    overflows = op == "//" && __builtin_sub_overflow(int64_t{0}, a, &result);
  } else {
    const int64_t remainder = a % b;
    const bool adjusts = remainder != 0 && (remainder < 0) != (b < 0);  // Python rounds down
    result = op == "//" ? a / b - (adjusts ? 1 : 0) : remainder + (adjusts ? b : 0);
  }
  if (overflows) return overflow(op);
  return Value(result);
}

Result<Value> of_doubles(std::string_view op, double a, double b) {
  if (op == "+") return Value(a + b);
  if (op == "-") return Value(a - b);
  if (op == "*") return Value(a * b);
  if (op == "**") return Value(std::pow(a, b));
  if (b == 0) return failure("division by zero");
  if (op == "/") return Value(a / b);
  if (op == "//") return Value(std::floor(a / b));
  const double remainder = std::fmod(a, b);
  return Value(remainder != 0 && (remainder < 0) != (b < 0) ? remainder + b : remainder);
}

// "ab" * 3, [0] * 3
Result<Value> repeat(const Value& value, int64_t times, Heap& heap) {
  const size_t count = times > 0 ? static_cast<size_t>(times) : 0;
  const size_t size = value.is_string() ? value.string().size()
                                        : value.as<const List*>()->items.size() * sizeof(Value);
  if (size != 0 && (count > (size_t{1} << 40) / size || !heap.has_room(count * size))) {
    return make_error(ErrorCode::capacity, "\"*\" gives a value of " + std::to_string(count) +
                                               " times " + std::to_string(size) + " bytes");
  }
  if (value.is_string()) {
    std::string out;
    for (size_t i = 0; size != 0 && i < count; ++i) out += value.string();
    return heap.string(std::move(out));
  }
  const List& list = *value.as<const List*>();
  std::vector<Value> items;
  for (size_t i = 0; size != 0 && i < count; ++i) {
    items.insert(items.end(), list.items.begin(), list.items.end());
  }
  return heap.list(std::move(items), list.is_tuple);
}

Result<Value> concatenate(std::string_view a, std::string_view b, Heap& heap) {
  if (!heap.has_room(a.size() + b.size())) return failure(heap.describe());
  return heap.string(std::string(a) + std::string(b));
}

// The indices that begin:end:step chooses of `size` items, as Python's slice.indices().
struct Range {
  int64_t begin, end, step;
};
Result<Range> range_of(const Value& begin, const Value& end, const Value& step, int64_t size) {
  for (const Value* bound : {&begin, &end, &step}) {
    if (!bound->is<None>() && !bound->is<int64_t>() && !bound->is<bool>()) {
      return failure("a slice needs ints, found " + std::string(type_name(*bound)));
    }
  }
  const int64_t by = step.is<None>() ? 1 : as_integer(step);
  if (by == 0) return failure("a slice with a step of 0");
  const int64_t low = by > 0 ? 0 : -1, high = by > 0 ? size : size - 1;
  const auto bound = [&](const Value& value, int64_t absent) {
    if (value.is<None>()) return absent;
    int64_t index = as_integer(value);
    if (index < 0) index = std::max(index, -size - 1) + size;
    return std::clamp(index, low, std::max(low, high));
  };
  return Range{bound(begin, by > 0 ? low : high), bound(end, by > 0 ? high : low), by};
}

}  // namespace

Result<Value> calculate(std::string_view op, const Value& a, const Value& b, Heap& heap) {
  if (op == "~") {
    MKV_ASSIGN(const std::string_view left, text_of(a, heap));
    MKV_ASSIGN(const std::string_view right, text_of(b, heap));
    return concatenate(left, right, heap);
  }
  if (a.is_number() && b.is_number()) {
    if (!a.is<double>() && !b.is<double>()) return of_integers(op, as_integer(a), as_integer(b));
    return of_doubles(op, as_double(a), as_double(b));
  }
  const auto repeats = [](const Value& value, const Value& times) {
    return (value.is_string() || value.is<const List*>()) &&
           (times.is<int64_t>() || times.is<bool>());
  };
  if (op == "*" && repeats(a, b)) return repeat(a, as_integer(b), heap);
  if (op == "*" && repeats(b, a)) return repeat(b, as_integer(a), heap);
  if (op == "+" && a.is_string() && b.is_string()) return concatenate(a.string(), b.string(), heap);
  if (op == "+" && a.is<const List*>() && b.is<const List*>() &&
      a.as<const List*>()->is_tuple == b.as<const List*>()->is_tuple) {
    std::vector<Value> items = a.as<const List*>()->items;
    const std::vector<Value>& more = b.as<const List*>()->items;
    items.insert(items.end(), more.begin(), more.end());
    return heap.list(std::move(items), a.as<const List*>()->is_tuple);
  }
  return type_error(op, a, b);
}

Result<Value> negate(const Value& value) {
  if (value.is<double>()) return Value(-value.as<double>());
  if (!value.is_number()) return type_error("-", Value(int64_t{0}), value);
  return of_integers("-", 0, as_integer(value));
}

Result<Value> slice(const Value& value, const Value& begin, const Value& end, const Value& step,
                    Heap& heap) {
  if (!value.is_string() && !value.is<const List*>()) {
    return failure("a value of type " + std::string(type_name(value)) + " cannot be sliced");
  }
  const bool is_text = value.is_string();
  if (is_text) heap.work(value.string().size());
  const size_t size = is_text ? text_length(value.string()) : value.as<const List*>()->items.size();
  MKV_ASSIGN(const Range range, range_of(begin, end, step, static_cast<int64_t>(size)));
  if (is_text && range.step == 1) {  // a part of the text itself
    const size_t first = byte_of(value.string(), static_cast<size_t>(range.begin));
    const size_t last = byte_of(value.string(), static_cast<size_t>(range.end));
    return Value(value.string().substr(first, last > first ? last - first : 0));
  }
  MKV_ASSIGN(const std::vector<Value> items, iterate(value, heap));
  std::vector<Value> chosen;
  for (int64_t i = range.begin; range.step > 0 ? i < range.end : i > range.end;) {
    chosen.push_back(items[static_cast<size_t>(i)]);
    if (__builtin_add_overflow(i, range.step, &i)) break;
  }
  if (!is_text) return heap.list(std::move(chosen), value.as<const List*>()->is_tuple);
  std::string out;
  for (const Value& item : chosen) out += item.string();
  return heap.string(std::move(out));
}

}  // namespace mkv::jinja
