// The shape of a model's KV cache, and names for its parts.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mkv {

struct KvShape {
  size_t layers = 0, kv_heads = 0, head_dim = 0;

  size_t values_per_layer() const { return kv_heads * head_dim * 2; }  // of a token
  size_t values_per_token() const { return layers * values_per_layer(); }
  bool operator==(const KvShape&) const = default;
};

enum class Side : uint8_t { key, value };

// One latent space: a side of a group of KV heads of a layer (a group of one head is the paper's).
struct GroupId {
  size_t layer = 0, group = 0;
  Side side = Side::key;
};

}  // namespace mkv
