// Hidden rows through layers. Linear layers run over the tokens of all slices together, some at a
// time, and attention slice by slice. Every loop is split by tokens, so results do not depend on
// the number of workers.
#pragma once

#include <cstddef>
#include <span>

#include "model/model.h"
#include "model/weights.h"

namespace mkv {

struct LayerPassInput {
  const ModelConfig& config;
  bool interleaved_qk = false;  // model/head_order.h
  std::span<const LayerWeights> layers;
  std::span<const SequenceSlice> slices;
};

// Layers first ... last-1 over hidden[tokens of all slices x hidden_size], in place. The last layer
// of the model leaves the rows that the slices ask for; where that is not all, there must be no
// observer.
void pass_layers(const LayerPassInput& input, size_t first, size_t last, Matrix<float>& hidden,
                 Scratch& scratch, Workers& workers, const LayerObserver& observer);

}  // namespace mkv
