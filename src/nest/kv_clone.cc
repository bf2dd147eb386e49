// KvCache::clone: several continuations of one context, which is computed once.
#include "nest/kv_state.h"

namespace mkv {
namespace {

std::vector<SlabStore> clone_all(const std::vector<SlabStore>& stores) {
  std::vector<SlabStore> copies;
  copies.reserve(stores.size());
  for (const SlabStore& store : stores) copies.push_back(store.clone());
  return copies;
}

CodePlanes clone_planes(const CodePlanes& planes) {
  return {planes.planes, planes.slabs, planes.entries.clone()};
}

SpacePlan clone_plan(const SpacePlan& plan) {
  return {.columns = plan.columns,
          .scale = plan.scale,
          .rest = plan.rest,
          .planes = clone_planes(plan.planes)};
}

AngleTables clone_angles(const AngleTables& angles) {
  return {.of_blocks = angles.of_blocks.clone(),
          .within_block = angles.within_block.clone(),
          .mean = angles.mean.clone(),
          .pairs = angles.pairs};
}

Sinks clone_sinks(const Sinks& sinks) {
  return {sinks.type, sinks.count, sinks.width, sinks.data.clone()};
}

LayerCache clone_layer(const LayerCache& layer) {
  LayerCache copy;
  copy.first_coded = layer.first_coded;
  copy.coded = clone_all(layer.coded);
  for (size_t side = 0; side < layer.exact.size(); ++side) {
    copy.exact[side].first = layer.exact[side].first;
    copy.exact[side].type = layer.exact[side].type;
    copy.exact[side].store = layer.exact[side].store.clone();
  }
  copy.sinks = clone_sinks(layer.sinks);
  copy.likeness = layer.likeness;
  for (const LaterSink& sink : layer.later_sinks) {
    copy.later_sinks.push_back({sink.row, clone_sinks(sink.token)});
  }
  return copy;
}

}  // namespace

KvCache KvCache::clone() const {
  const State& from = *state_;
  KvCache copy(from.shape, *from.types, from.capacity,
               {.exact = from.exact_type,
                .arithmetic = from.arithmetic,
                .beam = from.beam,
                .rounding = from.rounding});
  State& to = *copy.state_;
  to.nest = from.nest;
  to.length = from.length;
  to.sinks = from.sinks;
  to.window_blocks = from.window_blocks;
  to.ranks = from.ranks;
  for (const SpacePlan& plan : from.plans) to.plans.push_back(clone_plan(plan));
  for (size_t l = 0; l < from.layers.size(); ++l) to.layers[l] = clone_layer(from.layers[l]);
  for (const AngleTables& angles : from.angles) to.angles.push_back(clone_angles(angles));
  return copy;
}

KvCache KvCache::clone_in_float32() const {
  KvCache copy = clone();
  copy.state_->arithmetic = Arithmetic::float32;
  return copy;
}

}  // namespace mkv
