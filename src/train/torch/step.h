// One optimiser step's gradients: windows are independent, so each runs on a worker of its own with
// torch on one thread, and their gradients are added in order. Results do not depend on the number
// of workers, and two processors are used without waiting for each other.
#pragma once

#include <span>
#include <vector>

#include "base/workers.h"
#include "train/torch/loss.h"
#include "train/torch/parameters.h"

namespace mkv::training {

enum class Objective : uint8_t {
  end_to_end,  // weights' divergence and cross-entropy
  layerwise,   // layerwise_loss(), which stands where the divergence does; no cross-entropy
};

struct StepWindow {
  std::span<const TokenId> tokens;
  Ranks ranks;
};

struct StepResult {
  std::vector<double> kl, cross_entropy;  // by window, nats a token; see Objective
  std::vector<Tensor> gradients;          // of the mean loss: in the order of Parameters::moved()
  double gradient_norm = 0;
};

// Throws what torch throws (from the calling thread).
StepResult step_gradients(const Twin& twin, const Parameters& parameters,
                          std::span<const StepWindow> windows, const LossWeights& weights,
                          Objective objective, Workers& workers);

}  // namespace mkv::training
