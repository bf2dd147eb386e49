#include "base/peak_memory.h"

#include <fstream>
#include <string>

namespace mkv {

size_t peak_rss_bytes() {
  std::ifstream status("/proc/self/status");
  size_t kilobytes = 0;
  for (std::string word; status >> word;) {
    if (word == "VmHWM:" && status >> kilobytes) return kilobytes * 1024;
  }
  return 0;
}

// What writing 5 there does: proc(5).
void restart_peak_rss() { std::ofstream("/proc/self/clear_refs") << "5"; }

}  // namespace mkv
