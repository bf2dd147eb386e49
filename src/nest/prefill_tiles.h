// How the new tokens of a prefill are split into tiles, for nest/attend_prefill.cc.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include "nest/flash_kernels.h"
#include "nest/kv_state.h"

namespace mkv::prefill {

// Most tokens of a tile: few enough for workers to end together.
inline constexpr size_t kTileTokens = 32;

// New tokens of one block (or, before row 0, the sinks themselves): they share a view.
struct Tile {
  size_t token = 0, count = 0;  // among the new tokens
  bool sink = false;
  size_t block = 0, row = 0;  // of the first token, when not a sink
  size_t slot = 0;            // its first row (token, repeat) among those of a head
};

// Of some keys, those that token t of a tile sees: [from + t, to + step * t), cut to what there
// is.
struct Seen {
  ptrdiff_t from = 0;
  size_t to = 0, step = 0;

  size_t begin(size_t t, size_t keys) const {
    return static_cast<size_t>(
        std::clamp<ptrdiff_t>(from + static_cast<ptrdiff_t>(t), 0, static_cast<ptrdiff_t>(keys)));
  }
  size_t end(size_t t, size_t keys) const { return std::min(keys, to + step * t); }
};

// A tile's rows (token, repeat), in whole groups.
inline size_t rows_of(const Tile& tile, size_t repeats) {
  const size_t groups = (tile.count * repeats + flash::kGroupRows - 1) / flash::kGroupRows;
  return groups * flash::kGroupRows;
}

inline std::vector<Tile> make_tiles(const KvCache::State& state, size_t tokens, size_t repeats) {
  std::vector<Tile> tiles;
  size_t slot = 0;
  for (size_t t = 0; t < tokens;) {
    const size_t position = state.length + t;
    Tile tile{.token = t, .slot = slot};
    if (position < state.sinks) {
      tile.sink = true;
      tile.count = std::min(tokens - t, state.sinks - position);
    } else {
      tile.row = position - state.sinks;
      tile.block = tile.row / kBlockTokens;
      tile.count = std::min({tokens - t, (tile.block + 1) * kBlockTokens - tile.row, kTileTokens});
    }
    tiles.push_back(tile);
    t += tile.count;
    slot += rows_of(tile, repeats);
  }
  return tiles;
}

}  // namespace mkv::prefill
