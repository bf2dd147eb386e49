// The most memory that this process held at once, as the kernel counts it.
#pragma once

#include <cstddef>

namespace mkv {

// Largest resident size in bytes, since the start or since restart_peak_rss(); 0: unknown.
size_t peak_rss_bytes();
void restart_peak_rss();

}  // namespace mkv
