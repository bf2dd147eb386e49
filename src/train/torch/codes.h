// What is trained of a nest of code slabs. Everything moves in units of its own size, so that one
// learning rate fits all: with S the columns' spread (by the codebooks),
//   decode = D0 S (I + V B) S^-1, encode = its inverse       (B = 0 at first)
//   entries = C0 + u c, u the root mean square of the slab's entries but no more than of the median
//             slab's
//   scales = s0 (1 + V s),  mean = m0 + D0 S V m
// V keeps moves of large columns down to that size, too: the median slab's u / spread, at most 1.
#pragma once

#include <torch/torch.h>

#include <vector>

#include "train/torch/parameters.h"

namespace mkv::training {

// Shares of the learning rate; 0: stays as it is.
struct CodeRates {
  double bases = 1.0, means = 0.0;
};

class Codes : public Parameters {
 public:
  // The nest must be of codes. Throws what torch throws.
  Codes(const Nest& nest, const CodeRates& rates, torch::Device device);

  // Codebooks' entries and scales; bases and means if they have a rate.
  std::vector<Moved> moved() const override;
  // decode, encode [spaces x dims x dims], means [spaces x dims], entries and scales of all slabs
  // (SpaceSlabs), space after space.
  std::vector<Tensor> made() const override;
  CacheCode code(const std::vector<Tensor>& made, const Ranks& ranks) const override;
  void store(Nest& nest) const override;

 private:
  void read_slabs(const Nest& nest, torch::Device device);
  void read_bases(const Nest& nest, torch::Device device);
  void set_units(const Nest& nest, torch::Device device);

  NestConfig config_;
  size_t groups_, dims_;
  CodeRates rates_;
  std::vector<int64_t> slabs_;   // by space
  std::vector<Tensor> columns_;  // by space, as SpaceSlabs
  Tensor start_entries_, entry_units_, start_scales_, scale_units_, start_means_;
  Tensor whitened_decode_, whitened_encode_;  // D0 S and its inverse, double
  Tensor spread_, share_;                     // S, V [spaces x dims], double
  Tensor turns_, entries_, scales_, means_;   // B, c, s, m
};

}  // namespace mkv::training
