// Later sinks: tokens beyond the leading ones that a model rests its attention on as it does on the
// first. In some layers nearly all of the loss's gradient is theirs, so a cache keeps a few of them
// exact (docs/decisions/0021; "massive activations", arXiv:2402.17762, are what makes them).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/view.h"
#include "nest/layer_types.h"

namespace mkv {

// What a layer's first token looks like, and which others look like it. Sinks have small values
// that resemble each other's, and keys before RoPE that do.
class SinkLikeness {
 public:
  // Nothing resembles it.
  SinkLikeness() = default;
  // keys, values [leading tokens x kv_heads*head_dim], keys before RoPE. Where the first value is
  // not much smaller than the others, or alone, the layer does not use it as a sink.
  SinkLikeness(View<const float> keys, View<const float> values);

  // Whether any token of this layer can be a later sink, given whether there is one in the layer
  // before.
  bool possible(bool one_before) const { return sink_ || (one_before && others_ > 0.0); }
  // By its value alone, which is looked at first: keys have to be turned back. `before`: whether
  // the token is one in the layer before, where sinks end a layer later than the first token does.
  bool value_like(std::span<const float> value, bool before) const;
  // Of a token whose value is. `key` before RoPE.
  bool key_like(std::span<const float> key, bool before) const;

 private:
  std::vector<float> key_, value_;  // of the first token
  double key_size_ = 0, value_size_ = 0;
  double others_ = 0;  // mean size of the values after the first
  bool sink_ = false;
};

// What a layer takes for later sinks, the same whether tokens come one by one or many at once.
struct LaterSinkRule {
  size_t most = 0;         // tokens; a sliding window, which leaves some behind, bounds its own
  bool as_before = false;  // what the layer before took counts: it sees the same tokens
};
LaterSinkRule later_sink_rule(const LayerTypes& types, size_t layer, size_t most);

// Of a window from its first token on, the tokens after the `sinks` leading ones that are later
// sinks, rising. keys, values [tokens x kv_heads*head_dim], keys before RoPE; `before`: those of
// the layer before.
std::vector<uint32_t> find_later_sinks(View<const float> keys, View<const float> values,
                                       size_t sinks, const LaterSinkRule& rule,
                                       std::span<const uint32_t> before);

}  // namespace mkv
