// Text on its way out: holds back what may be the beginning of a stop string.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace mkv {

// One for one answer; not thread-safe.
class StopStrings {
 public:
  explicit StopStrings(std::vector<std::string> stops);

  // Takes more text and gives back what can no longer be part of a stop string. After a stop
  // string, found() is true, the text ends in front of it, and nothing more comes.
  std::string push(std::string_view text);
  std::string finish();  // what was held back
  bool found() const { return found_; }

 private:
  std::vector<std::string> stops_;
  std::string held_;
  bool found_ = false;
};

}  // namespace mkv
