// The two kernels over stored weights; matmul.cc splits the work between them and gemm().
#pragma once

#include <cstddef>
#include <span>

#include "base/view.h"
#include "ops/weight.h"

namespace mkv {

// out [count x w.cols] = rows first ... first+count-1, as float32.
void dequantize_rows(const Weight& w, size_t first, View<float> out);

// y[t][r] = x[t] . row r of w, for the rows first ... last-1 and all tokens of x. Weights are
// decoded in registers, once for four tokens. What a token gets does not depend on the tokens
// beside it, nor on the range.
void multiply_rows(View<const float> x, const Weight& w, size_t first, size_t last, View<float> y);

}  // namespace mkv
