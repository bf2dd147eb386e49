#include "ops/instruction_set.h"

#include <dnnl.h>

#include <atomic>
#include <cstdint>
#include <string>

#include "hwy/targets.h"

namespace mkv {
namespace {

struct Set {
  std::string_view name;
  int64_t target;  // of Highway: a lower bit is a better target
  int dnnl_isa;    // the most that oneDNN may use beside it
  bool vnni = false;
};

constexpr Set kSets[] = {
    {"avx512_vnni", HWY_AVX3, dnnl_cpu_isa_all, true},
    {"avx512", HWY_AVX3, dnnl_cpu_isa_avx512_core},
    {"avx2_vnni", HWY_AVX2, dnnl_cpu_isa_avx2, true},
    {"avx2", HWY_AVX2, dnnl_cpu_isa_avx2},
    {"sse4", HWY_SSE4, dnnl_cpu_isa_sse41},
    {"ssse3", HWY_SSSE3, dnnl_cpu_isa_sse41},
    {"neon", HWY_NEON, dnnl_cpu_isa_all},
    {"scalar", HWY_EMU128, dnnl_cpu_isa_sse41},
    {"scalar", HWY_SCALAR, dnnl_cpu_isa_sse41},
};

// Whether the machine has the integer dot products of a target.
bool machine_has_vnni(int64_t target) {
#if HWY_ARCH_X86
  __builtin_cpu_init();
  if (target == HWY_AVX3) return __builtin_cpu_supports("avx512vnni") != 0;
  if (target == HWY_AVX2) return __builtin_cpu_supports("avxvnni") != 0;
#endif
  return false;
}

bool runs(const Set& set, int64_t targets) {
  return (set.target & targets) != 0 && (!set.vnni || machine_has_vnni(set.target));
}

// What the build has and the machine runs. Only the chosen target is ever changed, not this.
int64_t machine_targets() { return hwy::SupportedTargets() & HWY_TARGETS; }

// The target whose VNNI may be used, if any: that of the best set, if it has VNNI.
int64_t best_vnni_target() {
  for (const Set& set : kSets) {
    if (runs(set, machine_targets())) return set.vnni ? set.target : 0;
  }
  return 0;
}

// Beside Highway's choice of a target, which knows no VNNI.
std::atomic<int64_t> vnni_target{best_vnni_target()};

bool vnni_chosen(int64_t target) { return vnni_target.load(std::memory_order_relaxed) == target; }

std::vector<std::string_view> names_of(int64_t targets) {
  std::vector<std::string_view> names;
  for (const Set& set : kSets) {
    if (runs(set, targets)) names.push_back(set.name);
  }
  return names;
}

}  // namespace

std::vector<std::string_view> instruction_sets() { return names_of(machine_targets()); }

std::string_view instruction_set() {
  if (hwy::GetChosenTarget().IsInitialized()) {
    const size_t chosen = hwy::GetChosenTarget().GetIndex();
    for (const Set& set : kSets) {
      const bool scalar = (set.target & (HWY_SCALAR | HWY_EMU128)) != 0;
      const int64_t bit =
          scalar ? HWY_CHOSEN_TARGET_MASK_SCALAR : HWY_CHOSEN_TARGET_SHIFT(set.target);
      if (bit == int64_t{1} << chosen && set.vnni == vnni_chosen(set.target)) {
        return set.name;
      }
    }
  }
  return instruction_sets().front();
}

Result<void> set_instruction_set(std::string_view name) {
  const int64_t machine = machine_targets();
  if (name == "auto") {
    hwy::GetChosenTarget().Update(machine);
    vnni_target = best_vnni_target();
    return {};
  }
  for (const Set& set : kSets) {
    if (set.name == name && runs(set, machine)) {
      vnni_target = set.vnni ? set.target : 0;
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

bool has_vnni() { return vnni_chosen(HWY_AVX3); }

bool has_avx2_vnni() { return vnni_chosen(HWY_AVX2); }

}  // namespace mkv
