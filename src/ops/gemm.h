// Dense float32 matrix products, single-threaded: callers split the work and call from workers.
#pragma once

#include "base/view.h"

namespace mkv {

enum class Transpose : bool { no, yes };

// c = beta * c + a * op(b). a [m x k]; b [k x n], or [n x k] with Transpose::yes; c [m x n].
// By oneDNN's sgemm, which picks the instruction set itself; deterministic for equal shapes.
void gemm(View<const float> a, View<const float> b, Transpose b_transposed, float beta,
          View<float> c);

// c += a^T * b. a [k x m]; b [k x n]; c [m x n].
void add_transposed(View<const float> a, View<const float> b, View<float> c);

}  // namespace mkv
