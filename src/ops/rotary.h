// Rotary position embedding: frequencies and their angles (RoFormer, arXiv 2104.09864, eq. 34),
// in Hugging Face order: element i turns with element i + n/2.
#pragma once

#include <cstddef>
#include <span>
#include <utility>
#include <vector>

namespace mkv {

class Rotary {
 public:
  Rotary() = default;
  // inverse_frequency[i]: radians a position.
  explicit Rotary(std::vector<double> inverse_frequency)
      : inverse_frequency_(std::move(inverse_frequency)) {}

  size_t pairs() const { return inverse_frequency_.size(); }
  // Fills cos and sin [pairs()] for a position; a negative position turns backwards.
  void angles(double position, std::span<float> cos, std::span<float> sin) const;
  std::span<const double> inverse_frequency() const { return inverse_frequency_; }

 private:
  std::vector<double> inverse_frequency_;
};

}  // namespace mkv
