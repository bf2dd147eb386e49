// Coding of tokens into latents and back.
#include "base/half.h"
#include "nest/block_kernels.h"
#include "nest/kv_state.h"
#include "ops/gemm.h"

namespace mkv {

void add_position_mean(const KvCache::State& state, size_t block, std::span<const float> mean,
                       float sign, float* columns, size_t stride) {
  const size_t pairs = state.rotary->pairs();
  const float* cos0 = state.block_cos(block);
  const float* sin0 = state.block_sin(block);
  for (size_t i = 0; i < pairs; ++i) {
    // R_t mean, t = block start + d, by the angle sum: A cos(d w) + B sin(d w) for each half.
    const float a = mean[i], b = mean[i + pairs];
    const float first_cos = sign * (a * cos0[i] - b * sin0[i]);
    const float first_sin = sign * (-a * sin0[i] - b * cos0[i]);
    const float* cos_d = state.relative_angles.data() + i * kBlockTokens;
    const float* sin_d = state.relative_angles.data() + (pairs + i) * kBlockTokens;
    float* low = columns + i * stride;
    float* high = columns + (i + pairs) * stride;
    for (size_t d = 0; d < kBlockTokens; ++d) {
      low[d] += first_cos * cos_d[d] + first_sin * sin_d[d];
      high[d] += first_cos * sin_d[d] - first_sin * cos_d[d];
    }
  }
}

namespace {

// Adds sign * mean of a space to the 64 tokens of a block, columns [dims][...].
void add_mean(const KvCache::State& state, GroupId id, size_t block, float sign, float* columns,
              size_t stride) {
  const NestConfig& config = state.nest->config();
  const Basis& basis = state.nest->basis(id);
  if (id.side == Side::key && config.key_mean == KeyMean::none) return;
  const size_t head_dim = config.shape.head_dim;
  if (id.side == Side::key && config.key_mean == KeyMean::position) {
    for (size_t h = 0; h < config.group_size; ++h) {
      add_position_mean(state, block, std::span(basis.mean).subspan(h * head_dim, head_dim), sign,
                        columns + h * head_dim * stride, stride);
    }
    return;
  }
  for (size_t c = 0; c < basis.mean.size(); ++c) {
    for (size_t t = 0; t < kBlockTokens; ++t) columns[c * stride + t] += sign * basis.mean[c];
  }
}

}  // namespace

void code_rows(KvCache::State& state, GroupId id, size_t block, size_t begin, size_t end,
               CodingScratch& scratch) {
  const Basis& basis = state.nest->basis(id);
  const size_t dims = state.nest->dims(), side = static_cast<size_t>(id.side);
  const size_t rank = state.rank(id.layer, id.group, id.side);
  if (rank == 0) return;
  LayerCache& layer = state.layers[id.layer];
  scratch.columns.reshape(dims, kBlockTokens);
  widen_block(layer.exact[side].block(block) + id.group * dims * kBlockTokens, dims,
              scratch.columns.view(), 0);
  add_mean(state, id, block, -1.0f, scratch.columns.data(), kBlockTokens);
  const size_t count = end - begin;
  scratch.tokens.reshape(count, dims);
  for (size_t t = 0; t < count; ++t) {
    for (size_t c = 0; c < dims; ++c) scratch.tokens.at(t, c) = scratch.columns.at(c, begin + t);
  }
  scratch.latents.reshape(count, rank);
  gemm(scratch.tokens.view(), View<const float>(basis.encode.data(), dims, rank, dims),
       Transpose::no, 0.0f, scratch.latents.view());
  auto* coded = reinterpret_cast<uint16_t*>(layer.coded[id.group * 2 + side].block(block));
  for (size_t c = 0; c < rank; ++c) {
    for (size_t t = 0; t < count; ++t) {
      coded[c * kBlockTokens + begin + t] = f32_to_f16(scratch.latents.at(t, c));
    }
  }
}

void decode_blocks(const KvCache::State& state, GroupId id, size_t first, size_t count,
                   View<float> out, Matrix<float>& latents) {
  const Basis& basis = state.nest->basis(id);
  const size_t dims = state.nest->dims();
  const size_t rank = state.rank(id.layer, id.group, id.side);
  const SlabStore& store =
      state.layers[id.layer].coded[id.group * 2 + static_cast<size_t>(id.side)];
  if (rank == 0) {
    for (size_t c = 0; c < dims; ++c) std::fill_n(out.row(c).data(), count * kBlockTokens, 0.0f);
  } else {
    latents.reshape(rank, count * kBlockTokens);
    for (size_t b = 0; b < count; ++b) {
      widen_block(reinterpret_cast<const uint16_t*>(store.block(first + b)), rank, latents.view(),
                  b * kBlockTokens);
    }
    gemm(View<const float>(basis.decode.data(), dims, rank, dims), latents.view(), Transpose::no,
         0.0f, {out.data, dims, count * kBlockTokens, out.stride});
  }
  for (size_t b = 0; b < count; ++b) {
    add_mean(state, id, first + b, 1.0f, out.data + b * kBlockTokens, out.stride);
  }
}

}  // namespace mkv
