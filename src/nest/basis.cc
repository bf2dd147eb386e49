#include "nest/basis.h"

#include <Eigen/LU>

namespace mkv {

Result<void> invert(const Matrix<float>& matrix, Matrix<float>& inverse) {
  using Rows = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const auto n = static_cast<Eigen::Index>(matrix.rows());
  const Eigen::MatrixXd wide = Eigen::Map<const Rows>(matrix.data(), n, n).cast<double>();
  const Eigen::PartialPivLU<Eigen::MatrixXd> factors(wide);
  const Eigen::MatrixXd result = factors.inverse();
  if (!(factors.rcond() > 1e-12) || !result.allFinite()) {
    return make_error(ErrorCode::corrupt, "a basis of " + std::to_string(n) +
                                              " dimensions is singular (reciprocal condition " +
                                              std::to_string(factors.rcond()) + ")");
  }
  inverse.reshape(matrix.rows(), matrix.cols());
  Eigen::Map<Rows>(inverse.data(), n, n) = result.cast<float>();
  return {};
}

}  // namespace mkv
