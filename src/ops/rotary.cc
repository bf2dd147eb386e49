#include "ops/rotary.h"

#include <cmath>

#include "base/check.h"

namespace mkv {

void Rotary::angles(double position, std::span<float> cos, std::span<float> sin) const {
  MKV_CHECK(cos.size() == pairs() && sin.size() == pairs());
  for (size_t i = 0; i < pairs(); ++i) {
    const double angle = position * inverse_frequency_[i];
    cos[i] = static_cast<float>(std::cos(angle));
    sin[i] = static_cast<float>(std::sin(angle));
  }
}

}  // namespace mkv
