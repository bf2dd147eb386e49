#include "nest/flash_kernels.h"

#include "ops/instruction_set.h"

namespace mkv::flash {

const Kernels* kernels(size_t head_dim) {
  if (head_dim % 64 != 0 || !has_vnni()) return nullptr;
  if (has_amx() && amx_kernels() != nullptr) return amx_kernels();
  return avx512_kernels();
}

}  // namespace mkv::flash
