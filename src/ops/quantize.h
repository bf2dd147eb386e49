// Rows of weights in the types that a fine-tuned model is written in.
#pragma once

#include <cstddef>
#include <span>

#include "base/dtype.h"

namespace mkv {

// Whether quantize_row knows the type: F32, F16, BF16 and Q8_0.
bool can_quantize(DType type);

// x[cols] as one row of `type`, rounded to nearest; out[row_bytes(type, cols)]. Q8_0 as ggml has
// it: blocks of 32 with the scale max|x| / 127. cols is a multiple of the type's block.
void quantize_row(std::span<const float> x, DType type, std::span<std::byte> out);

}  // namespace mkv
