#include "base/peak_memory.h"

#if defined(__linux__)
#include <malloc.h>
#endif

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

void give_back_freed_buffers() {
#if defined(__GLIBC__)
  mallopt(M_MMAP_THRESHOLD, 128 << 10);
#endif
}

}  // namespace mkv
