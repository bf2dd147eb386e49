// A nest of columns to start training from.
#pragma once

#include "eval/tiny_model.h"
#include "nest/nest.h"

namespace mkv::training {

// No recent window; the bases are the identity, the ladder uniform in steps of four columns.
inline Nest plain_column_nest(const Model& model) {
  NestConfig config;
  config.shape = model.config().kv_shape();
  config.recent = 0;
  config.model_hash = model.weights_hash();
  Nest nest = must(Nest::create(config));
  EXPECT_TRUE(nest.set_ladder(uniform_ladder(nest, 4)));
  return nest;
}

}  // namespace mkv::training
