#include "nest/flash_kernels.h"

#include "ops/instruction_set.h"

namespace mkv::flash {

const Kernels* kernels(size_t head_dim) {
  if (head_dim % 64 != 0) return nullptr;
  if (has_amx() && amx_kernels() != nullptr) return amx_kernels();
  if (has_vnni() && avx512_kernels() != nullptr) return avx512_kernels();
  return word_kernels();
}

const Kernels* kernels_of_codes(size_t head_dim) {
  const Kernels* exact = kernels(head_dim);
  return exact == word_kernels() ? byte_kernels() : exact;
}

void finish_rows(const Tile& tile, size_t row, std::span<float> out) {
  const float factor = 1.0f / tile.totals[row];
  const float* from = tile.sums + row * tile.head_dim;
  for (size_t c = 0; c < out.size(); ++c) out[c] = from[c] * factor;
}

}  // namespace mkv::flash
