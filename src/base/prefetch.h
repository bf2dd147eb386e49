// Memory asked for ahead, to be written: a store to a line of another core's waits for it, and what
// follows for the store.
#pragma once

namespace mkv {

// The line at p; nothing is read, and nothing happens where there is no such memory.
inline void prefetch_to_write(const void* p) {
#if defined(__x86_64__)
  // GCC emits it for no target without "prfchw". Where a processor lacks it, it does nothing.
  asm volatile("prefetchw %0" : : "m"(*static_cast<const char*>(p)));
#else
  __builtin_prefetch(p, 1);
#endif
}

}  // namespace mkv
