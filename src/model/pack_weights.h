// The matrices of a model in tiles (ops/tiles.h), for which decoding is fast.
#pragma once

#include <functional>
#include <span>

#include "base/buffer.h"
#include "model/weights.h"

namespace mkv {

// Packs the matrices whose type has tiles; `weights` then points into what is returned. `packed` is
// called with the bytes of each that are needed no more.
Buffer<std::byte> pack_weights(ModelWeights& weights,
                               const std::function<void(std::span<const std::byte>)>& packed);

}  // namespace mkv
