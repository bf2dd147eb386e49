// What is trained of a nest of columns: for every latent space a skew matrix A and a mean,
//   U = U0 (I + A)^-1 (I - A)      (the Cayley transform; arXiv:2410.14731 §3.1)
// starting at A = 0, i.e. at the nest. Where the nest's bases are oblique, encode E0 and decode D0,
// U0 is I and what codes are U^T E0 and D0 U: latents turn, the metric that errors have stays.
// Cayley(A) is orthogonal with determinant +1 for every A, so
// U keeps the determinant of U0: reflections are not reached, nor is a turn by exactly pi. Neither
// loses anything here: flipping the sign of a latent column changes no prefix, and flips the
// determinant.
#pragma once

#include <torch/torch.h>

#include <vector>

#include "train/torch/parameters.h"

namespace mkv::training {

// Everything by flat space (Nest::flat).
class Bases : public Parameters {
 public:
  // The nest must be of columns. Throws what torch throws.
  Bases(const Nest& nest, bool move_means, torch::Device device);

  // A's entries [spaces x dims x dims], of which those below the diagonal count, and, if they move,
  // means [spaces x dims].
  Tensor& turns() { return turns_; }
  Tensor& means() { return means_; }
  std::vector<Moved> moved() const override;
  // bases(), means.
  std::vector<Tensor> made() const override { return {bases(), means_}; }

  // U [spaces x dims x dims] in float32, computed in double so that it is orthogonal to rounding.
  Tensor bases() const;
  // Largest |U^T U - I|.
  static double orthogonality_error(const Tensor& bases);
  CacheCode code(const std::vector<Tensor>& made, const Ranks& ranks) const override;
  void store(Nest& nest) const override;

 private:
  NestConfig config_;
  size_t groups_;
  bool move_means_;
  Tensor start_;            // U0 [spaces x dims x dims], double; undefined where it is I
  Tensor encode_, decode_;  // E0 and D0 [spaces x dims x dims], undefined for orthogonal bases
  Tensor turns_, means_;
};

}  // namespace mkv::training
