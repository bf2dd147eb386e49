// Coding of tokens into latents and back.
#include <algorithm>

#include "nest/beam_kernels.h"
#include "nest/block_kernels.h"
#include "nest/kv_state.h"
#include "nest/slab_kernels.h"
#include "ops/brain_panels.h"
#include "ops/ops.h"

namespace mkv {

void add_position_mean(const AngleTables& angles, size_t block, std::span<const float> mean,
                       float sign, float* columns, size_t stride) {
  const size_t pairs = angles.pairs;
  const float* cos0 = angles.block_cos(block);
  const float* sin0 = angles.block_sin(block);
  for (size_t i = 0; i < pairs; ++i) {
    // R_t mean, t = block start + d, by the angle sum: A cos(d w) + B sin(d w) for each half.
    const float a = mean[i], b = mean[i + pairs];
    const float first_cos = sign * (a * cos0[i] - b * sin0[i]);
    const float first_sin = sign * (-a * sin0[i] - b * cos0[i]);
    const float* cos_d = angles.within_block.data() + i * kBlockTokens;
    const float* sin_d = angles.within_block.data() + (pairs + i) * kBlockTokens;
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
      add_position_mean(state.angles_of(id.layer), block,
                        std::span(basis.mean).subspan(h * head_dim, head_dim), sign,
                        columns + h * head_dim * stride, stride);
    }
    return;
  }
  for (size_t c = 0; c < basis.mean.size(); ++c) {
    for (size_t t = 0; t < kBlockTokens; ++t) columns[c * stride + t] += sign * basis.mean[c];
  }
}

void code_columns(const Matrix<float>& latents, size_t rank, size_t begin, size_t end,
                  std::byte* block) {
  auto* coded = reinterpret_cast<uint16_t*>(block);
  for (size_t c = 0; c < rank; ++c) {
    f32_to_f16(latents.row(c).subspan(begin, end - begin),
               {coded + c * kBlockTokens + begin, end - begin});
  }
}

// Writes the codes of rows begin ... end of a block; others, coded before, stay. fresh: 64 codes
// as they are stored.
void write_codes(const uint8_t* fresh, size_t begin, size_t end, uint8_t* codes) {
  constexpr size_t kHalf = kBlockTokens / 2;
  for (size_t i = 0; i < kHalf; ++i) {
    const unsigned mask =
        (i >= begin && i < end ? 0x0fu : 0u) | (i + kHalf >= begin && i + kHalf < end ? 0xf0u : 0u);
    codes[i] = static_cast<uint8_t>((codes[i] & ~mask) | (fresh[i] & mask));
  }
}

void code_slabs(const Basis& basis, Matrix<float>& latents, size_t rank, size_t begin, size_t end,
                uint8_t* block) {
  constexpr size_t kHalf = kBlockTokens / 2;
  for (size_t s = 0; s < rank; ++s) {
    const CodeSlab& slab = basis.slabs[s];
    uint8_t fresh[kHalf];
    encode_slab(slab.codebook, latents.row(slab.first_column).data(), kBlockTokens, fresh);
    write_codes(fresh, begin, end, block + s * kHalf);
  }
}

void code_slabs_by_beam(const Basis& basis, size_t rank, size_t beam, size_t begin, size_t end,
                        CodingScratch& scratch, uint8_t* block) {
  constexpr size_t kHalf = kBlockTokens / 2;
  uint8_t codes[kMostSlabsPerColumn][kBlockTokens], fresh[kHalf];
  for (size_t first = 0; first < scratch.latents.rows(); first += kSlabColumns) {
    scratch.slabs.clear();
    scratch.stages.clear();
    for (size_t s = 0; s < rank; ++s) {
      if (basis.slabs[s].first_column != first) continue;
      scratch.slabs.push_back(s);
      scratch.stages.push_back(&basis.slabs[s]);
    }
    if (scratch.stages.empty()) continue;
    encode_beam(scratch.stages, scratch.latents.row(first).data(), kBlockTokens, beam, codes);
    for (size_t i = 0; i < scratch.slabs.size(); ++i) {
      for (size_t t = 0; t < kHalf; ++t) {
        fresh[t] = static_cast<uint8_t>(codes[i][t] | codes[i][t + kHalf] << 4);
      }
      write_codes(fresh, begin, end, block + scratch.slabs[i] * kHalf);
    }
  }
}

// Of a layer whose leading tokens are all in, of which the first needs no turning back.
SinkLikeness likeness_to_first(const Sinks& sinks) {
  Matrix<float> keys(sinks.count, sinks.width), values(sinks.count, sinks.width);
  for (size_t s = 0; s < sinks.count && sinks.data.size() > 0; ++s) {
    sinks.load(Side::key, s, 0, keys.row(s));
    sinks.load(Side::value, s, 0, values.row(s));
  }
  return {keys.view(), values.view()};
}

// The leading columns of a matrix of a basis.
void split_matrix(View<const float> view, BrainRows& out) {
  out.reshape(view.rows, view.cols, left_parts(BrainParts::two_two));
  to_brain_rows(view, 0, out.tiles(), out);
}

// out = matrix * columns of a block's tokens: nothing is to be gained by packing so few, as
// oneDNN's products do.
void multiply_columns(View<const float> matrix, const Matrix<float>& columns, View<float> out) {
  for (size_t r = 0; r < out.rows; ++r) std::ranges::fill(out.row(r), 0.0f);
  score_columns(matrix, {reinterpret_cast<const std::byte*>(columns.data()), 0, DType::f32}, out);
}

// The leading columns of f16, in `floats`.
View<const float> widened(const Matrix<uint16_t>& halves, size_t columns, Matrix<float>& floats) {
  floats.reshape(halves.rows(), columns);
  for (size_t i = 0; i < halves.rows(); ++i) {
    f16_to_f32(halves.row(i).first(columns), floats.row(i));
  }
  return floats.view();
}

// The leading columns of decode that slabs reach, [dims x columns]; room for them at `floats`.
View<const float> kept_columns(const KvCache::State& state, GroupId id, Matrix<float>& floats) {
  const Basis& basis = state.nest->basis(id);
  const size_t columns = state.plan(id).columns;
  if (is_compact(basis)) return widened(basis.half_decode, columns, floats);
  return {basis.decode.data(), basis.decode.rows(), columns, basis.decode.cols()};
}

// The leading rows of encode, [rows x dims]; room for them at `floats`.
View<const float> encode_of(const Basis& basis, size_t rows, Matrix<float>& floats) {
  if (!is_compact(basis)) return basis.encode.view().rows_from(0, rows);
  const Matrix<uint16_t>& halves = basis.half_encode;
  floats.reshape(rows, halves.cols());
  f16_to_f32(halves.span().first(floats.span().size()), floats.span());
  scale_by(floats.span(), 1.0f / basis.half_encode_factor);
  return floats.view();
}

}  // namespace

void prepare_coding(const KvCache::State& state, GroupId id, CodingScratch& scratch) {
  const size_t dims = state.nest->dims();
  scratch.by_amx =
      state.arithmetic == Arithmetic::fast && has_brain_panels() && dims % kBrainRows == 0;
  // What no slab reaches is not needed, but for whole tiles.
  size_t rows = state.plan(id).columns;
  if (scratch.by_amx) rows = (rows + kBrainRows - 1) / kBrainRows * kBrainRows;
  scratch.encode = encode_of(state.nest->basis(id), rows, scratch.floats);
  if (scratch.by_amx) split_matrix(scratch.encode, scratch.split_encode);
}

void code_rows(KvCache::State& state, GroupId id, size_t block, size_t begin, size_t end,
               CodingScratch& scratch) {
  const Basis& basis = state.nest->basis(id);
  const size_t dims = state.nest->dims(), side = static_cast<size_t>(id.side);
  const size_t rank = state.rank(id.layer, id.group, id.side);
  if (rank == 0) return;
  LayerCache& layer = state.layers[id.layer];
  scratch.columns.reshape(dims, kBlockTokens);
  scratch.latents.reshape(scratch.encode.rows, kBlockTokens);
  widen_block(layer.exact[side].columns(block, id.group * dims), dims, scratch.columns.view(), 0);
  add_mean(state, id, block, -1.0f, scratch.columns.data(), kBlockTokens);
  if (scratch.by_amx) {
    multiply_brain_columns(scratch.split_encode, scratch.columns.view(), scratch.latents.view());
  } else {
    multiply_columns(scratch.encode, scratch.columns, scratch.latents.view());
  }
  std::byte* coded = layer.coded[id.group * 2 + side].block(block - layer.first_coded);
  if (state.nest->config().slab_kind == SlabKind::column) {
    code_columns(scratch.latents, rank, begin, end, coded);
    return;
  }
  auto* codes = reinterpret_cast<uint8_t*>(coded);
  if (state.beam > 1)
    return code_slabs_by_beam(basis, rank, state.beam, begin, end, scratch, codes);
  code_slabs(basis, scratch.latents, rank, begin, end, codes);
}

void find_later_sinks(KvCache::State& state, size_t layer, size_t begin, size_t end) {
  const LaterSinkRule rule = later_sink_rule(*state.types, layer, state.nest->config().later_sinks);
  const size_t most = rule.most, width = state.width();
  LayerCache& cache = state.layers[layer];
  std::erase_if(cache.later_sinks, [&](const LaterSink& sink) {
    return sink.row < state.first_seen_row(layer, state.length);
  });
  if (cache.later_sinks.size() >= most) return;
  if (!cache.likeness) cache.likeness = likeness_to_first(cache.sinks);
  static const std::vector<LaterSink> kNone;
  const std::vector<LaterSink>& before =
      rule.as_before ? state.layers[layer - 1].later_sinks : kNone;
  if (!cache.likeness->possible(!before.empty())) return;
  const size_t head_dim = state.shape.head_dim;
  const Rotary& rotary = state.types->of(layer).rotary;
  thread_local Matrix<float> keys, values, row_of;
  keys.reshape(width, kBlockTokens);
  values.reshape(width, kBlockTokens);
  row_of.reshape(3, width);
  const std::span<float> key = row_of.row(0), value = row_of.row(1), turned = row_of.row(2);
  thread_local std::vector<float> cos, sin;
  cos.resize(head_dim / 2);
  sin.resize(head_dim / 2);
  for (size_t row = begin; row < end && cache.later_sinks.size() < most; ++row) {
    const size_t block = row / kBlockTokens, t = row % kBlockTokens;
    if (row == begin || t == 0) {
      widen_block(cache.exact[0].columns(block, 0), width, keys.view(), 0);
      widen_block(cache.exact[1].columns(block, 0), width, values.view(), 0);
    }
    for (size_t c = 0; c < width; ++c) value[c] = values.at(c, t);
    const bool was = std::ranges::find(before, row, &LaterSink::row) != before.end();
    if (!cache.likeness->value_like(value, was)) continue;
    for (size_t c = 0; c < width; ++c) key[c] = keys.at(c, t);
    std::ranges::copy(key, turned.begin());
    rotary.angles(-static_cast<double>(row + state.sinks), cos, sin);
    rope_heads(turned, head_dim, cos, sin);
    if (!cache.likeness->key_like(turned, was)) continue;
    LaterSink& found = cache.later_sinks.emplace_back();
    found.row = row;
    found.token.type = state.exact_type;
    found.token.count = 1;
    found.token.width = width;
    found.token.allocate();
    found.token.store(Side::key, 0, key);
    found.token.store(Side::value, 0, value);
  }
}

void expand_latents(const KvCache::State& state, GroupId id, size_t block, float* out,
                    size_t stride) {
  const size_t rank = state.rank(id.layer, id.group, id.side);
  const std::byte* coded = state.layers[id.layer].coded_block(id.group, id.side, block);
  if (state.nest->config().slab_kind == SlabKind::column) {
    widen_block({coded, 0, DType::f16}, rank, {out, rank, kBlockTokens, stride}, 0);
    return;
  }
  const SpacePlan& plan = state.plan(id);
  for (size_t c = 0; c < plan.columns; ++c) std::fill_n(out + c * stride, kBlockTokens, 0.0f);
  const std::vector<CodeSlab>& slabs = state.nest->basis(id).slabs;
  for (size_t s = 0; s < rank; ++s) {
    expand_slab(slabs[s].codebook, reinterpret_cast<const uint8_t*>(coded) + s * kBlockTokens / 2,
                out + slabs[s].first_column * stride, stride);
  }
  for (size_t c = 0; c < plan.columns; ++c) {
    float* row = out + c * stride;
    for (size_t t = 0; t < kBlockTokens; ++t) row[t] *= plan.scale[c];
  }
}

void prepare_decoding(const KvCache::State& state, GroupId id, SpaceDecoder& out) {
  const size_t rank = state.rank(id.layer, id.group, id.side);
  const SpacePlan& plan = state.plan(id);
  out.by_amx = has_brain_panels();
  out.by_sums = !out.by_amx && state.nest->config().slab_kind == SlabKind::code &&
                has_code_sums(rank, plan.columns, state.nest->dims());
  if (!out.by_amx && !out.by_sums) return;
  Matrix<float> floats;
  const View<const float> decode = kept_columns(state, id, floats);
  if (out.by_amx) return split_matrix(decode, out.split);
  make_code_sums(std::span(state.nest->basis(id).slabs).first(rank), decode, plan.scale, out.sums);
}

void decode_block(const KvCache::State& state, GroupId id, size_t block, const SpaceDecoder* by,
                  View<float> out, DecodeScratch& scratch) {
  Matrix<float>& latents = scratch.latents;
  const size_t columns = state.plan(id).columns;
  if (columns != 0 && by != nullptr && by->by_sums) {
    const std::byte* coded = state.layers[id.layer].coded_block(id.group, id.side, block);
    add_up_codes(by->sums, reinterpret_cast<const uint8_t*>(coded), out, scratch.words);
  } else {
    latents.reshape(columns, kBlockTokens);
    expand_latents(state, id, block, latents.data(), kBlockTokens);
    if (columns != 0 && by != nullptr && by->by_amx) {
      multiply_brain_columns(by->split, latents.view(), out);
    } else {
      multiply_columns(kept_columns(state, id, scratch.basis), latents, out);
    }
  }
  add_mean(state, id, block, 1.0f, out.data, out.stride);
  const LayerCache& cache = state.layers[id.layer];
  if (cache.later_sinks.empty()) return;
  const size_t begin = block * kBlockTokens;
  std::vector<float> exact(out.rows);
  cache.for_later_sinks(begin, begin + kBlockTokens, [&](const LaterSink& sink) {
    sink.token.load(id.side, 0, id.group * out.rows, exact);
    for (size_t c = 0; c < out.rows; ++c) out.at(c, sink.row - begin) = exact[c];
  });
}

}  // namespace mkv
