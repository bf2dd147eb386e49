#include "model/pack_weights.h"

#include <vector>

#include "base/workers.h"
#include "ops/planes.h"
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

void pack_tiles(const Weight& w, std::span<std::byte> to, Workers& workers) {
  const size_t bytes = kTileRows * row_bytes(w.type, w.cols);
  workers.run(w.tiles(), [&](size_t t, size_t) { pack_tile(w, t, to.subspan(t * bytes, bytes)); });
}

// Returns the tiles that are not even.
std::vector<uint32_t> pack_planes(const Weight& w, std::span<std::byte> to, Workers& workers) {
  Weight planes = w;
  planes.data = to.data();
  planes.layout = Layout::planes;
  std::vector<Buffer<std::byte>> tiles(workers.count());
  std::vector<uint8_t> even(w.tiles());
  workers.run(w.tiles(), [&](size_t t, size_t worker) {
    Buffer<std::byte>& tile = tiles[worker];
    tile.resize(kTileRows * row_bytes(w.type, w.cols));
    pack_tile(w, t, tile.span());
    even[t] = split_tile(tile.span(), planes, t, to.data()) ? 1 : 0;
  });
  std::vector<uint32_t> uneven;
  for (size_t t = 0; t < even.size(); ++t) {
    if (even[t] == 0) uneven.push_back(static_cast<uint32_t>(t));
  }
  return uneven;
}

}  // namespace

PackedWeights pack_weights(ModelWeights& weights,
                           const std::function<void(std::span<const std::byte>)>& packed) {
  const bool tied = weights.output.data == weights.embedding.data;
  const Weight* output = tied ? &weights.embedding : &weights.output;
  const std::vector<Weight*> matrices = tiled_matrices(weights);
  size_t total = 0;
  for (const Weight* w : matrices) total += aligned(w->tiled_bytes());
  PackedWeights result;
  if (matrices.empty()) return result;
  result.bytes.reserve(total);  // every byte that is read is packed: nothing need be zeroed first
  std::span<std::byte> rest(result.bytes.data(), total);
  Workers workers;
  for (Weight* w : matrices) {
    const std::span<std::byte> to = rest.first(w->tiled_bytes());
    const bool planes = w == output && has_planes(w->type);
    if (planes) {
      result.uneven = pack_planes(*w, to, workers);
    } else {
      pack_tiles(*w, to, workers);
    }
    packed({w->data, w->bytes()});
    w->data = to.data();
    w->layout = planes ? Layout::planes : Layout::tiles;
    rest = rest.subspan(aligned(to.size()));
  }
  if (tied) weights.output = weights.embedding;
  return result;
}

}  // namespace mkv
