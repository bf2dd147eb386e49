#include "model/pack_weights.h"

#include <vector>

#include "base/workers.h"
#include "ops/tiles.h"

namespace mkv {
namespace {

constexpr size_t kAlignment = 64;

size_t aligned(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

// Of the matrices that have tiles; a tied output is the embedding.
std::vector<Weight*> tiled_matrices(ModelWeights& weights) {
  std::vector<Weight*> found;
  const auto add = [&](Weight& w) {
    if (has_tiles(w.type)) found.push_back(&w);
  };
  add(weights.embedding);
  if (weights.output.data != weights.embedding.data) add(weights.output);
  for (LayerWeights& l : weights.layers) {
    for (Weight* w : {&l.query, &l.key, &l.value, &l.output, &l.gate, &l.up, &l.down}) add(*w);
  }
  return found;
}

}  // namespace

Buffer<std::byte> pack_weights(ModelWeights& weights,
                               const std::function<void(std::span<const std::byte>)>& packed) {
  const bool tied = weights.output.data == weights.embedding.data;
  const std::vector<Weight*> matrices = tiled_matrices(weights);
  size_t total = 0;
  for (const Weight* w : matrices) total += aligned(w->tiled_bytes());
  Buffer<std::byte> buffer;
  if (matrices.empty()) return buffer;
  buffer.reserve(total);  // every byte that is read is packed, so nothing need be zeroed first
  std::span<std::byte> rest(buffer.data(), total);
  Workers workers;
  for (Weight* w : matrices) {
    const size_t tile_bytes = kTileRows * row_bytes(w->type, w->cols);
    const std::span<std::byte> to = rest.first(w->tiled_bytes());
    workers.run(w->tiles(), [&](size_t t, size_t) {
      pack_tile(*w, t, to.subspan(t * tile_bytes, tile_bytes));
    });
    packed({w->data, w->bytes()});
    w->data = to.data();
    w->layout = Layout::tiles;
    rest = rest.subspan(aligned(to.size()));
  }
  if (tied) weights.output = weights.embedding;
  return buffer;
}

}  // namespace mkv
