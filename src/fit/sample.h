// What fitting a code nest looks at: keys and values of some windows' tokens, and the second
// moments of the loss gradient with respect to those of all (docs/method.md "Metric bases").
// Gathered in one pass over the text, window by window; its size does not grow with the text.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "base/buffer.h"
#include "base/progress.h"
#include "base/result.h"
#include "model/model.h"
#include "nest/nest.h"

namespace mkv {

struct KvSample {
  KvShape shape;
  size_t group_size = 1;
  std::vector<uint32_t> positions;  // of the sampled tokens
  // By layer and side: f16 [tokens x kv_heads*head_dim]; keys after RoPE.
  std::vector<std::array<Buffer<uint16_t>, 2>> values;
  // By layer: mean of the keys before RoPE [kv_heads*head_dim].
  std::vector<std::vector<float>> key_means;
  // By flat space index: mean over tokens and draws of g g^T [dims x dims], g = the loss gradient
  // of the heads of a group side by side.
  std::vector<Matrix<float>> gradient_moments;
  // By flat space index, [tokens]: sum over draws of |g|^2. Few tokens hold most of it.
  std::vector<std::vector<float>> gradient_squares;
  // By layer: sampled tokens that coding leaves out, as they are later sinks.
  std::vector<std::vector<uint32_t>> later_sinks;

  size_t tokens() const { return positions.size(); }
};

struct SampleOptions {
  size_t group_size = 1;
  CodedView view;       // sinks and later sinks are left out
  size_t most = 49152;  // tokens whose keys and values are kept, of windows spread over all
  size_t context = 0;   // the longest that the nest is for; 0: that of a window
  size_t draws = 1;     // of labels a token, at least 1: each costs a backward pass
  uint64_t seed = 1;
};

// windows: token sequences of equal length. Attention with RoPE depends on distances alone, so a
// window is also a sample of what stands at any later place of a long context: its keys and their
// gradients are turned to a place of their own, more often an early one than a late one. Otherwise
// keys of positions beyond a window would meet a basis that never saw them (decisions/0009).
Result<KvSample> gather_sample(const Model& model, std::span<const std::vector<TokenId>> windows,
                               const SampleOptions& options, const ProgressSink& progress,
                               Workers& workers);

// token_weights (fit/metric_basis.h) of one space's sampled tokens, 0 for later sinks.
std::vector<float> sample_weights(const KvSample& sample, size_t layer, size_t space, double floor,
                                  size_t padded);

// The sampled tokens of one space as float32 columns [dims][tokens], padded with zeros to full
// blocks, less the mean that coding takes away, which is told in mean [dims] (Basis::mean).
void centred_columns(const KvSample& sample, const Model& model, GroupId id, KeyMean key_mean,
                     Matrix<float>& columns, std::span<float> mean);

}  // namespace mkv
