// The coded part of one token's attention where the machine multiplies tiles (nest/amx_codes.h): a
// run of blocks from scores to weighted sums. What CodedAttention does elsewhere, for codes in
// Arithmetic::fast.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "nest/amx_codes.h"
#include "nest/attend_codes.h"

namespace mkv {

class TileAttention {
 public:
  using Blocks = CodedAttention::Blocks;
  using Next = CodedAttention::Next;

  // Whether the codes of this layer can be attended to so.
  static bool usable(const KvCache::State& state, size_t layer);
  void take_scratch(Arena& arena, const KvCache::State& state, size_t layer,
                    CodedAttention::Sizes sizes);

  // As CodedAttention.
  void prepare(size_t kv_head, View<const float> queries_of);

  // Of some blocks' tokens those that the query sees.
  struct Seen {
    size_t begin = 0, end = 0;
  };
  // A head's softmax over a run.
  struct Out {
    float* top = nullptr;
    float* sum = nullptr;
    float* values = nullptr;  // [dims]
  };
  // The heads of a group over a run of blocks; `out` [head of the group].
  void attend(size_t group, Blocks blocks, Seen seen, std::span<const Out> out,
              std::optional<Next> next, size_t worker) const;

 private:
  GroupId space(size_t group, Side side) const { return {layer_, group, side}; }
  size_t tiles_of_group() const { return (sizes_.group_heads + amx::kLanes - 1) / amx::kLanes; }
  amx::Queries queries(size_t group, size_t tile) const;
  CodeBlocks code_blocks(GroupId id, Blocks blocks) const;
  void attend_tile(const amx::Queries& queries, size_t group, Blocks blocks, Seen seen,
                   std::span<const Out> out, std::span<const uint8_t> ahead, size_t worker) const;

  const KvCache::State* state_ = nullptr;
  size_t layer_ = 0, dims_ = 0, head_dim_ = 0;
  size_t pairs_ = 0;        // of the position mean; 0: there is none
  size_t query_tiles_ = 0;  // most of any key space of the layer
  size_t turned_size_ = 0;
  CodedAttention::Sizes sizes_;
  float* latents_ = nullptr;  // [head][dims]
  int8_t* bytes_ = nullptr;   // [group][tile of heads][query tile][kLanes][64]
  float* units_ = nullptr;    // [group][tile of heads][unit | base][kLanes]
  float* terms_ = nullptr;    // [group][tile of heads][kLanes][a | b][pairs]
  PerWorker<int8_t> expanded_, turned_;
  PerWorker<float> scores_;     // [kLanes][run]
  PerWorker<uint8_t> weights_;  // [block of a run][16][kLanes][4]
  PerWorker<float> groups_;     // [tops | sums | factors][group of blocks][kLanes]
  PerWorker<float> sums_;       // [dims rounded up][kLanes]
};

}  // namespace mkv
