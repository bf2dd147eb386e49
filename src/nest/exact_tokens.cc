// Exact tokens of a layer: how new ones get to their places.
#include <algorithm>

#include "nest/kv_state.h"
#include "ops/ops.h"

namespace mkv {
namespace {

// kStoredTokens of them, or fewer, within a block.
void store_rows(ExactBlocks& exact, size_t row, View<const float> values) {
  std::byte* block = exact.store.block(row / kBlockTokens - exact.first);
  const size_t first = row % kBlockTokens;
  if (exact.type == DType::f32) {
    float* to = reinterpret_cast<float*>(block) + first;
    for (size_t t = 0; t < values.rows; ++t) {
      for (size_t c = 0; c < values.cols; ++c) to[c * kBlockTokens + t] = values.at(t, c);
    }
    return;
  }
  auto* to = reinterpret_cast<uint16_t*>(block) + first;
  constexpr size_t kPart = 256;  // columns
  uint16_t halves[kStoredTokens * kPart];
  for (size_t begin = 0; begin < values.cols; begin += kPart, to += kPart * kBlockTokens) {
    const View<uint16_t> part(halves, values.rows, std::min(kPart, values.cols - begin), kPart);
    for (size_t t = 0; t < part.rows; ++t) {
      f32_to_f16(values.row(t).subspan(begin, part.cols), part.row(t));
    }
    if (part.rows == kStoredTokens) {
      store_tokens(part, to);
    } else {
      for (size_t c = 0; c < part.cols; ++c) {
        for (size_t t = 0; t < part.rows; ++t) to[c * kBlockTokens + t] = part.at(t, c);
      }
    }
  }
}

// One side of the tokens at positions [begin, end), at least state.length.
void store_positions(const KvCache::State& state, LayerCache& layer, Side side,
                     View<const float> values, size_t begin, size_t end) {
  ExactBlocks& exact = layer.exact[static_cast<size_t>(side)];
  Matrix<float> rounded;
  for (size_t position = begin; position < end;) {
    const bool sink = position < state.sinks;
    const size_t row = sink ? 0 : position - state.sinks;
    const bool together = !sink && row % kStoredTokens == 0 && end - position >= kStoredTokens;
    const size_t count = together ? kStoredTokens : 1;
    View<const float> rows = values.rows_from(position - state.length, count);
    if (state.rounding != Rounding::none) {
      rounded.reshape(count, values.cols);
      for (size_t t = 0; t < count; ++t) {
        std::ranges::copy(rows.row(t), rounded.row(t).begin());
        round_row(state.rounding, state.shape.head_dim, rounded.row(t));
      }
      rows = rounded.view();
    }
    if (sink) {
      layer.sinks.store(side, position, rows.row(0));
    } else {
      store_rows(exact, row, rows);
    }
    position += count;
  }
}

// Room for the tokens up to `end`.
void grow(const KvCache::State& state, ExactBlocks& exact, size_t end, Buffer<std::byte>& passing) {
  if (state.rows_of(end) == 0) return;
  if (exact.store.blocks() == 0) exact.first = state.rows_of(state.length) / kBlockTokens;
  const size_t blocks = (state.rows_of(end) - 1) / kBlockTokens + 1 - exact.first;
  // Where some are about to be coded.
  if (state.window_blocks > 0 && state.coded_rows(end) > exact.first * kBlockTokens) {
    exact.store.grow_to(blocks, passing);
  } else {
    exact.store.grow_to(blocks);
  }
}

}  // namespace

void Sinks::allocate() { data.resize(row_bytes(type, 2 * count * width)); }

void Sinks::store(Side side, size_t sink, std::span<const float> values) {
  std::byte* to = data.data() + at(side, sink);
  if (type == DType::f32) {
    std::ranges::copy(values, reinterpret_cast<float*>(to));
  } else {
    f32_to_f16(values, {reinterpret_cast<uint16_t*>(to), values.size()});
  }
}

void Sinks::load(Side side, size_t sink, size_t first_column, std::span<float> out) const {
  const std::byte* from = row(side, sink, first_column);
  if (type == DType::f32) {
    std::copy_n(reinterpret_cast<const float*>(from), out.size(), out.begin());
  } else {
    f16_to_f32({reinterpret_cast<const uint16_t*>(from), out.size()}, out);
  }
}

void store_exact(KvCache::State& state, size_t layer, const AttentionInput& input,
                 AttentionScratch& scratch, Workers& workers) {
  LayerCache& cache = state.layers[layer];
  const size_t start = state.length, end = start + input.keys.rows;
  const auto grow_side = [&](size_t side, size_t) {
    grow(state, cache.exact[side], end, scratch.passing[side]);
  };
  // A task has the tokens of a block.
  const size_t first = state.rows_of(start) / kBlockTokens;
  const size_t blocks = (std::max<size_t>(1, state.rows_of(end)) - 1) / kBlockTokens + 1 - first;
  const auto store = [&](size_t task, size_t) {
    const size_t block = first + task / 2;
    const size_t from = state.sinks + block * kBlockTokens;
    store_positions(state, cache, task % 2 == 0 ? Side::key : Side::value,
                    task % 2 == 0 ? input.keys : input.values, block == first ? start : from,
                    std::min(end, from + kBlockTokens));
  };
  if (end - start == 1) {  // shorter than handing it out
    for (size_t side = 0; side < 2; ++side) grow_side(side, 0);
    for (size_t side = 0; side < 2; ++side) store(side, 0);
  } else {
    workers.run(2, grow_side);
    workers.run(2 * blocks, store);
  }
}

}  // namespace mkv
