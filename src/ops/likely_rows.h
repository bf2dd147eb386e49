// A product with a weight in planes, of which only the largest elements are wanted exactly: logits,
// of which most tokens cannot be chosen.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/workers.h"
#include "ops/weight.h"

namespace mkv {

// A row whose product may be larger by this many standard deviations of what its rests add is not
// left out: what is left out wrongly is less than one of 10^10 rows.
inline constexpr float kRestDeviations = 7;

// y[rows] = W x[cols]. Every element that may be within `within` of the largest one (0 or more) has
// the bits that matmul() gives it. The others are the products with all rests in the middle, and
// stay below those that are exact. All are exact if w has no planes, `within` is infinite or there
// are no integer products (ops/integer_products.h). `uneven`: tiles of w that are not even
// (ops/planes.h), always exact.
void multiply_likely_rows(std::span<const float> x, const Weight& w,
                          std::span<const uint32_t> uneven, float within, std::span<float> y,
                          Workers& workers);

}  // namespace mkv
