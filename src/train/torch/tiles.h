// The tiles of queries that attention is computed by.
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "nest/kv_cache.h"
#include "train/torch/functions.h"

namespace mkv::training {

// Queries of a tile: a block, so that all of them see the same keys exactly.
constexpr auto kTile = static_cast<int64_t>(kBlockTokens);

// Keys before `exact` are seen as codes, the others, up to a query's own, exactly.
struct Tile {
  int64_t begin, end, exact;
};

// The rule of CodedView: a key of block b is seen as codes from `recent` after its block's start.
// Blocks begin after the sinks and `recent` is whole blocks, so the same holds for a tile's
// queries.
inline std::vector<Tile> tiles_of(int64_t tokens, const AttentionView& view) {
  std::vector<Tile> tiles;
  int64_t end = view.sinks > 0 ? view.sinks : kTile;
  for (int64_t begin = 0; begin < tokens; begin = std::exchange(end, end + kTile)) {
    Tile tile{begin, std::min(tokens, end), 0};
    tile.exact = view.recent > 0 ? std::max(view.sinks, begin - view.recent + kTile) : tile.end;
    tile.exact = std::min(tile.exact, tile.end);
    tiles.push_back(tile);
  }
  return tiles;
}

// A tile's keys or values [kv x end x head_dim].
inline Tensor seen(const Tile& tile, const Tensor& coded, const Tensor& exact) {
  if (tile.exact == tile.end) return coded.slice(1, 0, tile.end);
  return torch::cat({coded.slice(1, 0, tile.exact), exact.slice(1, tile.exact, tile.end)}, 1);
}
inline void add_seen(const Tile& tile, const Tensor& d, Tensor& coded, Tensor& exact) {
  coded.slice(1, 0, tile.exact).add_(d.slice(1, 0, tile.exact));
  if (tile.exact == tile.end) return;
  exact.slice(1, tile.exact, tile.end).add_(d.slice(1, tile.exact));
}

}  // namespace mkv::training
