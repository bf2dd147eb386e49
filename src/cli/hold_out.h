// Examples that training does not see, from all over what there is.
#pragma once

#include <cstddef>
#include <utility>
#include <vector>

namespace mkv::cli {

// Takes `count` elements out, evenly spaced, the last of them first; there must be as many.
template <class T>
std::vector<T> take_evenly(std::vector<T>& all, size_t count) {
  std::vector<T> taken;
  const size_t stride = all.size() / count;
  for (size_t i = count; i-- > 0;) {
    const auto at = all.begin() + static_cast<std::ptrdiff_t>(i * stride);
    taken.push_back(std::move(*at));
    all.erase(at);
  }
  return taken;
}

}  // namespace mkv::cli
