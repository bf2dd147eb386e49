// Wall-clock time.
#pragma once

#include <chrono>

namespace mkv {

class Stopwatch {
 public:
  // Since it was made, or since the last lap().
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }
  // The same, and starts anew.
  double lap() {
    const double passed = seconds();
    start_ = std::chrono::steady_clock::now();
    return passed;
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace mkv
