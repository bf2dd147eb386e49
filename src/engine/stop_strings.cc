#include "engine/stop_strings.h"

#include <algorithm>
#include <utility>

namespace mkv {
namespace {

// The longest end of `text` that begins `stop` without being all of it.
size_t overlap(std::string_view text, std::string_view stop) {
  for (size_t n = std::min(text.size(), stop.size() - 1); n > 0; --n) {
    if (text.substr(text.size() - n) == stop.substr(0, n)) return n;
  }
  return 0;
}

}  // namespace

StopStrings::StopStrings(std::vector<std::string> stops) : stops_(std::move(stops)) {
  std::erase_if(stops_, [](const std::string& stop) { return stop.empty(); });
}

std::string StopStrings::push(std::string_view text) {
  if (found_) return {};
  held_ += text;
  size_t first = std::string::npos, hold = 0;
  for (const std::string& stop : stops_) {
    first = std::min(first, held_.find(stop));
    hold = std::max(hold, overlap(held_, stop));
  }
  found_ = first != std::string::npos;
  std::string released = held_.substr(0, found_ ? first : held_.size() - hold);
  held_.erase(0, found_ ? held_.size() : released.size());
  return released;
}

std::string StopStrings::finish() { return std::exchange(held_, {}); }

}  // namespace mkv
