#include "nest/flash_kernels.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "nest/flash_codes.h"
#include "ops/instruction_set.h"

namespace mkv::flash {

const Kernels* kernels(size_t head_dim) {
  if (head_dim % 64 != 0) return nullptr;
  if (has_amx() && amx_kernels() != nullptr) return amx_kernels();
  return wide_word_kernels() != nullptr ? wide_word_kernels() : word_kernels();
}

const CodeKernels* code_kernels(size_t head_dim) {
  const Kernels* exact = kernels(head_dim);
  if (exact == nullptr || exact == amx_kernels() || head_dim > kMostColumns) return nullptr;
  return wide_byte_kernels() != nullptr ? wide_byte_kernels() : byte_kernels();
}

void finish_rows(const Tile& tile, size_t row, std::span<float> out) {
  const float factor = 1.0f / tile.totals[row];
  const float* from = tile.sums + row * tile.head_dim;
  for (size_t c = 0; c < out.size(); ++c) out[c] = from[c] * factor;
}

void order_columns(View<const float> queries, std::span<uint16_t> order) {
  const size_t step = (queries.rows + kMostOrdered - 1) / kMostOrdered;
  std::vector<float> squares(order.size());
  for (size_t r = 0; r < queries.rows; r += step) {
    const std::span<const float> row = queries.row(r);
    for (size_t begin = 0; begin < row.size(); begin += order.size()) {
      for (size_t c = 0; c < order.size(); ++c) squares[c] += row[begin + c] * row[begin + c];
    }
  }
  std::iota(order.begin(), order.end(), uint16_t{0});
  std::ranges::stable_sort(order, std::greater{}, [&](uint16_t c) { return squares[c]; });
}

}  // namespace mkv::flash
