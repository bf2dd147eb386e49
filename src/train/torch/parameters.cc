#include "train/torch/parameters.h"

#include "train/torch/bases.h"
#include "train/torch/codes.h"

namespace mkv::training {

std::unique_ptr<Parameters> make_parameters(const Nest& nest, const TrainOptions& options,
                                            torch::Device device) {
  if (nest.config().slab_kind == SlabKind::column) {
    return std::make_unique<Bases>(nest, options.train_means, device);
  }
  return std::make_unique<Codes>(
      nest, CodeRates{.bases = options.basis_rate, .means = options.train_means ? 1.0 : 0.0},
      device);
}

}  // namespace mkv::training
