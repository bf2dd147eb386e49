#include "ops/amx.h"

#include "base/check.h"

#if HWY_ARCH_X86_64 && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace mkv {
namespace {

constexpr unsigned kBf16 = 1u << 22, kTile = 1u << 24, kInt8 = 1u << 25;  // of leaf 7's edx
constexpr long kRequestPermission = 0x1023, kTileData = 18;               // of arch_prctl

bool ask() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  constexpr unsigned kAll = kBf16 | kTile | kInt8;
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0 || (edx & kAll) != kAll) return false;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

}  // namespace

bool machine_has_amx() {
  static const bool has = ask();
  return has;
}

// As assembly, for GCC 12 gives constructors no target of their own.
TileScope::TileScope(const TileConfig& config) { asm volatile("ldtilecfg %0" : : "m"(config)); }
TileScope::~TileScope() { asm volatile("tilerelease"); }

}  // namespace mkv

#else

namespace mkv {
bool machine_has_amx() { return false; }
TileScope::TileScope(const TileConfig&) { MKV_CHECK(false); }
TileScope::~TileScope() { MKV_CHECK(false); }
}  // namespace mkv

#endif
