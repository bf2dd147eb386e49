// A product with a weight in planes, of which only the largest elements are wanted exactly: logits,
// of which most tokens cannot be chosen.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/workers.h"
#include "ops/weight.h"

namespace mkv {

// A row whose product may be larger by this many standard deviations of what its other bits add is
// not left out: of 10^10 rows one is, by the tail of a normal distribution.
inline constexpr float kRestDeviations = 7;

// y[rows] = W x[cols]. Every element that may be within `within` of the largest one (0 or more) has
// the bits that matmul() gives it; the others may be off by kRestDeviations of what the rows' other
// bits add, and stay below those. w has planes, but without integer products
// (ops/integer_products.h) all elements are exact, whatever its layout. `uneven`: its tiles that
// are not even (ops/planes.h), always exact.
void multiply_likely_rows(std::span<const float> x, const Weight& w,
                          std::span<const uint32_t> uneven, float within, std::span<float> y,
                          Workers& workers);

}  // namespace mkv
