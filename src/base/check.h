// MKV_CHECK: what only a bug of ours can cause. Outside input never reaches one: it gets an Error.
#pragma once

namespace mkv {
[[noreturn]] void check_failed(const char* condition, const char* file, int line);
}  // namespace mkv

#define MKV_CHECK(condition) \
  ((condition) ? static_cast<void>(0) : ::mkv::check_failed(#condition, __FILE__, __LINE__))
