// The loss of a window: KL(teacher || student) + weight * cross-entropy (arXiv:2410.14731 §3.3),
// averaged over positions. Logits are never whole: some rows at a time are computed, compared, and
// taken back to the hidden states, so that memory does not grow with the vocabulary times tokens.
#pragma once

#include <torch/torch.h>

#include <span>
#include <vector>

#include "train/torch/twin.h"

namespace mkv::training {

struct LossWeights {
  double kl = 1.0, cross_entropy = 0.0;
  bool relative = false;  // the loss is divided by its KL, which counts as a constant
};

struct RowLosses {
  std::vector<double> kl, cross_entropy;  // nats, by row
  Tensor gradient;                        // of their weighted sum, as the student's rows
};

// teacher, student: hidden states [rows x hidden], neither with a gradient, that predict `next`. An
// undefined teacher: no KL, whatever its weight.
RowLosses row_losses(const Twin& twin, const Tensor& teacher, const Tensor& student,
                     std::span<const TokenId> next, const LossWeights& weights);

struct WindowLoss {
  double kl = 0, cross_entropy = 0;  // nats a token
  Tensor gradient;                   // of the weighted loss, with respect to `student`'s rows
};

// Means over a window; the last row has no next token and is left out.
WindowLoss window_loss(const Twin& twin, const Tensor& teacher, const Tensor& student,
                       std::span<const TokenId> tokens, const LossWeights& weights);

}  // namespace mkv::training
