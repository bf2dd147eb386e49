// Bases that weigh errors by what they do to the loss (docs/method.md "Metric bases").
#pragma once

#include <span>

#include "base/buffer.h"
#include "base/result.h"
#include "nest/nest.h"

namespace mkv {

// With C the covariance of what is coded and M the second moment of the loss gradient (both [n x
// n]), the eigenvectors W of M^1/2 C M^1/2 by falling eigenvalue give encode = W^T M^1/2 and decode
// = M^-1/2 W: a squared error in the latents is the loss's. decode is rounded to f16 (the nest
// file's precision) and encode is the inverse of what was rounded. M gets `ridge` of its mean
// eigenvalue added.
Result<void> fit_metric_basis(const Matrix<double>& covariance,
                              const Matrix<float>& gradient_moments, double ridge, Basis& basis);

// X diag(weights) X^T / (sum of weights), columns X [dims][padded tokens], weights [padded tokens].
Matrix<double> covariance_of(const Matrix<float>& columns, std::span<const float> weights);

}  // namespace mkv
