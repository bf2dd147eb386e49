// Result<T>: a value or an Error. Everything that outside input can cause travels in one; the
// library throws nothing and prints nothing. The spelling follows std::expected.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "base/check.h"

namespace mkv {

enum class ErrorCode {
  invalid_argument,  // an option or a request that cannot be met as asked
  not_found,         // a file, tensor or key that is not there
  corrupt,           // outside bytes that contradict themselves or their format
  unsupported,       // well-formed, but not something this program handles
  capacity,          // a limit (context, memory) would be exceeded
  io,                // the operating system refused
};

struct Error {
  ErrorCode code;
  std::string message;  // what, where, and the two numbers that disagree; one line
};

inline Error make_error(ErrorCode code, std::string message) { return {code, std::move(message)}; }

// The same error with "where: " in front, for callers that know the file or the tensor.
inline Error in_context(std::string_view where, Error error) {
  error.message.insert(0, std::string(where) + ": ");
  return error;
}

template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}      // NOLINT: implicit
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}  // NOLINT: implicit

  bool has_value() const { return state_.index() == 0; }
  explicit operator bool() const { return has_value(); }
  T& value() & {
    MKV_CHECK(has_value());
    return *std::get_if<0>(&state_);
  }
  const T& value() const& {
    MKV_CHECK(has_value());
    return *std::get_if<0>(&state_);
  }
  T&& value() && {
    MKV_CHECK(has_value());
    return std::move(*std::get_if<0>(&state_));
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }
  const Error& error() const& {
    MKV_CHECK(!has_value());
    return *std::get_if<1>(&state_);
  }
  Error&& error() && {
    MKV_CHECK(!has_value());
    return std::move(*std::get_if<1>(&state_));
  }

 private:
  std::variant<T, Error> state_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  Result() = default;
  Result(Error error) : error_(std::move(error)), failed_(true) {}  // NOLINT: implicit

  bool has_value() const { return !failed_; }
  explicit operator bool() const { return has_value(); }
  const Error& error() const& {
    MKV_CHECK(failed_);
    return error_;
  }
  Error&& error() && {
    MKV_CHECK(failed_);
    return std::move(error_);
  }

 private:
  Error error_{ErrorCode::invalid_argument, {}};
  bool failed_ = false;
};

}  // namespace mkv

#define MKV_CONCAT_(a, b) a##b
#define MKV_CONCAT(a, b) MKV_CONCAT_(a, b)
// MKV_TRY(expr): returns expr's error from the calling function, if it has one.
#define MKV_TRY(expr)                                              \
  do {                                                             \
    auto mkv_try_result = (expr);                                  \
    if (!mkv_try_result) return std::move(mkv_try_result).error(); \
  } while (false)
// MKV_ASSIGN(auto x, expr): declares or assigns x from expr's value, or returns its error.
#define MKV_ASSIGN(target, expr) MKV_ASSIGN_(MKV_CONCAT(mkv_result_, __LINE__), target, expr)
#define MKV_ASSIGN_(name, target, expr)      \
  auto name = (expr);                        \
  if (!name) return std::move(name).error(); \
  target = std::move(name).value()
