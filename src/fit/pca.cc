#include "fit/pca.h"

#include <Eigen/Eigenvalues>
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "base/rng.h"
#include "fit/metric_basis.h"
#include "fit/sample.h"

namespace mkv {
namespace {

constexpr double kMostOrthogonalityError = 1e-6;

Error invalid(const std::string& message) {
  return make_error(ErrorCode::invalid_argument, "fit: " + message);
}

// Slots of a basis that come from its axes: encode's row c and decode's column c are axis c.
void set_orthogonal(const Matrix<double>& axes, Basis& basis) {
  const size_t n = axes.rows();
  for (size_t c = 0; c < n; ++c) {
    for (size_t i = 0; i < n; ++i) {
      const auto value = static_cast<float>(axes.at(i, c));
      basis.encode.at(c, i) = value;
      basis.decode.at(i, c) = value;
    }
  }
}

Matrix<double> unit_axes(size_t n) {
  Matrix<double> axes(n, n);
  for (size_t i = 0; i < n; ++i) axes.at(i, i) = 1.0;
  return axes;
}

// Eigenvectors of a symmetric matrix of normal entries are uniformly distributed.
Matrix<double> random_axes(size_t n, Rng& rng) {
  Matrix<double> normal(n, n);
  for (double& x : normal.span()) x = rng.normal();
  return principal_axes(normal).axes;
}

Matrix<double> axes_of(const FitOptions& options, const Statistics& statistics, size_t space) {
  switch (options.axes) {
    case ColumnAxes::principal:
      return principal_axes(statistics.covariance(space)).axes;
    case ColumnAxes::dimensions:
      return unit_axes(statistics.covariance(space).rows());
    case ColumnAxes::random: {
      Rng rng(options.seed + space);
      return random_axes(statistics.covariance(space).rows(), rng);
    }
    case ColumnAxes::metric:
      break;  // fit_metric_columns
  }
  return {};
}

const char* method_name(ColumnAxes axes) {
  switch (axes) {
    case ColumnAxes::principal:
      return "pca";
    case ColumnAxes::dimensions:
      return "dimensions";
    case ColumnAxes::random:
      return "random axes";
    case ColumnAxes::metric:
      return "metric axes";
  }
  return "";
}

std::string key_mean_name(KeyMean mean) {
  switch (mean) {
    case KeyMean::none:
      return "none";
    case KeyMean::plain:
      return "plain";
    case KeyMean::position:
      return "position";
  }
  return {};
}

NestConfig nest_config(const Model& model, std::span<const std::vector<TokenId>> sequences,
                       const FitOptions& options) {
  NestConfig config;
  config.shape = model.config().kv_shape();
  config.group_size = options.group_size;
  config.slab_kind = SlabKind::column;
  config.key_mean = options.key_mean;
  config.sinks = options.sinks;
  config.recent = options.recent;
  config.later_sinks = options.later_sinks;
  config.model_hash = model.weights_hash();
  config.origin = options.origin;
  config.origin["method"] = method_name(options.axes);
  config.origin["key_mean"] = key_mean_name(options.key_mean);
  config.origin["tokens"] = std::to_string(count_tokens(sequences));
  config.origin["sequences"] = std::to_string(sequences.size());
  return config;
}

// A model that overflows on the text gives covariances that no eigensolver should see.
Result<void> check_finite(const Nest& nest, const Statistics& statistics) {
  for (size_t space = 0; space < nest.spaces(); ++space) {
    const Matrix<double> covariance = statistics.covariance(space);
    if (std::ranges::all_of(covariance.span(), [](double x) { return std::isfinite(x); })) continue;
    const GroupId id = nest.unflat(space);
    return make_error(ErrorCode::unsupported, std::string("fit: the model's ") +
                                                  (id.side == Side::key ? "keys" : "values") +
                                                  " of layer " + std::to_string(id.layer) +
                                                  ", group " + std::to_string(id.group) +
                                                  " are not finite on this text");
  }
  return {};
}

// Oblique bases, all rounded as codes' are.
Result<void> fit_metric_columns(const Model& model, std::span<const std::vector<TokenId>> sequences,
                                const FitOptions& options, Nest& nest, const ProgressSink& progress,
                                Workers& workers) {
  MKV_ASSIGN(const KvSample sample,
             gather_sample(model, sequences,
                           {.group_size = options.group_size,
                            .view = {options.sinks, options.recent, options.later_sinks},
                            .seed = options.seed},
                           progress, workers));
  for (size_t space = 0; space < nest.spaces(); ++space) {
    const GroupId id = nest.unflat(space);
    Basis& basis = nest.basis(id);
    Matrix<float> columns, moments = sample.gradient_moments[space].clone();
    centred_columns(sample, model, id, options.key_mean, columns, basis.mean);
    // Latents are stored in 16 bits, so they should have about the size of what is coded.
    double trace = 0.0;
    for (size_t i = 0; i < nest.dims(); ++i) trace += moments.at(i, i);
    const double scale = trace > 0.0 ? static_cast<double>(nest.dims()) / trace : 1.0;
    for (float& x : moments.span()) x = static_cast<float>(x * scale);
    const std::vector<float> weights =
        sample_weights(sample, id.layer, space, options.token_weight_floor, columns.cols());
    MKV_TRY(fit_metric_basis(covariance_of(columns, weights), moments, options.ridge, basis));
    report(progress, {"bases", space + 1, nest.spaces(), {}});
  }
  return nest.set_ladder(uniform_ladder(nest, options.step));
}

}  // namespace

PrincipalAxes principal_axes(const Matrix<double>& covariance) {
  const size_t n = covariance.rows();
  MKV_CHECK(covariance.cols() == n);
  const auto size = static_cast<Eigen::Index>(n);
  Eigen::MatrixXd symmetric(size, size);
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j < n; ++j) {
      symmetric(static_cast<Eigen::Index>(i), static_cast<Eigen::Index>(j)) =
          0.5 * (covariance.at(i, j) + covariance.at(j, i));
    }
  }
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> solver(symmetric);
  PrincipalAxes out{.axes = Matrix<double>(n, n), .energy = std::vector<double>(n)};
  for (size_t c = 0; c < n; ++c) {
    const auto from = size - 1 - static_cast<Eigen::Index>(c);  // Eigen sorts ascending
    out.energy[c] = std::max(0.0, solver.eigenvalues()(from));
    Eigen::Index largest = 0;
    solver.eigenvectors().col(from).cwiseAbs().maxCoeff(&largest);
    const double sign = solver.eigenvectors()(largest, from) < 0.0 ? -1.0 : 1.0;
    for (size_t i = 0; i < n; ++i) {
      out.axes.at(i, c) = sign * solver.eigenvectors()(static_cast<Eigen::Index>(i), from);
    }
  }
  return out;
}

Result<Nest> fit_nest(const Model& model, std::span<const std::vector<TokenId>> sequences,
                      const FitOptions& options, const ProgressSink& progress, Workers& workers) {
  MKV_ASSIGN(Nest nest, Nest::create(nest_config(model, sequences, options)));
  if (options.step == 0 || nest.dims() % options.step != 0) {
    return invalid("a ladder step of " + std::to_string(options.step) + " does not divide " +
                   std::to_string(nest.dims()) + " columns");
  }
  if (options.axes == ColumnAxes::metric) {
    MKV_TRY(fit_metric_columns(model, sequences, options, nest, progress, workers));
    return nest;
  }
  MKV_ASSIGN(const Statistics statistics, gather_statistics(model, sequences,
                                                            {.group_size = options.group_size,
                                                             .key_mean = options.key_mean,
                                                             .sinks = options.sinks,
                                                             .mean_tokens = options.mean_tokens},
                                                            progress, workers));
  if (statistics.tokens(0) < nest.dims()) {
    return invalid(std::to_string(statistics.tokens(0)) +
                   " tokens after the sinks are too few for " + std::to_string(nest.dims()) +
                   " columns");
  }
  MKV_TRY(check_finite(nest, statistics));
  report(progress, {"bases", 0, nest.spaces(), {}});
  workers.run(nest.spaces(), [&](size_t space, size_t) {
    Basis& basis = nest.basis(nest.unflat(space));
    set_orthogonal(axes_of(options, statistics, space), basis);
    basis.mean.assign(statistics.mean(space).begin(), statistics.mean(space).end());
  });
  report(progress, {"bases", nest.spaces(), nest.spaces(), {}});
  const double error = nest.orthogonality_error();
  if (error > kMostOrthogonalityError) {
    char text[32];
    std::snprintf(text, sizeof text, "%.3g", error);
    return invalid(std::string("the bases are not orthogonal: error ") + text +
                   ", at most 1e-06 is expected");
  }
  MKV_TRY(nest.set_ladder(uniform_ladder(nest, options.step)));
  return nest;
}

}  // namespace mkv
