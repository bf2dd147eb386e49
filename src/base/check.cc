#include "base/check.h"

#include <cstdio>
#include <cstdlib>

namespace mkv {

void check_failed(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "%s:%d: internal error, please report: %s\n", file, line, condition);
  std::abort();
}

}  // namespace mkv
