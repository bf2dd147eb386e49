// The starting nest: orthogonal bases by principal component analysis, one eigenproblem for every
// layer, group of KV heads and side (arXiv:2410.14731 §3.1, "PCA initialisation").
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/progress.h"
#include "base/result.h"
#include "base/workers.h"
#include "fit/calibration.h"
#include "fit/statistics.h"
#include "model/model.h"
#include "nest/nest.h"

namespace mkv {

// Axes of a nest of columns. Dimensions and random ones are what principal ones are compared with.
enum class ColumnAxes : uint8_t {
  principal,
  dimensions,  // the head's own, in their order: a plain cut of dimensions
  random,      // uniformly distributed rotations
  metric,      // oblique: principal where errors weigh what they do to the loss (metric_basis.h)
};

struct FitOptions {
  ColumnAxes axes = ColumnAxes::principal;
  uint64_t seed = 0;      // of random axes
  size_t group_size = 1;  // KV heads that share a basis; 1 is the paper's
  KeyMean key_mean = KeyMean::position;
  size_t sinks = 4;
  size_t recent = 128;
  size_t later_sinks = 0;     // most a layer; only metric axes leave them out of what they look at
  size_t step = 8;            // slabs a cut of the uniform ladder
  size_t mean_tokens = 8192;  // see StatisticsOptions
  double ridge = 2e-2, token_weight_floor = 0.15;  // of metric axes: see CodeFitOptions
  std::map<std::string, std::string> origin;  // what the sequences are: kept in the nest's origin
};

// Eigenvectors of a symmetric matrix as columns, by descending eigenvalue; the entry of a column
// that is largest in size is positive, so that the result does not depend on the solver's sign.
struct PrincipalAxes {
  Matrix<double> axes;         // [dims x dims]
  std::vector<double> energy;  // eigenvalues, descending
};
PrincipalAxes principal_axes(const Matrix<double>& covariance);

// Fits a nest of 16-bit columns to the model's own keys and values on the sequences. Deterministic
// for any number of workers. Errors: too little text, a group size or step that does not divide.
Result<Nest> fit_nest(const Model& model, std::span<const std::vector<TokenId>> sequences,
                      const FitOptions& options, const ProgressSink& progress, Workers& workers);

}  // namespace mkv
