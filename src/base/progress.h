// Progress of long work, told to whoever asked for it. The library never prints; cli/ draws the
// bar.
#pragma once

#include <cstddef>
#include <functional>
#include <string_view>

namespace mkv {

struct Progress {
  std::string_view stage;  // e.g. "statistics"
  size_t done = 0, total = 0;
  std::string_view detail;  // e.g. "KL 0.0151 at 50 %"; may be empty
};

// An empty sink is allowed: use report().
using ProgressSink = std::function<void(const Progress&)>;

inline void report(const ProgressSink& sink, const Progress& progress) {
  if (sink) sink(progress);
}

}  // namespace mkv
