// What a KvCache consists of; shared by the files that implement it, not for others.
//
// Tokens are indexed from the first one after the sinks: "row" i is position i + sinks, block i
// / 64. A layer with a sliding window keeps the blocks that its next token sees, and its sinks as
// long as that sees them.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <optional>
#include <vector>

#include "base/buffer.h"
#include "nest/angle_kernels.h"
#include "nest/block_kernels.h"
#include "nest/code_tables.h"
#include "nest/kv_cache.h"
#include "nest/later_sinks.h"
#include "nest/slab_store.h"

namespace mkv {

// Of a later sink's codes: its softmax weight is 0 beside any other, and nothing becomes NaN alone.
inline constexpr float kHiddenScore = -1e30f;

inline constexpr size_t kAllBlocks = std::numeric_limits<size_t>::max() / 4;

// Exact tokens of one layer and side as blocks [block][kv_heads*head_dim][64], f16 or f32.
struct ExactBlocks {
  size_t first = 0;  // index of the first block held
  DType type = DType::f16;
  SlabStore store;

  ColumnBlocks columns(size_t block, size_t first_column) const {
    return {store.block(block - first) + first_column * row_bytes(type, kBlockTokens),
            store.block_bytes(), type};
  }
};

// The leading tokens of one layer, [side][sink][kv_heads*head_dim], f16 or f32.
struct Sinks {
  DType type = DType::f16;
  size_t count = 0, width = 0;
  Buffer<std::byte> data;

  size_t at(Side side, size_t sink) const {
    return row_bytes(type, (static_cast<size_t>(side) * count + sink) * width);
  }
  void allocate();
  void store(Side side, size_t sink, std::span<const float> values);
  const std::byte* row(Side side, size_t sink, size_t first_column) const {
    return data.data() + at(side, sink) + row_bytes(type, first_column);
  }
  // Columns first_column ... of a sink.
  void load(Side side, size_t sink, size_t first_column, std::span<float> out) const;
};

// A token that is kept exact although its block is coded: its codes are not looked at.
struct LaterSink {
  size_t row = 0;
  Sinks token;  // one; without data once a sliding window has left it behind
};

struct LayerCache {
  size_t first_coded = 0;            // index of the first block held in `coded`
  std::vector<SlabStore> coded;      // [group * 2 + side], all of the same blocks
  std::array<ExactBlocks, 2> exact;  // by side
  Sinks sinks;
  std::optional<SinkLikeness> likeness;  // once there is something to compare with the sinks
  std::vector<LaterSink> later_sinks;    // found so far and not left behind, in order

  const SlabStore& store(size_t group, Side side) const {
    return coded[group * 2 + static_cast<size_t>(side)];
  }
  const std::byte* coded_block(size_t group, Side side, size_t block) const {
    return store(group, side).block(block - first_coded);
  }
  // Calls fn(later sink) for those that are held of rows [begin, end).
  template <class Fn>
  void for_later_sinks(size_t begin, size_t end, const Fn& fn) const {
    for (const LaterSink& sink : later_sinks) {
      if (sink.row >= begin && sink.row < end && sink.token.data.size() > 0) fn(sink);
    }
  }
};

// Rotary angles of the layers of one type, which grow with the context.
struct AngleTables {
  // Of each block's first position [block][cos | sin][pairs], and of the 64 positions within a
  // block, [cos of pair 0 ... | sin of pair 0 ...][64].
  Buffer<float> of_blocks, within_block;
  MeanAngles mean;  // for the scores of the mean key
  size_t pairs = 0;

  const float* block_cos(size_t block) const { return of_blocks.data() + block * 2 * pairs; }
  const float* block_sin(size_t block) const { return block_cos(block) + pairs; }
};

// What a space's rank means for decoding.
struct SpacePlan {
  size_t columns = 0;        // leading latent columns that the kept slabs reach
  std::vector<float> scale;  // SlabKind::code: of each of these columns, after its last kept slab
  // The same of keys: what the slabs after the leading ones (nest/score_bytes.h) add to each column
  // before it is scaled.
  ColumnMoments rest;
  // SlabKind::code, Arithmetic::fast, of values: the kept slabs as integers.
  CodePlanes planes;
};

struct KvCache::State {
  const Nest* nest = nullptr;  // null: every token is exact
  KvShape shape;
  const LayerTypes* types = nullptr;
  size_t capacity = 0, length = 0;
  size_t sinks = 0;
  DType exact_type = DType::f16;
  Arithmetic arithmetic = Arithmetic::float32;
  size_t beam = 1;
  Rounding rounding = Rounding::none;
  size_t window_blocks = kAllBlocks;  // blocks seen exactly: the query's own and those before it
  Ranks ranks;
  std::vector<SpacePlan> plans;  // as ranks
  std::vector<LayerCache> layers;

  std::vector<AngleTables> angles;  // of a coded cache, as types->all()

  size_t width() const { return shape.kv_heads * shape.head_dim; }
  size_t rows_of(size_t tokens) const { return tokens > sinks ? tokens - sinks : 0; }
  // The first block that a token in `block` sees exactly; blocks before it are seen coded.
  size_t first_exact(size_t block) const {
    return block + 1 > window_blocks ? block + 1 - window_blocks : 0;
  }
  // Rows coded once `tokens` are in.
  size_t coded_rows(size_t tokens) const {
    const size_t rows = rows_of(tokens);
    if (rows == 0 || window_blocks == kAllBlocks) return 0;
    if (window_blocks == 0) return rows;
    return first_exact((rows - 1) / kBlockTokens) * kBlockTokens;
  }
  // The first row, and the first block, that a token at `position` sees in a layer.
  size_t first_seen_row(size_t layer, size_t position) const {
    return rows_of(types->of(layer).first_seen(position));
  }
  size_t first_seen_block(size_t layer, size_t position) const {
    return first_seen_row(layer, position) / kBlockTokens;
  }
  const AngleTables& angles_of(size_t layer) const { return angles[types->index_of(layer)]; }
  size_t groups() const { return nest == nullptr ? 0 : nest->groups(); }
  size_t rank(size_t layer, size_t group, Side side) const {
    return ranks[nest->flat({layer, group, side})];
  }
  const SpacePlan& plan(GroupId id) const { return plans[nest->flat(id)]; }
};

// Writes the new tokens' keys and values of a layer: sinks to their rows, the rest to exact blocks.
void store_exact(KvCache::State& state, size_t layer, const AttentionInput& input,
                 AttentionScratch& scratch, Workers& workers);

// Adds sign * R_t mean to the 64 tokens of a block, columns [head_dim][...] with `stride`, for one
// head: t = the block's positions. `mean` [head_dim] is a key before RoPE.
void add_position_mean(const AngleTables& angles, size_t block, std::span<const float> mean,
                       float sign, float* columns, size_t stride);

// Codes rows [begin, end) of one block of a space, from the exact block of its side.
struct CodingScratch {
  View<const float> encode;  // of the space, maybe in `floats`
  Matrix<float> floats;
  BrainRows split_encode;  // for products by AMX
  bool by_amx = false;     // whether there is one
  Matrix<float> columns, latents;
  std::vector<size_t> slabs;            // of four columns, by their place in the block
  std::vector<const CodeSlab*> stages;  // the same
};
void code_rows(KvCache::State& state, GroupId id, size_t block, size_t begin, size_t end,
               CodingScratch& scratch);
// The later sinks among a layer's rows [begin, end), which are about to be coded.
void find_later_sinks(KvCache::State& state, size_t layer, size_t begin, size_t end);
// Before code_rows of a space's blocks.
void prepare_coding(const KvCache::State& state, GroupId id, CodingScratch& scratch);

// The latents of a coded block as float32, columns [latent_columns()][64] with out's stride.
void expand_latents(const KvCache::State& state, GroupId id, size_t block, float* out,
                    size_t stride);

struct DecodeScratch {
  Matrix<float> latents, basis;
  Buffer<int16_t> words;
};
// A coded block of a space as float32 [dims x 64]. `by`: as prepare_decoding left it for this
// space, or null: in floats.
void decode_block(const KvCache::State& state, GroupId id, size_t block, const SpaceDecoder* by,
                  View<float> out, DecodeScratch& scratch);
// For many blocks, with Arithmetic::fast.
void prepare_decoding(const KvCache::State& state, GroupId id, SpaceDecoder& out);

// Attention of one layer once its new tokens are stored and coded.
void attend_prefill(KvCache::State& state, size_t layer, const AttentionInput& input,
                    View<float> out, AttentionScratch& scratch, Workers& workers);
void attend_decode(KvCache::State& state, size_t layer, const AttentionInput& input,
                   View<float> out, AttentionScratch& scratch, Workers& workers);

}  // namespace mkv
