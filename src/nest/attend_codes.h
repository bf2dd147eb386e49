// The coded part of one token's attention (attend_decode.cc): scores of runs of coded blocks, and
// weighted sums of their latents. Code slabs are worked on as integers (nest/slab_kernels.h) unless
// the cache computes in float32; 16-bit columns as they are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/prefetch.h"
#include "base/view.h"
#include "nest/angle_kernels.h"
#include "nest/arena.h"
#include "nest/kv_state.h"
#include "nest/partials.h"
#include "nest/score_bytes.h"
#include "nest/slab_kernels.h"

namespace mkv {

inline constexpr size_t kRunBlocks = kTurnedBlocks;  // blocks attended to as one task
// Parts of blocks, each of which is weighed or left out.
inline constexpr size_t count_parts(size_t blocks) {
  return (blocks + kWeighBlocks - 1) / kWeighBlocks;
}

// Where a KV head is: its group, and its first row in the group's spaces.
struct HeadPlace {
  size_t group = 0, row = 0;
};
HeadPlace place_of(const KvCache::State& state, size_t kv_head);

// Of a space's latents, those that its slabs reach and what makes them whole vectors.
size_t reached_columns(const KvCache::State& state, GroupId id);

// Queries [queries x head_dim] of the KV head at `row` of its key space, in the latents that its
// slabs reach; latents [queries x dims].
void turn_queries(const KvCache::State& state, GroupId id, size_t row, View<const float> queries,
                  View<float> latents);

class CodedAttention {
 public:
  struct Sizes {
    size_t heads = 0, group_heads = 0;
  };
  struct Blocks {
    size_t begin = 0, end = 0;
    size_t count() const { return end - begin; }
  };
  void take_scratch(Arena& arena, const KvCache::State& state, size_t layer, Sizes sizes);

  // Asks the memory for what prepare() turns queries with or lift() undoes, for some of a KV head's
  // columns.
  void ask_for_basis(size_t kv_head, Side side, size_t first, size_t count) const;
  // What the query heads of a KV head need once: queries [repeats x head_dim], scaled.
  void prepare(size_t kv_head, View<const float> queries, size_t worker);
  // Asks for what other workers have prepared of a group.
  void ask_for_tables(size_t group) const;
  // scores[head of the group][token of the blocks]; if it skips, those of the leading slabs with
  // what the others are expected to add.
  void score(size_t group, Blocks blocks, View<float> scores, size_t worker) const;
  // What the calling worker will probably score next: its keys are asked of the memory in time.
  struct Next {
    size_t group = 0;
    Blocks blocks;
  };
  // Asks for them in so many steps.
  Prefetcher ask_for_keys(std::optional<Next> next, size_t steps) const;
  // Whether weigh leaves out what is not heavy, and has the other slabs scored of what is.
  bool skips() const { return integer(); }
  // Turns the scores of a run of blocks into its partials. If it skips, kWeighBlocks blocks are
  // scored further for heads for which they may weigh enough, and those that weigh too little for
  // a head are left out for it (Partials::negligible_share).
  void weigh(size_t group, Blocks blocks, View<float> scores, const Partials& partials, size_t run,
             std::optional<Next> next, size_t worker) const;
  // Undoes the value's basis, for some columns of a KV head from the first one on:
  // out [repeats x columns] = latents [repeats x reached_columns()] * decode^T + weights * mean.
  void lift(size_t kv_head, size_t first, View<const float> latents, std::span<const float> weights,
            View<float> out) const;

 private:
  GroupId space(size_t group, Side side) const { return {layer_, group, side}; }
  bool integer() const { return state_->arithmetic == Arithmetic::fast && codes(); }
  bool codes() const { return state_->nest->config().slab_kind == SlabKind::code; }
  // Terms of a head: of a run's blocks, and those that they are turned from.
  size_t turned_size() const {
    const size_t pairs = head_dim_ / 2;
    return 2 * (kRunBlocks * state_->angles_of(layer_).mean.scored() + padded_pairs(pairs));
  }
  ScoreTables score_tables(size_t group) const;
  CodeBlocks code_blocks(GroupId id, size_t begin, size_t end) const;
  std::span<const uint8_t> code_bytes(GroupId id, Blocks blocks) const;
  ColumnBlocks column_blocks(GroupId id, size_t begin) const;

  void prepare_mean(size_t head, std::span<const float> mean, std::span<const float> query);
  void score_mean(size_t group, Blocks blocks, View<float> scores, size_t worker) const;
  void prepare_rest(size_t head, const SpacePlan& plan, std::span<const float> latent,
                    std::span<float> room);
  void score_rest(size_t group, Blocks blocks, View<float> scores, const Partials& partials,
                  float* largest, size_t worker) const;
  void weigh_codes(size_t group, Blocks blocks, View<float> scores, const Partials& partials,
                   size_t run, std::optional<Next> next, size_t worker) const;
  struct Heavy {  // of a part: heads of the group that count, and what their weights' units are
    std::span<const size_t> heads;
    std::span<const float> units;
  };
  void weigh_part(GroupId id, const CodeBlocks& values, const Heavy& heavy, View<float> sums,
                  size_t worker) const;

  const KvCache::State* state_ = nullptr;
  size_t layer_ = 0, dims_ = 0, head_dim_ = 0;
  size_t slabs_ = 0;  // most of any key space of the layer
  Sizes sizes_;
  float* latent_queries_ = nullptr;  // [head][dims]
  float* mean_units_ = nullptr;      // [head], of the mean's terms; for a plain mean its score
  float* mean_terms_ = nullptr;      // [head][a | b][pair], to be turned and rounded for a block
  float* expected_ = nullptr;        // [head]: what slabs after the leading ones add to a score
  // Score tables by four slabs, or by one (nest/code_tables.h):
  float* units_ = nullptr;       // [unit | base | rest_base][head]
  uint8_t* entries_ = nullptr;   // [head][four][4 slabs][16]
  int32_t* factors_ = nullptr;   // [head][factor_count()]
  ByteTables* bytes_ = nullptr;  // [head][part]
  PerWorker<float> values_;      // [slab][16], tables before rounding
  PerWorker<int16_t> turned_;    // [block][head of the group][even | odd][scored()], first terms
  PerWorker<float> largest_;     // [head of the group][part of a run], see Partials
  PerWorker<float> least_sums_;  // [head of the group], see Partials
  PerWorker<float> part_units_;  // [head of the group that counts]
  PerWorker<size_t> heavy_;      // likewise: which it is
  PerWorker<float> kept_;        // [head of the group][dims]
  PerWorker<float> expanded_;    // [dims][64]
  PerWorker<uint8_t> weights_;   // [head of the group][kWeighBlocks * 64]
};

}  // namespace mkv
