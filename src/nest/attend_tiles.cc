#include "nest/attend_tiles.h"

#include <algorithm>
#include <cmath>

#include "nest/angle_kernels.h"
#include "nest/block_kernels.h"
#include "ops/ops.h"

namespace mkv {
namespace {

constexpr size_t kRunPlaces = kRunBlocks * kBlockTokens;
constexpr size_t kGroups = kRunBlocks / amx::kGroupBlocks;
static_assert(kRunBlocks % amx::kGroupBlocks == 0 && kRunBlocks <= amx::kMostBlocks);

size_t padded(size_t columns) { return (columns + 15) / 16 * 16; }

}  // namespace

bool TileAttention::usable(const KvCache::State& state, size_t layer) {
  if (state.nest == nullptr || state.arithmetic != Arithmetic::fast ||
      state.nest->config().slab_kind != SlabKind::code || !amx::usable()) {
    return false;
  }
  for (size_t group = 0; group < state.groups(); ++group) {
    const CodePlanes& keys = state.plan({layer, group, Side::key}).fine;
    if (keys.planes.size() > amx::kMostPlanes) return false;
  }
  return true;
}

void TileAttention::take_scratch(Arena& arena, const KvCache::State& state, size_t layer,
                                 CodedAttention::Sizes sizes) {
  state_ = &state;
  layer_ = layer;
  sizes_ = sizes;
  dims_ = state.nest->dims();
  head_dim_ = state.shape.head_dim;
  pairs_ = state.nest->config().key_mean == KeyMean::position ? head_dim_ / 2 : 0;
  query_tiles_ = 0;
  for (size_t group = 0; group < state.groups(); ++group) {
    const CodePlanes& planes = state.plan(space(group, Side::key)).fine;
    query_tiles_ = std::max(query_tiles_, amx::query_tiles_of(planes));
  }
  turned_size_ = amx::angle_tiles_of(pairs_) * 2 * amx::kTile;
  const size_t tiles = state.groups() * tiles_of_group();
  latents_ = arena.take<float>(sizes.heads * dims_);
  bytes_ = arena.take<int8_t>(tiles * query_tiles_ * amx::kTile);
  units_ = arena.take<float>(tiles * 2 * amx::kLanes);
  terms_ = arena.take<float>(tiles * amx::kLanes * 2 * pairs_);
  expanded_ = arena.take_for_each<int8_t>(amx::kExpandedBytes);
  turned_ = arena.take_for_each<int8_t>(turned_size_);
  scores_ = arena.take_for_each<float>(amx::kLanes * kRunPlaces);
  weights_ = arena.take_for_each<uint8_t>(kRunBlocks * amx::kTile);
  groups_ = arena.take_for_each<float>(3 * kGroups * amx::kLanes);
  sums_ = arena.take_for_each<float>(padded(dims_) * amx::kLanes);
}

amx::Queries TileAttention::queries(size_t group, size_t tile) const {
  const size_t index = group * tiles_of_group() + tile;
  float* unit = units_ + index * 2 * amx::kLanes;
  return {.heads = std::min(amx::kLanes, sizes_.group_heads - tile * amx::kLanes),
          .bytes = bytes_ + index * query_tiles_ * amx::kTile,
          .unit = unit,
          .base = unit + amx::kLanes,
          .terms = terms_ + index * amx::kLanes * 2 * pairs_,
          .pairs = pairs_};
}

void TileAttention::prepare(size_t kv_head, View<const float> queries_of) {
  const auto [group, row] = place_of(*state_, kv_head);
  const size_t first_head = kv_head * queries_of.rows;
  const GroupId id = space(group, Side::key);
  const Basis& basis = state_->nest->basis(id);
  const View<float> latents(latents_ + first_head * dims_, queries_of.rows, dims_);
  turn_queries(*state_, id, row, queries_of, latents);
  const std::span<const float> mean = std::span(basis.mean).subspan(row, head_dim_);
  const KeyMean kind = state_->nest->config().key_mean;
  for (size_t r = 0; r < queries_of.rows; ++r) {
    const size_t in_group = (first_head + r) % sizes_.group_heads, lane = in_group % amx::kLanes;
    const amx::Queries to = queries(group, in_group / amx::kLanes);
    const std::span<const float> query = queries_of.row(r);
    to.base[lane] = kind == KeyMean::plain ? dot(query, mean) : 0.0f;
    float* terms = to.terms + lane * 2 * pairs_;
    if (kind == KeyMean::position) mean_terms(query, mean, terms, terms + pairs_);
    amx::round_query(state_->plan(id).fine, latents.row(r).data(), lane, to);
  }
}

CodeBlocks TileAttention::code_blocks(GroupId id, Blocks blocks) const {
  const LayerCache& cache = state_->layers[layer_];
  return {reinterpret_cast<const uint8_t*>(cache.coded_block(id.group, id.side, blocks.begin)),
          cache.store(id.group, id.side).block_bytes(),
          blocks.count(),
          {}};
}

void TileAttention::attend(size_t group, Blocks blocks, Seen seen, std::span<const Out> out,
                           std::optional<Next> next, size_t worker) const {
  std::span<const uint8_t> ahead;
  if (next) {
    const CodeBlocks keys = code_blocks(space(next->group, Side::key), next->blocks);
    ahead = {keys.data, keys.count * keys.stride};
  }
  for (size_t tile = 0; tile < tiles_of_group(); ++tile) {
    const amx::Queries of_tile = queries(group, tile);
    attend_tile(of_tile, group, blocks, seen, out.subspan(tile * amx::kLanes, of_tile.heads), ahead,
                worker);
  }
}

void TileAttention::attend_tile(const amx::Queries& queries, size_t group, Blocks blocks, Seen seen,
                                std::span<const Out> out, std::span<const uint8_t> ahead,
                                size_t worker) const {
  const size_t count = blocks.count(), places = (count + 1) / 2 * amx::kPair;
  const View<float> scores(scores_.of(worker), queries.heads, places, kRunPlaces);
  const AngleTables& angles = state_->angles_of(layer_);
  CodeBlocks keys = code_blocks(space(group, Side::key), blocks);
  CodeBlocks values = code_blocks(space(group, Side::value), blocks);
  keys.ahead = {values.data, count * values.stride};
  values.ahead = ahead;
  amx::score_codes(state_->plan(space(group, Side::key)).fine, queries,
                   {angles.block_cos(blocks.begin), 2 * angles.pairs, angles.tiles.data()}, keys,
                   {expanded_.of(worker), turned_.of(worker)}, scores);
  const size_t first = blocks.begin * kBlockTokens;
  const auto hide = [&](size_t begin, size_t end) {
    for (size_t t = begin; t < end; ++t) {
      const size_t at = t / amx::kPair * amx::kPair + amx::place_of(t % amx::kPair);
      for (size_t h = 0; h < scores.rows; ++h) scores.at(h, at) = kHiddenScore;
    }
  };
  hide(0, seen.begin);
  hide(seen.end, places);
  state_->layers[layer_].for_later_sinks(
      first, first + count * kBlockTokens,
      [&](const LaterSink& sink) { hide(sink.row - first, sink.row - first + 1); });

  uint8_t* weights = weights_.of(worker);
  constexpr size_t kSize = kGroups * amx::kLanes;
  float* tops = groups_.of(worker);
  float *sums = tops + kSize, *factors = sums + kSize;
  amx::soften(scores, weights, tops, sums);
  const size_t groups = (count + amx::kGroupBlocks - 1) / amx::kGroupBlocks;
  // Lanes that are no head are 0: whatever else they held might be subnormal, and slow.
  std::fill_n(factors, kSize, 0.0f);
  for (size_t h = 0; h < queries.heads; ++h) {
    float top = tops[h], sum = 0.0f;
    for (size_t g = 1; g < groups; ++g) top = std::max(top, tops[g * amx::kLanes + h]);
    for (size_t g = 0; g < groups; ++g) {
      const float factor = std::exp(tops[g * amx::kLanes + h] - top);
      sum += factor * sums[g * amx::kLanes + h];
      factors[g * amx::kLanes + h] = factor / amx::kMostWeight;
    }
    *out[h].top = top;
    *out[h].sum = sum;
  }

  const SpacePlan& plan = state_->plan(space(group, Side::value));
  float* by_column = sums_.of(worker);
  std::fill_n(by_column, padded(plan.columns) * amx::kLanes, 0.0f);
  amx::weigh_codes(plan.fine, values, weights, factors, queries.heads, by_column);
  // Neighbouring heads' values are at one distance.
  const size_t stride = out.size() > 1 ? static_cast<size_t>(out[1].values - out[0].values) : dims_;
  amx::by_head(by_column, {out[0].values, queries.heads, plan.columns, stride});
}

}  // namespace mkv
