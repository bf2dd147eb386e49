#include "fit/metric_basis.h"

#include <Eigen/Dense>
#include <algorithm>
#include <numeric>

#include "base/half.h"
#include "nest/basis.h"
#include "ops/gemm.h"

namespace mkv {
namespace {

using EigenMatrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

}  // namespace

Matrix<double> covariance_of(const Matrix<float>& columns, std::span<const float> weights) {
  const size_t dims = columns.rows();
  Matrix<float> weighted(dims, columns.cols()), product(dims, dims);
  for (size_t c = 0; c < dims; ++c) {
    for (size_t t = 0; t < columns.cols(); ++t) weighted.at(c, t) = weights[t] * columns.at(c, t);
  }
  gemm(weighted.view(), columns.view(), Transpose::yes, 0.0f, product.view());
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  Matrix<double> covariance(dims, dims);
  for (size_t i = 0; i < dims; ++i) {
    for (size_t j = 0; j < dims; ++j) {
      covariance.at(i, j) =
          0.5 * (static_cast<double>(product.at(i, j)) + product.at(j, i)) / total;
    }
  }
  return covariance;
}

std::vector<float> token_weights(std::span<const float> gradient_squares, double floor,
                                 size_t padded) {
  const size_t tokens = gradient_squares.size();
  const double sum = std::accumulate(gradient_squares.begin(), gradient_squares.end(), 0.0);
  std::vector<float> weights(padded, 0.0f);
  for (size_t t = 0; t < tokens; ++t) {
    const double relative =
        sum > 0.0 ? gradient_squares[t] * static_cast<double>(tokens) / sum : 1.0;
    weights[t] = static_cast<float>(floor + (1.0 - floor) * relative);
  }
  return weights;
}

Result<void> fit_metric_basis(const Matrix<double>& covariance,
                              const Matrix<float>& gradient_moments, double ridge, Basis& basis) {
  const auto n = static_cast<Eigen::Index>(covariance.rows());
  EigenMatrix metric(n, n), c(n, n);
  for (Eigen::Index i = 0; i < n; ++i) {
    for (Eigen::Index j = 0; j < n; ++j) {
      const auto a = static_cast<size_t>(i), b = static_cast<size_t>(j);
      metric(i, j) =
          0.5 * (static_cast<double>(gradient_moments.at(a, b)) + gradient_moments.at(b, a));
      c(i, j) = covariance.at(a, b);
    }
  }
  // A layer that nothing attends to has no gradient: the ridge keeps the metric invertible.
  const double mean = std::max(metric.trace() / static_cast<double>(n), 1e-30);
  metric.diagonal().array() += ridge * mean;
  const Eigen::SelfAdjointEigenSolver<EigenMatrix> roots(metric);
  const Eigen::VectorXd root = roots.eigenvalues().cwiseMax(1e-3 * ridge * mean).cwiseSqrt();
  const EigenMatrix half =
      roots.eigenvectors() * root.asDiagonal() * roots.eigenvectors().transpose();
  const EigenMatrix inverse_half =
      roots.eigenvectors() * root.cwiseInverse().asDiagonal() * roots.eigenvectors().transpose();
  const Eigen::SelfAdjointEigenSolver<EigenMatrix> principal(half * c * half);
  // Eigen sorts rising.
  const EigenMatrix decode = inverse_half * principal.eigenvectors().rowwise().reverse();
  for (Eigen::Index i = 0; i < n; ++i) {
    for (Eigen::Index j = 0; j < n; ++j) {
      basis.decode.at(static_cast<size_t>(i), static_cast<size_t>(j)) =
          f16_to_f32(f32_to_f16(static_cast<float>(decode(i, j))));
    }
  }
  return invert(basis.decode, basis.encode);
}

}  // namespace mkv
