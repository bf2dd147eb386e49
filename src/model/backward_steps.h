// The steps of the backward pass (model/gradients.cc) that know nothing of layers.
#pragma once

#include <span>

#include "base/view.h"
#include "base/workers.h"
#include "model/model.h"
#include "ops/weight.h"

namespace mkv {

// out[tokens x w.cols] = (add ? out : 0) + g[tokens x w.rows] W: the gradient with respect to the
// input of y = W x.
void matmul_backward(View<const float> g, const Weight& w, bool add, View<float> out,
                     Workers& workers);

// Gradient of y = x / rms(x) * weight: dx = r (w dy) - x r^3 / n sum(w dy x), added to `dx`.
void add_norm_backward(std::span<const float> x, std::span<const float> weight, float epsilon,
                       std::span<const float> dy, std::span<float> dx);

// gate[i] = activation(gate[i]) and slope[i] = its derivative.
void activate(Activation activation, std::span<float> gate, std::span<float> slope);

}  // namespace mkv
