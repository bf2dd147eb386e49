// What training moves of a nest, whatever the nest is made of.
#pragma once

#include <torch/torch.h>

#include <memory>
#include <string>
#include <vector>

#include "nest/nest.h"
#include "train/torch/twin.h"
#include "train/train.h"

namespace mkv::training {

class Parameters {
 public:
  struct Moved {
    std::string name;
    Tensor values;      // changed in place
    double rate = 1.0;  // share of the learning rate
  };

  virtual ~Parameters() = default;
  // What an optimiser moves, in a fixed order.
  virtual std::vector<Moved> moved() const = 0;
  // What caches are made of, as functions of the moved ones: computed once a step for all windows.
  // Without a gradient where nothing of it is moved.
  virtual std::vector<Tensor> made() const = 0;
  // Of what is coded at these ranks by made() or leaves of the same shapes.
  virtual CacheCode code(const std::vector<Tensor>& made, const Ranks& ranks) const = 0;
  // Puts everything into a nest of the same shape, rounded as its file is.
  virtual void store(Nest& nest) const = 0;
};

// Throws what torch throws.
std::unique_ptr<Parameters> make_parameters(const Nest& nest, const TrainOptions& options,
                                            torch::Device device);

}  // namespace mkv::training
