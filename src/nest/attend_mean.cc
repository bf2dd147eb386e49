// The part of coded scores that comes of the mean key (nest/angle_kernels.h).
#include <algorithm>

#include "nest/angle_kernels.h"
#include "nest/attend_codes.h"
#include "ops/ops.h"

namespace mkv {

// q . R_t mean = sum_i a_i cos(t w_i) + b_i sin(t w_i); for a plain mean its product with q.
void CodedAttention::prepare_mean(size_t head, std::span<const float> mean,
                                  std::span<const float> query) {
  const size_t pairs = head_dim_ / 2;
  const KeyMean kind = state_->nest->config().key_mean;
  if (kind == KeyMean::none) mean_units_[head] = 0.0f;
  if (kind == KeyMean::plain) mean_units_[head] = dot(query, mean);
  if (kind != KeyMean::position) return;
  float* a = mean_terms_ + head * head_dim_;
  float* b = a + pairs;
  mean_terms(query, mean, a, b);
  const MeanAngles& angles = state_->angles_of(layer_).mean;
  turn_mean_terms({a, pairs}, {b, pairs}, angles.middle.span().first(pairs),
                  angles.middle.span().subspan(pairs));
  const float factor = mean_terms_factor(angles, {a, pairs}, {b, pairs});
  scale_by({a, head_dim_}, factor);
  mean_units_[head] = factor > 0.0f ? 1.0f / (factor * kAngleOne) : 0.0f;
}

// Scores of coded blocks start as what the mean that coding took away would have added.
void CodedAttention::score_mean(size_t group, Blocks blocks, View<float> scores,
                                size_t worker) const {
  const size_t first_head = group * sizes_.group_heads, pairs = head_dim_ / 2;
  const std::span<const float> units(mean_units_ + first_head, scores.rows);
  if (state_->nest->config().key_mean != KeyMean::position) {
    for (size_t h = 0; h < scores.rows; ++h) std::ranges::fill(scores.row(h), units[h]);
    return;
  }
  const AngleTables& angles = state_->angles_of(layer_);
  const size_t of_block = scores.rows * 2 * angles.mean.scored();
  int16_t* turned = turned_.of(worker);
  int16_t* first = turned + kRunBlocks * of_block;
  const View<const float> terms(mean_terms_ + first_head * head_dim_, scores.rows, head_dim_);
  turn_and_round_mean_terms(terms, {angles.block_cos(blocks.begin), pairs},
                            {angles.block_sin(blocks.begin), pairs}, first);
  turn_to_blocks(angles.mean, first, scores.rows, blocks.count(), turned);
  for (size_t b = 0; b < blocks.count(); ++b) {
    score_angles(angles.mean, turned + b * of_block, units,
                 {scores.data + b * kBlockTokens, scores.rows, kBlockTokens, scores.stride});
  }
}

}  // namespace mkv
