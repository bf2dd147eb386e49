// LoRA's parameters (arXiv:2106.09685) for the projections of a model: down drawn at random, up
// zero, so that the start is the model itself.
#pragma once

#include <torch/torch.h>

#include <vector>

#include "model/weight_change.h"
#include "train/sft.h"
#include "train/torch/twin.h"

namespace mkv::training {

class Lora {
 public:
  // Errors: rank 0, an unknown projection. Throws what torch throws.
  static Result<Lora> create(const ModelConfig& config, const SftOptions& options);

  // What an optimiser moves, in a fixed order: down and up by turns.
  std::vector<Tensor>& tensors() { return tensors_; }
  const std::vector<Tensor>& tensors() const { return tensors_; }
  // Of these tensors or leaves of their shapes, by layer.
  std::vector<LayerAdapters> adapters(const std::vector<Tensor>& tensors) const;
  WeightChanges changes() const;

 private:
  struct Place {
    size_t layer;
    Projection projection;
  };
  Lora() = default;

  size_t layers_ = 0;
  double scale_ = 1.0;
  std::vector<Place> places_;
  std::vector<Tensor> tensors_;
};

}  // namespace mkv::training
