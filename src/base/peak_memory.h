// The most memory that this process held at once, as the kernel counts it.
#pragma once

#include <cstddef>

namespace mkv {

// Largest resident size in bytes, since the start or since restart_peak_rss(); 0: unknown.
size_t peak_rss_bytes();
void restart_peak_rss();

// From now on freed buffers of 128 KiB and more go back to the system at once. glibc's own
// threshold grows with the largest buffer that was ever freed, and caches that grow leave holes in
// the heap.
void give_back_freed_buffers();

}  // namespace mkv
