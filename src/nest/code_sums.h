// Blocks brought back from codes by adding up, with AVX2 (decision 0027): what the entry of a slab
// adds to keys or values is a row of words, made once for many blocks. Of few slabs that is less
// work than to multiply latents with the basis.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/buffer.h"
#include "base/view.h"
#include "nest/nest.h"

namespace mkv {

struct CodeSums {
  size_t slabs = 0, dims = 0;
  Buffer<int16_t> rows;     // [part of dims][slab][16][dim of the part]
  std::vector<float> unit;  // [dims]: of the rows' words, which no sum leaves
};

// Whether the instruction set in use has the kernels and they pay.
bool has_code_sums(size_t slabs, size_t columns, size_t dims);
// Of the leading slabs of a space; decode [dims x columns], scale [columns].
void make_code_sums(std::span<const CodeSlab> slabs, View<const float> decode,
                    std::span<const float> scale, CodeSums& out);
// out [dims][64] = the tokens of a block whose codes are [slabs][32]. `words` is scratch.
void add_up_codes(const CodeSums& sums, const uint8_t* codes, View<float> out,
                  Buffer<int16_t>& words);

}  // namespace mkv
