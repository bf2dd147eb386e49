// A nest without a fit: bases are the identity, so that a cut leaves columns out.
#pragma once

#include "eval/tiny_model.h"

namespace mkv {

inline Nest identity_nest(const Model& model, size_t recent) {
  NestConfig config;
  config.shape = model.config().kv_shape();
  config.recent = recent;
  return must(Nest::create(config));
}

// `share` of every space's slabs.
inline Ranks cut_ranks(const Nest& nest, double share) {
  Ranks ranks = nest.full_ranks();
  for (uint16_t& rank : ranks) rank = static_cast<uint16_t>(rank * share);
  return ranks;
}

}  // namespace mkv
