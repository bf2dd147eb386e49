// KvCache: the keys and values of one sequence, for all layers of a model.
//
// A token is exact (f16, or f32 if asked for) while it is one of the leading `sinks` or in the
// recent window, and coded by the nest otherwise. The window moves in blocks of kBlockTokens, so a
// token at position t sees exact keys and values of the sinks and of the last recent-kBlockTokens+1
// ... recent tokens, itself included, and codes of the rest - whether it comes in a long prefill or
// alone: prefill and decode give the same view. Without a nest every token is exact.
//
// A layer with a sliding window (nest/layer_types.h) sees nothing before it, sinks included, and
// what no later token sees is not kept.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <vector>

#include "base/buffer.h"
#include "base/dtype.h"
#include "base/result.h"
#include "base/view.h"
#include "base/workers.h"
#include "nest/code_sums.h"
#include "nest/layer_types.h"
#include "nest/nest.h"
#include "nest/rounding.h"
#include "ops/brain_panels.h"

namespace mkv {

inline constexpr size_t kBlockTokens = 64;

// One layer's projections of the new tokens, after RoPE. [tokens x heads*head_dim] for queries, or
// [1 x heads*head_dim] where only the last token attends; [tokens x kv_heads*head_dim] for the
// rest; query head h reads KV head h / (heads / kv_heads).
struct AttentionInput {
  View<const float> queries, keys, values;
  float scale = 1.0f;  // of the scores, e.g. 1 / sqrt(head_dim)
};

// How a space's blocks are brought back from codes: by AMX, by sums, or, if neither, in floats.
struct SpaceDecoder {
  bool by_amx = false, by_sums = false;
  BrainRows split;  // the columns of decode that are used
  CodeSums sums;
};

// Scratch of attention, reused from call to call; one a thread that calls.
struct AttentionScratch {
  std::vector<Buffer<float>> floats;
  Buffer<std::byte> bytes;
  std::vector<SpaceDecoder> decoders;  // [group * 2 + side] of the layer
  // By side: where a layer's exact tokens are while there are more than stay exact.
  std::array<Buffer<std::byte>, 2> passing;
};

// How attention computes; what is stored is the same.
enum class Arithmetic : uint8_t {
  float32,  // codes are expanded and all products are of floats: evaluation and fits
  fast,     // integer look-ups in codes, products of bf16 in prefill: generation
};

struct KvOptions {
  DType exact = DType::f16;  // of exact tokens: f16 or f32
  Arithmetic arithmetic = Arithmetic::float32;
  // Paths when coding slabs, 1 to kMostBeam. 1 takes the nearest entry of each slab in turn, and
  // only then a cache that shrinks equals, bit for bit, one that was coded at the smaller size.
  size_t beam = 1;
  // Of an exact cache: every key and value is rounded so before it is stored, for comparisons;
  // needs a token of a multiple of kRoundingBlock values a side.
  Rounding rounding = Rounding::none;
};

class KvCache {
 public:
  // Exact. `types` outlives the cache.
  KvCache(KvShape shape, const LayerTypes& types, size_t capacity, KvOptions options = {});
  // Coded with `nest` (which outlives the cache, as does `types`) at the given ranks.
  KvCache(const Nest& nest, Ranks ranks, const LayerTypes& types, size_t capacity,
          KvOptions options = {});
  KvCache(KvCache&&) noexcept;
  KvCache& operator=(KvCache&&) noexcept;
  ~KvCache();
  // The same tokens, of which each copy goes on alone.
  KvCache clone() const;
  // A copy with Arithmetic::float32: what fast arithmetic on the same codes is compared with.
  KvCache clone_in_float32() const;

  size_t length() const;    // tokens committed
  size_t capacity() const;  // most tokens that fit
  // Of the committed tokens, those that the next one sees as codes, in the layer that sees most.
  size_t coded() const;
  // Adds the tokens' keys and values to a layer and attends from each token that has a query to
  // everything up to itself: out is as the queries. length() + tokens must be <= capacity().
  void attend(size_t layer, const AttentionInput& input, View<float> out, AttentionScratch& scratch,
              Workers& workers);
  // Ends a forward pass: all layers have the new tokens; the length moves, the window too.
  void commit(size_t tokens);
  void clear();

  // Cuts to fewer slabs in place and gives the memory back; ranks only go down.
  Result<void> shrink(const Ranks& ranks);
  const Ranks& ranks() const;

  // Payload: codes, exact tokens and block padding of the committed tokens.
  size_t bytes() const;

  struct State;  // nest/kv_state.h

 private:
  std::unique_ptr<State> state_;
};

}  // namespace mkv
