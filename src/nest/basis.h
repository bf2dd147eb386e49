// Linear algebra of bases that the engine itself needs.
#pragma once

#include "base/buffer.h"
#include "base/result.h"

namespace mkv {

// inverse = matrix^-1, both [n x n]; computed in double, so that decode (stored) gives encode. A
// matrix that is not invertible is `corrupt`.
Result<void> invert(const Matrix<float>& matrix, Matrix<float>& inverse);

}  // namespace mkv
