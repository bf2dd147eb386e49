// The cheaper stage before the end-to-end one: each layer's bases learn to give back what the
// layer's attention puts into the residual stream, from exact inputs. One exact pass, no
// vocabulary, no gradient from one layer to another.
#pragma once

#include <vector>

#include "train/torch/step.h"

namespace mkv::training {

struct LayerwiseLoss {
  double error = 0;               // mean over layers of |output - exact|^2 / |exact|^2
  std::vector<Tensor> gradients;  // of its logarithm, by the leaves that move; undefined where none
};

// `leaves` as Parameters::code takes them.
LayerwiseLoss layerwise_loss(const Twin& twin, const Parameters& parameters,
                             const std::vector<Tensor>& leaves, const StepWindow& window);

}  // namespace mkv::training
