#include "nest/mean_functions.h"

#include <Eigen/Dense>
#include <cmath>

#include "nest/kv_cache.h"
#include "ops/ops.h"

namespace mkv {
namespace {

// Of a sinusoid's length over a block; float32 sums are no better.
constexpr double kTolerance = 1e-6;

// An orthonormal basis (columns) of the cosines and sines over a block of pairs [first, ...).
Eigen::MatrixXd basis_of(const Eigen::MatrixXd& sinusoids, Eigen::Index first_column) {
  const Eigen::Index columns = sinusoids.cols() - first_column;
  const Eigen::BDCSVD<Eigen::MatrixXd> svd(sinusoids.rightCols(columns), Eigen::ComputeThinU);
  Eigen::Index rank = 0;
  while (rank < svd.singularValues().size() &&
         svd.singularValues()[rank] > kTolerance * std::sqrt(double{kBlockTokens})) {
    ++rank;
  }
  return svd.matrixU().leftCols(rank);
}

}  // namespace

MeanFunctions::MeanFunctions(const Rotary& rotary) {
  const auto pairs = static_cast<Eigen::Index>(rotary.pairs());
  constexpr auto kTokens = static_cast<Eigen::Index>(kBlockTokens);
  std::vector<size_t> order(rotary.pairs());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return rotary.inverse_frequency()[a] > rotary.inverse_frequency()[b];
  });
  std::vector<float> cos(rotary.pairs()), sin(rotary.pairs());
  Eigen::MatrixXd sinusoids(kTokens, 2 * pairs);
  for (Eigen::Index t = 0; t < kTokens; ++t) {
    rotary.angles(static_cast<double>(t), cos, sin);
    for (Eigen::Index i = 0; i < pairs; ++i) {
      sinusoids(t, 2 * i) = static_cast<double>(cos[order[static_cast<size_t>(i)]]);
      sinusoids(t, 2 * i + 1) = static_cast<double>(sin[order[static_cast<size_t>(i)]]);
    }
  }
  Eigen::Index fast = pairs;
  Eigen::MatrixXd basis(kTokens, 0);
  for (Eigen::Index i = 0; i < pairs; ++i) {
    Eigen::MatrixXd candidate = basis_of(sinusoids, 2 * i);
    if (2 * i + candidate.cols() < 2 * fast + basis.cols()) {
      fast = i;
      basis = std::move(candidate);
    }
  }
  const auto rows = static_cast<size_t>(basis.cols()), kept = static_cast<size_t>(fast);
  fast_.assign(order.begin(), order.begin() + fast);
  values_ = Matrix<float>(2 * kept + rows, kBlockTokens);
  mix_cos_ = Matrix<float>(rotary.pairs(), rows);
  mix_sin_ = Matrix<float>(rotary.pairs(), rows);
  for (size_t t = 0; t < kBlockTokens; ++t) {
    const auto row = static_cast<Eigen::Index>(t);
    for (size_t i = 0; i < kept; ++i) {
      const auto column = static_cast<Eigen::Index>(2 * i);
      values_.at(i, t) = static_cast<float>(sinusoids(row, column));
      values_.at(kept + i, t) = static_cast<float>(sinusoids(row, column + 1));
    }
    for (size_t k = 0; k < rows; ++k) {
      values_.at(2 * kept + k, t) = static_cast<float>(basis(row, static_cast<Eigen::Index>(k)));
    }
  }
  const Eigen::MatrixXd mix = basis.transpose() * sinusoids;
  for (size_t i = kept; i < rotary.pairs(); ++i) {
    for (size_t k = 0; k < rows; ++k) {
      const auto row = static_cast<Eigen::Index>(k), column = static_cast<Eigen::Index>(2 * i);
      mix_cos_.at(order[i], k) = static_cast<float>(mix(row, column));
      mix_sin_.at(order[i], k) = static_cast<float>(mix(row, column + 1));
    }
  }
}

void MeanFunctions::combine(std::span<const float> a, std::span<const float> b,
                            std::span<float> out) const {
  const size_t kept = fast_.size();
  for (size_t i = 0; i < kept; ++i) {
    out[i] = a[fast_[i]];
    out[kept + i] = b[fast_[i]];
  }
  const std::span<float> rest = out.subspan(2 * kept);
  std::fill(rest.begin(), rest.end(), 0.0f);
  for (size_t i = 0; i < mix_cos_.rows(); ++i) {
    const float* of_cos = mix_cos_.row(i).data();
    const float* of_sin = mix_sin_.row(i).data();
    for (size_t k = 0; k < rest.size(); ++k) rest[k] += a[i] * of_cos[k] + b[i] * of_sin[k];
  }
}

}  // namespace mkv
