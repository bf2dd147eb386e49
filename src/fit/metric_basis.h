// Bases that weigh errors by what they do to the loss (docs/method.md "Metric bases").
#pragma once

#include <span>
#include <vector>

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

// How much each token's error costs, 1 on average, zero for padding: attention dwells on few
// tokens, and its loss gradient says on which. One drawn label tells it with much noise, hence the
// floor.
std::vector<float> token_weights(std::span<const float> gradient_squares, double floor,
                                 size_t padded);

}  // namespace mkv
