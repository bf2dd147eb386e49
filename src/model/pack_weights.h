// The matrices of a model in tiles (ops/tiles.h), for which decoding is fast; the output
// projection, where its type has them, in planes of such tiles (ops/planes.h).
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/buffer.h"
#include "model/weights.h"

namespace mkv {

struct PackedWeights {
  Buffer<std::byte> bytes;
  std::vector<uint32_t> uneven;  // tiles of an output projection in planes that are not even
};

// Packs the matrices whose type has tiles; `weights` then points into what is returned. `packed` is
// called with the bytes of each that are needed no more.
PackedWeights pack_weights(ModelWeights& weights,
                           const std::function<void(std::span<const std::byte>)>& packed);

}  // namespace mkv
