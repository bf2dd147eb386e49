#include "nest/kv_cache.h"

#include <algorithm>
#include <cmath>

#include "nest/angle_kernels.h"
#include "nest/beam_kernels.h"
#include "nest/kv_state.h"
#include "nest/score_bytes.h"
#include "ops/ops.h"

namespace mkv {
namespace {

// [cos of pair 0 ... | sin of pair 0 ...][tokens], of the leading positions.
Buffer<float> leading_angles(const Rotary& rotary, size_t tokens) {
  const size_t pairs = rotary.pairs();
  Buffer<float> table(2 * pairs * tokens);
  std::vector<float> cos(pairs), sin(pairs);
  for (size_t t = 0; t < tokens; ++t) {
    rotary.angles(static_cast<double>(t), cos, sin);
    for (size_t i = 0; i < pairs; ++i) {
      table[i * tokens + t] = cos[i];
      table[(pairs + i) * tokens + t] = sin[i];
    }
  }
  return table;
}

AngleTables make_angles(const Rotary& rotary) {
  AngleTables angles;
  angles.pairs = rotary.pairs();
  angles.within_block = leading_angles(rotary, kBlockTokens);
  angles.mean = make_mean_angles(rotary.inverse_frequency());
  return angles;
}

void make_plans(KvCache::State& state) {
  state.plans.clear();
  state.plans.resize(state.nest->spaces());
  for (size_t space = 0; space < state.plans.size(); ++space) {
    SpacePlan& plan = state.plans[space];
    if (state.nest->config().slab_kind == SlabKind::column) {
      plan.columns = state.ranks[space];
      continue;
    }
    const Basis& basis = state.nest->basis(state.nest->unflat(space));
    const std::span<const CodeSlab> kept = std::span(basis.slabs).first(state.ranks[space]);
    for (const CodeSlab& slab : kept) {
      plan.columns = std::max<size_t>(plan.columns, slab.first_column + kSlabColumns);
      plan.scale.resize(plan.columns, 0.0f);
      std::copy_n(slab.scale, kSlabColumns, plan.scale.begin() + slab.first_column);
    }
    if (state.arithmetic != Arithmetic::fast) continue;
    const bool keys = state.nest->unflat(space).side == Side::key;
    if (!keys) plan.planes = make_code_planes(kept, plan.scale);
    if (keys) plan.rest = moments_of(kept.subspan(leading_slabs(kept.size())), plan.columns);
  }
}

// Of the layers of the type that `layer` is of.
void ensure_block_angles(KvCache::State& state, size_t layer, size_t blocks) {
  const Rotary& rotary = state.types->of(layer).rotary;
  AngleTables& angles = state.angles[state.types->index_of(layer)];
  const size_t pairs = angles.pairs;
  const size_t have = angles.of_blocks.size() / (2 * pairs);
  if (blocks <= have) return;
  const size_t target = std::max(blocks, have + have / 2);
  angles.of_blocks.resize_exactly(target * 2 * pairs);
  for (size_t b = have; b < target; ++b) {
    float* cos = angles.of_blocks.data() + b * 2 * pairs;
    rotary.angles(static_cast<double>(b * kBlockTokens + state.sinks), {cos, pairs},
                  {cos + pairs, pairs});
  }
}

// Codes the rows of a layer that leave the window with the new tokens, one task a space, and finds
// the later sinks among them.
void code_leaving_rows(KvCache::State& state, size_t layer, size_t tokens, Workers& workers) {
  LayerCache& cache = state.layers[layer];
  // Blocks that none of the new tokens sees any more are not worth coding.
  const size_t begin = std::max(state.coded_rows(state.length),
                                state.first_seen_block(layer, state.length) * kBlockTokens);
  const size_t end = state.coded_rows(state.length + tokens);
  if (end <= begin) return;
  if (cache.coded.front().blocks() == 0) cache.first_coded = begin / kBlockTokens;
  const size_t spaces = state.groups() * 2;
  workers.run(spaces + 1, [&](size_t task, size_t) {
    if (task == spaces) return find_later_sinks(state, layer, begin, end);
    thread_local CodingScratch scratch;
    const GroupId id{layer, task / 2, task % 2 == 0 ? Side::key : Side::value};
    const size_t blocks = (end + kBlockTokens - 1) / kBlockTokens;
    cache.coded[task].grow_to(blocks - cache.first_coded);
    prepare_coding(state, id, scratch);
    for (size_t row = begin; row < end;) {
      const size_t block = row / kBlockTokens;
      const size_t stop = std::min(end, (block + 1) * kBlockTokens);
      code_rows(state, id, block, row - block * kBlockTokens, stop - block * kBlockTokens, scratch);
      row = stop;
    }
  });
}

// Frees what no later token sees in the form it has: exact blocks that were coded, and all that a
// sliding window has left behind.
void drop_unseen(KvCache::State& state, size_t layer, size_t tokens, AttentionScratch& scratch) {
  LayerCache& cache = state.layers[layer];
  const size_t next = state.length + tokens;
  const size_t seen = state.first_seen_block(layer, next);
  if (state.types->of(layer).first_seen(next) >= state.sinks) cache.sinks.data.resize_exactly(0);
  if (seen > cache.first_coded) {
    for (SlabStore& store : cache.coded) store.drop_front(seen - cache.first_coded);
    cache.first_coded = seen;
  }
  for (LaterSink& sink : cache.later_sinks) {
    if (sink.row < state.first_seen_row(layer, next)) sink.token.data.resize_exactly(0);
  }
  const size_t first = std::max(seen, state.coded_rows(next) / kBlockTokens);
  for (size_t side = 0; side < 2; ++side) {
    ExactBlocks& exact = cache.exact[side];
    if (state.window_blocks == 0) {
      exact.store.clear();
    } else if (first > exact.first) {
      exact.store.drop_front(first - exact.first, scratch.passing[side]);
      exact.first = first;
    }
  }
}

// Up to so many queries, at least one, reading the codes for each costs less than expanding them
// for all (decisions 0026, 0038).
size_t few_queries(const KvCache::State& state) {
  const bool codes = state.nest != nullptr && state.nest->config().slab_kind == SlabKind::code;
  return codes && state.arithmetic == Arithmetic::fast ? 24 : 1;
}

// Each of the last tokens as if those before it had been committed.
void attend_one_by_one(KvCache::State& state, size_t layer, const AttentionInput& input,
                       View<float> out, AttentionScratch& scratch, Workers& workers) {
  const size_t length = state.length, queries = input.queries.rows;
  AttentionInput one = input;
  for (size_t q = 0; q < queries; ++q) {
    state.length = length + input.keys.rows - queries + q;
    one.queries = input.queries.rows_from(q, 1);
    attend_decode(state, layer, one, out.rows_from(q, 1), scratch, workers);
  }
  state.length = length;
}

}  // namespace

KvCache::KvCache(KvShape shape, const LayerTypes& types, size_t capacity, KvOptions options)
    : state_(std::make_unique<State>()) {
  MKV_CHECK(options.exact == DType::f16 || options.exact == DType::f32);
  state_->exact_type = options.exact;
  state_->arithmetic = options.arithmetic;
  state_->rounding = options.rounding;
  MKV_CHECK(options.beam >= 1 && options.beam <= kMostBeam);
  state_->beam = options.beam;
  state_->shape = shape;
  state_->types = &types;
  state_->capacity = capacity;
  state_->layers.resize(shape.layers);
  for (LayerCache& layer : state_->layers) {
    for (ExactBlocks& exact : layer.exact) {
      exact.type = options.exact;
      exact.store = SlabStore(state_->width(), row_bytes(options.exact, kBlockTokens));
    }
  }
}

KvCache::KvCache(const Nest& nest, Ranks ranks, const LayerTypes& types, size_t capacity,
                 KvOptions options)
    : KvCache(nest.config().shape, types, capacity, options) {
  const NestConfig& config = nest.config();
  MKV_CHECK(ranks.size() == nest.spaces());
  MKV_CHECK(options.rounding == Rounding::none);
  state_->nest = &nest;
  state_->sinks = config.sinks;
  state_->window_blocks = config.recent / kBlockTokens;
  state_->ranks = std::move(ranks);
  make_plans(*state_);
  for (const LayerType& type : types.all()) {
    MKV_CHECK(type.rotary.pairs() * 2 == config.shape.head_dim);
    state_->angles.push_back(make_angles(type.rotary));
  }
  for (size_t l = 0; l < config.shape.layers; ++l) {
    LayerCache& layer = state_->layers[l];
    layer.sinks.type = options.exact;
    layer.sinks.count = state_->sinks;
    layer.sinks.width = state_->width();
    layer.sinks.allocate();
    for (size_t g = 0; g < nest.groups(); ++g) {
      for (const Side side : {Side::key, Side::value}) {
        layer.coded.emplace_back(state_->rank(l, g, side), nest.slab_block_bytes());
      }
    }
  }
}

KvCache::KvCache(KvCache&&) noexcept = default;
KvCache& KvCache::operator=(KvCache&&) noexcept = default;
KvCache::~KvCache() = default;

size_t KvCache::length() const { return state_->length; }
size_t KvCache::capacity() const { return state_->capacity; }
size_t KvCache::coded() const {
  const size_t end = state_->coded_rows(state_->length);
  size_t most = 0;
  for (const LayerType& type : state_->types->all()) {
    const size_t begin = state_->rows_of(type.first_seen(state_->length));
    most = std::max(most, end - std::min(begin, end));
  }
  return most;
}
const Ranks& KvCache::ranks() const { return state_->ranks; }

void KvCache::attend(size_t layer, const AttentionInput& input, View<float> out,
                     AttentionScratch& scratch, Workers& workers) {
  State& state = *state_;
  const size_t tokens = input.keys.rows;
  MKV_CHECK(layer < state.layers.size() && state.length + tokens <= state.capacity);
  MKV_CHECK(input.keys.cols == state.width() && input.values.cols == state.width());
  const size_t queries = input.queries.rows;
  MKV_CHECK(input.queries.cols % state.width() == 0 && (queries == tokens || queries == 1));
  if (tokens == 0) return;
  if (state.nest != nullptr) {
    ensure_block_angles(state, layer, state.rows_of(state.length + tokens) / kBlockTokens + 1);
  }
  store_exact(state, layer, input, scratch, workers);
  code_leaving_rows(state, layer, tokens, workers);
  if (queries <= few_queries(state)) {
    attend_one_by_one(state, layer, input, out, scratch, workers);
  } else {
    attend_prefill(state, layer, input, out, scratch, workers);
  }
  drop_unseen(state, layer, tokens, scratch);
}

void KvCache::commit(size_t tokens) {
  MKV_CHECK(state_->length + tokens <= state_->capacity);
  state_->length += tokens;
}

void KvCache::clear() {
  state_->length = 0;
  for (LayerCache& layer : state_->layers) {
    for (SlabStore& store : layer.coded) store.clear();
    layer.first_coded = 0;
    layer.sinks.allocate();
    layer.likeness.reset();
    layer.later_sinks.clear();
    for (ExactBlocks& exact : layer.exact) {
      exact.store.clear();
      exact.first = 0;
    }
  }
}

Result<void> KvCache::shrink(const Ranks& ranks) {
  State& state = *state_;
  if (ranks.size() != state.ranks.size()) {
    return make_error(ErrorCode::invalid_argument, "shrink: the cache has " +
                                                       std::to_string(state.ranks.size()) +
                                                       " latent spaces, the ranks given are for " +
                                                       std::to_string(ranks.size()));
  }
  for (size_t i = 0; i < ranks.size(); ++i) {
    if (ranks[i] > state.ranks[i]) {
      return make_error(ErrorCode::invalid_argument,
                        "shrink: latent space " + std::to_string(i) + " has rank " +
                            std::to_string(state.ranks[i]) + " and cannot grow to " +
                            std::to_string(ranks[i]));
    }
  }
  const size_t spaces_per_layer = state.groups() * 2;
  for (size_t i = 0; i < ranks.size(); ++i) {
    state.layers[i / spaces_per_layer].coded[i % spaces_per_layer].keep_slabs(ranks[i]);
  }
  state.ranks = ranks;
  if (state.nest != nullptr) make_plans(state);
  return {};
}

size_t KvCache::bytes() const {
  size_t total = 0;
  for (const LayerCache& layer : state_->layers) {
    total += layer.sinks.data.size();
    for (const LaterSink& sink : layer.later_sinks) total += sink.token.data.size();
    for (const SlabStore& store : layer.coded) total += store.bytes();
    for (const ExactBlocks& exact : layer.exact) total += exact.store.bytes();
  }
  return total;
}

}  // namespace mkv
