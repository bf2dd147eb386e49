// What a model's layers differ in for their caches (Hugging Face's layer_types): how positions turn
// keys, and how far back a token sees.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include "base/check.h"
#include "nest/shape.h"
#include "ops/rotary.h"

namespace mkv {

inline constexpr size_t kWholeContext = std::numeric_limits<size_t>::max() / 4;

struct LayerType {
  Rotary rotary;
  size_t window = kWholeContext;  // a token sees the last `window` positions, its own included

  // The first position that a token at `position` sees.
  size_t first_seen(size_t position) const {
    return position + 1 > window ? position + 1 - window : 0;
  }
};

class LayerTypes {
 public:
  LayerTypes() = default;
  // All layers alike.
  explicit LayerTypes(Rotary rotary) : types_{{std::move(rotary)}} {}
  // Layer l is of types[of_layer[l]].
  LayerTypes(std::vector<LayerType> types, std::vector<uint8_t> of_layer)
      : types_(std::move(types)), of_layer_(std::move(of_layer)) {
    for (const uint8_t type : of_layer_) MKV_CHECK(type < types_.size());
  }

  std::span<const LayerType> all() const { return types_; }
  size_t index_of(size_t layer) const { return of_layer_.empty() ? 0 : of_layer_[layer]; }
  const LayerType& of(size_t layer) const { return types_[index_of(layer)]; }

  // Keys and values that the last of `tokens` tokens sees, over all layers of the shape: what an
  // exact cache has to hold.
  size_t values_seen(const KvShape& shape, size_t tokens) const {
    size_t values = 0;
    for (size_t l = 0; l < shape.layers; ++l) {
      values += std::min(tokens, of(l).window) * shape.values_per_layer();
    }
    return values;
  }

 private:
  std::vector<LayerType> types_;
  std::vector<uint8_t> of_layer_;  // empty: all are of the first type
};

}  // namespace mkv
