#include "ops/instruction_set.h"

#include <dnnl.h>

#include <atomic>
#include <cstdint>
#include <iterator>
#include <string>

#include "hwy/targets.h"
#include "ops/amx.h"

namespace mkv {
namespace {

// What Highway's targets know nothing of: integer dot products, and beside them products of tiles.
enum class Extra : uint8_t { none, vnni, amx };

struct Set {
  std::string_view name;
  int64_t target;  // of Highway: a lower bit is a better target
  int dnnl_isa;    // the most that oneDNN may use beside it
  Extra extra = Extra::none;
};

constexpr Set kSets[] = {
    {"avx512_amx", HWY_AVX3, dnnl_cpu_isa_all, Extra::amx},
    {"avx512_vnni", HWY_AVX3, dnnl_cpu_isa_avx512_core_bf16, Extra::vnni},
    {"avx512", HWY_AVX3, dnnl_cpu_isa_avx512_core},
    {"avx2_vnni", HWY_AVX2, dnnl_cpu_isa_avx2, Extra::vnni},
    {"avx2", HWY_AVX2, dnnl_cpu_isa_avx2},
    {"sse4", HWY_SSE4, dnnl_cpu_isa_sse41},
    {"ssse3", HWY_SSSE3, dnnl_cpu_isa_sse41},
    {"neon", HWY_NEON, dnnl_cpu_isa_all},
    {"scalar", HWY_EMU128, dnnl_cpu_isa_sse41},
    {"scalar", HWY_SCALAR, dnnl_cpu_isa_sse41},
};

bool machine_has([[maybe_unused]] Extra extra, [[maybe_unused]] int64_t target) {
#if HWY_ARCH_X86
  __builtin_cpu_init();
  if (target == HWY_AVX3) {
    if (extra == Extra::amx && !machine_has_amx()) return false;
    return __builtin_cpu_supports("avx512vnni") != 0;
  }
  if (target == HWY_AVX2) return __builtin_cpu_supports("avxvnni") != 0;
#endif
  return false;
}

bool runs(const Set& set, int64_t targets) {
  return (set.target & targets) != 0 &&
         (set.extra == Extra::none || machine_has(set.extra, set.target));
}

// What the build has and the machine runs. Only the chosen target is ever changed, not this.
int64_t machine_targets() { return hwy::SupportedTargets() & HWY_TARGETS; }

const Set& best_set() {
  for (const Set& set : kSets) {
    if (runs(set, machine_targets())) return set;
  }
  return kSets[std::size(kSets) - 1];
}

// Beside Highway's choice of a target: the set whose extras may be used.
std::atomic<const Set*> chosen_set{&best_set()};

bool chosen(int64_t target, Extra least) {
  const Set& set = *chosen_set.load(std::memory_order_relaxed);
  return set.target == target && set.extra >= least;
}

std::vector<std::string_view> names_of(int64_t targets) {
  std::vector<std::string_view> names;
  for (const Set& set : kSets) {
    if (runs(set, targets)) names.push_back(set.name);
  }
  return names;
}

}  // namespace

std::vector<std::string_view> instruction_sets() { return names_of(machine_targets()); }

std::string_view instruction_set() { return chosen_set.load(std::memory_order_relaxed)->name; }

Result<void> set_instruction_set(std::string_view name) {
  const int64_t machine = machine_targets();
  if (name == "auto") {
    hwy::GetChosenTarget().Update(machine);
    chosen_set = &best_set();
    return {};
  }
  for (const Set& set : kSets) {
    if (set.name == name && runs(set, machine)) {
      chosen_set = &set;
      hwy::GetChosenTarget().Update(machine & ~(set.target - 1));
      // Refused once oneDNN has looked at the processor; its result differs by rounding only.
      (void)dnnl_set_max_cpu_isa(static_cast<dnnl_cpu_isa_t>(set.dnnl_isa));
      return {};
    }
  }
  std::string available = "auto";
  for (const std::string_view other : names_of(machine)) available.append(", ").append(other);
  return make_error(ErrorCode::invalid_argument, "instruction set '" + std::string(name) +
                                                     "': not one of those available (" + available +
                                                     ")");
}

bool has_amx() { return chosen(HWY_AVX3, Extra::amx); }

bool has_vnni() { return chosen(HWY_AVX3, Extra::vnni); }

bool has_avx2_vnni() { return chosen(HWY_AVX2, Extra::vnni); }

bool has_avx2() { return chosen(HWY_AVX2, Extra::none) || chosen(HWY_AVX3, Extra::none); }

}  // namespace mkv
