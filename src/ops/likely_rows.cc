#include "ops/likely_rows.h"

#include <algorithm>
#include <limits>

#include "base/buffer.h"
#include "ops/integer_products.h"
#include "ops/ops.h"
#include "ops/planes.h"

namespace mkv {
namespace {

// Some microseconds of work; of whole tiles, one is.
constexpr size_t kTilesOfTask = 8;
// So many whole tiles take longer than looking for a better bound.
constexpr size_t kManyTiles = 100;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Of the calling thread; the workers use it as well.
struct LikelyScratch {
  IntegerRows rounded;
  Buffer<float> spread, most;
  Buffer<uint32_t> whole;  // tiles that are multiplied with all bits
};

void find_spread(std::span<const float> x, DType type, Buffer<float>& spread) {
  const float factor = kRestDeviations * kRestDeviations * rest_variance(type);
  const size_t columns = columns_of_scale(type);
  spread.resize(x.size() / columns);
  for (size_t i = 0; i < spread.size(); ++i) {
    const auto of_scale = x.subspan(i * columns, columns);
    spread[i] = factor * dot(of_scale, of_scale);
  }
}

}  // namespace

void multiply_likely_rows(std::span<const float> x, const Weight& w,
                          std::span<const uint32_t> uneven, float within, std::span<float> y,
                          Workers& workers) {
  MKV_CHECK(x.size() == w.cols && y.size() == w.rows && within >= 0);
  const View<const float> in(x.data(), 1, x.size());
  const View<float> out(y.data(), 1, y.size());
  const bool all = within == kInfinity;
  if (all || w.rows == 0 || w.layout != Layout::planes || !has_integer_products()) {
    return matmul(in, w, out, workers);
  }
  thread_local LikelyScratch kept;
  LikelyScratch& s = kept;
  s.rounded.reshape(1, x.size(), Split::yes);
  to_integer_rows(in, 0, 1, s.rounded);
  find_spread(x, w.type, s.spread);
  const size_t tiles = w.tiles();
  s.most.resize(tiles);
  workers.run_ranges(tiles, kTilesOfTask, [&](size_t first, size_t last, size_t) {
    multiply_leading_tiles(s.rounded, s.spread.span(), w, first, last, y, s.most.span());
  });

  const auto multiply = [&](size_t t) { multiply_integer_tiles(s.rounded, w, t, t + 1, out); };
  const auto largest_of = [&](size_t t) {
    multiply(t);
    const size_t row = t * kTileRows;
    const auto of_tile = y.subspan(row, std::min(kTileRows, y.size() - row));
    const size_t at = index_of_largest(of_tile);
    return at < of_tile.size() ? of_tile[at] : -kInfinity;
  };
  s.whole.resize(tiles);
  const auto collect = [&](float least) {
    size_t count = 0;
    for (size_t t = 0; t < tiles; ++t) {
      const bool less = s.most[t] < least;
      if (!less) s.whole[count++] = static_cast<uint32_t>(t);
    }
    return count;
  };
  // The tile of the largest bound most often has the largest element, or nearly so.
  const size_t best = index_of_largest(s.most.span());
  float largest = largest_of(best);
  for (const uint32_t t : uneven) s.most[t] = kInfinity;
  s.most[best] = -kInfinity;
  size_t count = collect(largest - within);
  // Where many are left, that of the largest element so far is nearer to it.
  if (count > kManyTiles) {
    const size_t next = index_of_largest(y) / kTileRows;
    if (next < tiles && next != best) {
      largest = std::max(largest, largest_of(next));
      s.most[next] = -kInfinity;
      count = collect(largest - within);
    }
  }
  workers.run(count, [&](size_t i, size_t) { multiply(s.whole[i]); });
}

}  // namespace mkv
