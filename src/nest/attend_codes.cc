#include "nest/attend_codes.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "nest/block_kernels.h"
#include "nest/row_kernels.h"
#include "nest/slab_kernels.h"
#include "ops/ops.h"

namespace mkv {

namespace {

constexpr size_t kRowsAtOnce = 64;
constexpr size_t kRunParts = count_parts(kRunBlocks);
// What a part's tokens weigh is at most its largest weight times e^this.
constexpr float kLogOfPart = 5.55f;
static_assert(kWeighBlocks * kBlockTokens == 256);

// Rows of decode from `first` on, as many as `at` has room for.
Rows decode_rows(const Basis& basis, size_t first, std::span<const std::byte*> at) {
  const bool half = is_compact(basis);
  for (size_t i = 0; i < at.size(); ++i) {
    at[i] = half ? reinterpret_cast<const std::byte*>(basis.half_decode.row(first + i).data())
                 : reinterpret_cast<const std::byte*>(basis.decode.row(first + i).data());
  }
  return {at, half ? DType::f16 : DType::f32};
}

}  // namespace

HeadPlace place_of(const KvCache::State& state, size_t kv_head) {
  const size_t size = state.nest->config().group_size;
  return {kv_head / size, kv_head % size * state.shape.head_dim};
}

size_t reached_columns(const KvCache::State& state, GroupId id) {
  constexpr size_t kLanes = 16;
  const size_t columns = state.plan(id).columns;
  return std::min(state.nest->dims(), (columns + kLanes - 1) / kLanes * kLanes);
}

void turn_queries(const KvCache::State& state, GroupId id, size_t row, View<const float> queries,
                  View<float> latents) {
  const size_t columns = reached_columns(state, id);
  const View<float> reached(latents.data, latents.rows, columns, latents.stride);
  for (size_t q = 0; q < queries.rows; ++q) std::ranges::fill(reached.row(q), 0.0f);
  std::array<const std::byte*, kRowsAtOnce> at;
  for (size_t first = 0; first < queries.cols; first += kRowsAtOnce) {
    const size_t count = std::min(kRowsAtOnce, queries.cols - first);
    weigh_rows({queries.data + first, queries.rows, count, queries.stride},
               decode_rows(state.nest->basis(id), row + first, std::span(at).first(count)),
               reached);
  }
}

void CodedAttention::take_scratch(Arena& arena, const KvCache::State& state, size_t layer,
                                  Sizes sizes) {
  state_ = &state;
  layer_ = layer;
  sizes_ = sizes;
  dims_ = state.nest->dims();
  head_dim_ = state.shape.head_dim;
  latent_queries_ = arena.take<float>(sizes.heads * dims_);
  mean_units_ = arena.take<float>(sizes.heads);
  mean_terms_ = arena.take<float>(sizes.heads * head_dim_);
  const size_t heads = sizes.group_heads;
  turned_ = arena.take_for_each<int16_t>(heads * turned_size());
  largest_ = arena.take_for_each<float>(heads * kRunParts);
  least_sums_ = arena.take_for_each<float>(heads);
  part_units_ = arena.take_for_each<float>(heads);
  heavy_ = arena.take_for_each<size_t>(heads);
  kept_ = arena.take_for_each<float>(heads * dims_);
  expanded_ = arena.take_for_each<float>(dims_ * kBlockTokens);
  if (!integer()) return;
  slabs_ = 0;
  for (size_t group = 0; group < state.groups(); ++group) {
    slabs_ = std::max<size_t>(slabs_, state.rank(layer, group, Side::key));
  }
  expected_ = arena.take<float>(sizes.heads);
  if (scores_by_fours()) {
    units_ = arena.take<float>(3 * sizes.heads);
    entries_ = arena.take<uint8_t>(sizes.heads * four_count(slabs_) * kFour * kCodebookEntries);
    factors_ = arena.take<int32_t>(sizes.heads * factor_count(slabs_));
  } else {
    bytes_ = arena.take<ByteTables>(sizes.heads * part_count(slabs_));
  }
  values_ = arena.take_for_each<float>(slabs_ * kCodebookEntries);
  weights_ = arena.take_for_each<uint8_t>(heads * kWeighBlocks * kBlockTokens);
}

ScoreTables CodedAttention::score_tables(size_t group) const {
  const size_t slabs = state_->rank(layer_, group, Side::key), heads = sizes_.group_heads;
  const size_t first = group * heads;
  ScoreTables tables{.slabs = slabs, .heads = heads, .expected = expected_ + first};
  if (scores_by_fours()) {
    tables.unit = units_ + first;
    tables.base = tables.unit + sizes_.heads;
    tables.rest_base = tables.base + sizes_.heads;
    tables.entries = entries_ + first * four_count(slabs_) * kFour * kCodebookEntries;
    tables.factors = factors_ + first * factor_count(slabs_);
  } else {
    tables.bytes = bytes_ + first * part_count(slabs_);
  }
  return tables;
}

CodeBlocks CodedAttention::code_blocks(GroupId id, size_t begin, size_t end) const {
  const LayerCache& cache = state_->layers[layer_];
  const std::byte* data = cache.coded_block(id.group, id.side, begin);
  return {reinterpret_cast<const uint8_t*>(data),
          cache.store(id.group, id.side).block_bytes(),
          end - begin,
          {}};
}

std::span<const uint8_t> CodedAttention::code_bytes(GroupId id, Blocks blocks) const {
  const CodeBlocks codes = code_blocks(id, blocks.begin, blocks.end);
  return {codes.data, codes.count * codes.stride};
}

ColumnBlocks CodedAttention::column_blocks(GroupId id, size_t begin) const {
  const LayerCache& cache = state_->layers[layer_];
  return {cache.coded_block(id.group, id.side, begin), cache.store(id.group, id.side).block_bytes(),
          DType::f16};
}

void CodedAttention::ask_for_basis(size_t kv_head, Side side, size_t first, size_t count) const {
  const auto [group, row] = place_of(*state_, kv_head);
  const GroupId id = space(group, side);
  const Basis& basis = state_->nest->basis(id);
  const size_t element = is_compact(basis) ? sizeof(uint16_t) : sizeof(float);
  const size_t bytes = reached_columns(*state_, id) * element;
  const std::byte* at = nullptr;
  for (size_t r = row + first; r < row + first + count; ++r) {
    decode_rows(basis, r, {&at, 1});
    prefetch(at, bytes);
  }
}

void CodedAttention::prepare(size_t kv_head, View<const float> queries, size_t worker) {
  const auto [group, row] = place_of(*state_, kv_head);
  const size_t first_head = kv_head * queries.rows;
  const GroupId id = space(group, Side::key);
  const Basis& basis = state_->nest->basis(id);
  const SpacePlan& plan = state_->plan(id);
  const View<float> latents(latent_queries_ + first_head * dims_, queries.rows, dims_);
  prefetch_to_write(latents.data, queries.rows * dims_ * sizeof(float));
  prefetch_to_write(mean_terms_ + first_head * head_dim_, queries.rows * head_dim_ * sizeof(float));
  if (integer() && scores_by_fours()) {
    const size_t size = four_count(slabs_) * kFour * kCodebookEntries;
    prefetch_to_write(entries_ + first_head * size, queries.rows * size);
  }
  turn_queries(*state_, id, row, queries, latents);
  const std::span<const CodeSlab> slabs =
      std::span(basis.slabs).first(state_->rank(layer_, group, Side::key));
  for (size_t r = 0; r < queries.rows; ++r) {
    prepare_mean(first_head + r, std::span(basis.mean).subspan(row, head_dim_), queries.row(r));
    if (!integer()) continue;
    const std::span<float> latent = latents.row(r);
    for (size_t c = 0; c < plan.columns; ++c) latent[c] *= plan.scale[c];
    prepare_rest(first_head + r, plan, latent.first(plan.columns),
                 {kept_.of(worker), plan.columns});
    float* values = values_.of(worker);
    tabulate_slabs(slabs, latent.data(), values);
    round_tables(values, (first_head + r) % sizes_.group_heads, score_tables(group));
  }
}

// A code of a slab is taken for any of its 16, and slabs for independent: so what they add is about
// normal, and its exponential's mean that of the mean and a half of the variance.
void CodedAttention::prepare_rest(size_t head, const SpacePlan& plan, std::span<const float> latent,
                                  std::span<float> room) {
  for (size_t c = 0; c < latent.size(); ++c) room[c] = latent[c] * plan.rest.variance[c];
  expected_[head] = dot(plan.rest.mean, latent) + 0.5f * dot(room, latent);
}

void CodedAttention::ask_for_tables(size_t group) const {
  if (!integer()) return;
  const size_t heads = sizes_.group_heads;
  prefetch(mean_terms_ + group * heads * head_dim_, heads * head_dim_ * sizeof(float));
  const ScoreTables tables = score_tables(group);
  if (scores_by_fours()) {
    prefetch(tables.entries, heads * four_count(slabs_) * kFour * kCodebookEntries);
    prefetch(tables.factors, heads * factor_count(slabs_) * sizeof(*tables.factors));
  } else {
    prefetch(tables.bytes, heads * part_count(slabs_) * sizeof(*tables.bytes));
  }
}

void CodedAttention::score(size_t group, Blocks blocks, View<float> scores, size_t worker) const {
  score_mean(group, blocks, scores, worker);
  const GroupId id = space(group, Side::key);
  const size_t slabs = state_->rank(layer_, group, Side::key);
  const size_t first_head = group * sizes_.group_heads;
  if (slabs == 0) return;
  if (integer()) {
    CodeBlocks keys = code_blocks(id, blocks.begin, blocks.end);
    keys.ahead = code_bytes(space(group, Side::value), blocks);
    const std::span<size_t> all(heavy_.of(worker), scores.rows);
    std::iota(all.begin(), all.end(), size_t{0});
    return score_slabs(score_tables(group), Slabs::leading, keys, all, scores);
  }
  const View<const float> queries(latent_queries_ + first_head * dims_, scores.rows,
                                  state_->plan(id).columns, dims_);
  if (!codes()) return score_columns(queries, column_blocks(id, blocks.begin), scores);
  float* expanded = expanded_.of(worker);
  for (size_t b = blocks.begin; b < blocks.end; ++b) {
    expand_latents(*state_, id, b, expanded, kBlockTokens);
    score_columns(queries, {reinterpret_cast<const std::byte*>(expanded), 0, DType::f32},
                  {scores.data + (b - blocks.begin) * kBlockTokens, scores.rows, kBlockTokens,
                   scores.stride});
  }
}

void CodedAttention::weigh(size_t group, Blocks blocks, View<float> scores,
                           const Partials& partials, size_t run, std::optional<Next> next,
                           size_t worker) const {
  const GroupId id = space(group, Side::value);
  const size_t first_head = group * sizes_.group_heads;
  if (integer()) {
    weigh_codes(group, blocks, scores, partials, run, next, worker);
  } else {
    float* largest = largest_.of(worker);  // of one part
    partials.start(run, first_head, scores, scores.cols, largest);
    for (size_t h = 0; h < scores.rows; ++h) {
      if (!Partials::counts(largest[h])) std::ranges::fill(scores.row(h), 0.0f);
    }
  }
  for (size_t h = 0; h < scores.rows; ++h) {
    const Partial part = partials.at(run, first_head + h);
    part.coded_weight = part.sum;
  }
  if (integer() || state_->rank(layer_, group, Side::value) == 0) return;
  const View<float> kept(partials.at(run, first_head).values, scores.rows, state_->plan(id).columns,
                         partials.stride());
  if (!codes()) return weigh_columns(scores, column_blocks(id, blocks.begin), kept);
  float* expanded = expanded_.of(worker);
  for (size_t b = blocks.begin; b < blocks.end; ++b) {
    expand_latents(*state_, id, b, expanded, kBlockTokens);
    weigh_columns(
        {scores.data + (b - blocks.begin) * kBlockTokens, scores.rows, kBlockTokens, scores.stride},
        {reinterpret_cast<const std::byte*>(expanded), 0, DType::f32}, kept);
  }
}

Prefetcher CodedAttention::ask_for_keys(std::optional<Next> next, size_t steps) const {
  if (!next || !codes()) return {{}, 0};
  return {code_bytes(space(next->group, Side::key), next->blocks), steps};
}

// Scores have the other slabs too where they make a difference: where a part's peaks weigh as much
// as a part that is left out may. Of what stays as expected all tokens of a part weigh less than
// four times that. largest[head][part of a run] is found on the way.
void CodedAttention::score_rest(size_t group, Blocks blocks, View<float> scores,
                                const Partials& partials, float* largest, size_t worker) const {
  constexpr size_t kPart = kWeighBlocks * kBlockTokens;
  const size_t first_head = group * scores.rows;
  size_t* heavy = heavy_.of(worker);
  for (size_t t = 0; t < scores.cols; t += kPart, ++largest) {
    const size_t tokens = std::min(kPart, scores.cols - t);
    const auto part_of = [&](size_t h) { return scores.row(h).subspan(t, tokens); };
    size_t count = 0;
    for (size_t h = 0; h < scores.rows; ++h) {
      const auto [top, reach] = peaks_of(part_of(h), partials.least(first_head + h));
      largest[h * kRunParts] = top;
      if (reach) heavy[count++] = h;
    }
    if (count == 0) continue;
    const size_t begin = blocks.begin + t / kBlockTokens;
    const CodeBlocks keys =
        code_blocks(space(group, Side::key), begin, std::min(blocks.end, begin + kWeighBlocks));
    score_slabs(score_tables(group), Slabs::rest, keys, {heavy, count},
                {scores.data + t, scores.rows, tokens, scores.stride});
    for (size_t i = 0; i < count; ++i) {
      largest[heavy[i] * kRunParts] = max_of(part_of(heavy[i]));
    }
  }
}

// Weights are rounded to bytes, a few blocks at a time: each has the precision of its own largest.
void CodedAttention::weigh_codes(size_t group, Blocks blocks, View<float> scores,
                                 const Partials& partials, size_t run, std::optional<Next> next,
                                 size_t worker) const {
  const size_t heads = scores.rows, first_head = group * heads;
  constexpr size_t kPart = kWeighBlocks * kBlockTokens;
  float* largest = largest_.of(worker);
  float* least_sums = least_sums_.of(worker);
  score_rest(group, blocks, scores, partials, largest, worker);
  for (size_t h = 0; h < heads; ++h) {
    const std::span<float> of_head(largest + h * kRunParts, count_parts(blocks.count()));
    const Partial partial = partials.begin(run, first_head + h, of_head, kLogOfPart);
    least_sums[h] = partials.least_sum(first_head + h, partial.top);
  }
  const GroupId id = space(group, Side::value);
  std::span<const uint8_t> ahead;
  if (next) ahead = code_bytes(space(next->group, Side::key), next->blocks);
  const size_t ahead_step = ahead.size() * kWeighBlocks / blocks.count();
  float* units = part_units_.of(worker);
  size_t* heavy = heavy_.of(worker);
  for (size_t t = 0; t < scores.cols; t += kPart, ++largest) {
    const size_t tokens = std::min(kPart, scores.cols - t);
    size_t count = 0;
    for (size_t h = 0; h < heads; ++h) {
      const float top = largest[h * kRunParts];
      if (!Partials::counts(top)) continue;
      const auto [unit, sum] = soften_to_bytes(scores.row(h).subspan(t, tokens), top,
                                               weights_.of(worker) + count * kPart);
      const Partial partial = partials.at(run, first_head + h);
      const float factor = std::exp(top - partial.top);
      if (factor * sum < least_sums[h]) continue;
      partial.sum += factor * sum;
      units[count] = factor * unit;
      heavy[count++] = h;
    }
    const size_t begin = blocks.begin + t / kBlockTokens;
    CodeBlocks values = code_blocks(id, begin, std::min(blocks.end, begin + kWeighBlocks));
    values.ahead = ahead.first(std::min(ahead_step, ahead.size()));
    ahead = ahead.subspan(values.ahead.size());
    weigh_part(id, values, {{heavy, count}, {units, count}},
               {partials.at(run, first_head).values, heads, dims_, partials.stride()}, worker);
  }
}

// The heads that count follow each other, and their sums are then added where they belong.
void CodedAttention::weigh_part(GroupId id, const CodeBlocks& values, const Heavy& heavy,
                                View<float> sums, size_t worker) const {
  const size_t columns = state_->plan(id).columns, count = heavy.heads.size();
  const CodePlanes& planes = state_->plan(id).planes;
  if (count == 0) return Prefetcher(values.ahead, 1).step();
  if (count == sums.rows) {
    return weigh_slabs(planes, values, weights_.of(worker), heavy.units, sums);
  }
  const View<float> kept(kept_.of(worker), count, columns, dims_);
  for (size_t i = 0; i < count; ++i) std::ranges::fill(kept.row(i), 0.0f);
  weigh_slabs(planes, values, weights_.of(worker), heavy.units, kept);
  for (size_t i = 0; i < count; ++i) {
    axpy(1.0f, kept.row(i), sums.row(heavy.heads[i]).first(columns));
  }
}

void CodedAttention::lift(size_t kv_head, size_t first, View<const float> latents,
                          std::span<const float> weights, View<float> out) const {
  const HeadPlace place = place_of(*state_, kv_head);
  const GroupId id = space(place.group, Side::value);
  const Basis& basis = state_->nest->basis(id);
  const size_t row = place.row + first;
  const View<const float> reached(latents.data, latents.rows, reached_columns(*state_, id),
                                  latents.stride);
  std::array<const std::byte*, kRowsAtOnce> at;
  for (size_t c = 0; c < out.cols; c += kRowsAtOnce) {
    const size_t count = std::min(kRowsAtOnce, out.cols - c);
    score_rows(reached, decode_rows(basis, row + c, std::span(at).first(count)),
               {out.data + c, out.rows, count, out.stride});
  }
  for (size_t q = 0; q < out.rows; ++q) {
    axpy(weights[q], std::span(basis.mean).subspan(row, out.cols), out.row(q));
  }
}

}  // namespace mkv
