// Nested codes of a latent space (docs/method.md "Nested code") as a function with gradients.
#pragma once

#include <torch/torch.h>

namespace mkv::training {

using torch::Tensor;

// The slabs kept of one space, in the nest's order.
struct SpaceSlabs {
  Tensor columns;  // [slabs], whole numbers on the CPU: first column of each
  Tensor entries;  // [slabs x kSlabColumns x kCodebookEntries]
  Tensor scales;   // [slabs x kSlabColumns]
};

// latents [tokens x dims] -> what the engine's cache decodes in their place, the scales of the last
// slab on each column included. Codes are chosen by the engine's own encoder, and how they are
// chosen has no gradient: entries and scales get theirs for the codes as they are, and to the
// latents the gradient passes straight through (arXiv:1308.3432), but for columns without a slab.
Tensor code_latents(const Tensor& latents, const SpaceSlabs& slabs);

}  // namespace mkv::training
