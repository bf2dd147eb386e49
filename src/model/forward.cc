// The forward pass from tokens to the last norm.
#include <algorithm>

#include "model/layer_pass.h"
#include "model/model_parts.h"
#include "ops/likely_rows.h"
#include "ops/ops.h"
#include "store/message.h"

namespace mkv {
namespace {

size_t count_tokens(std::span<const SequenceSlice> slices) {
  size_t tokens = 0;
  for (const SequenceSlice& slice : slices) tokens += slice.tokens.size();
  return tokens;
}

Result<void> check_room(std::span<const SequenceSlice> slices) {
  for (size_t i = 0; i < slices.size(); ++i) {
    MKV_CHECK(slices[i].cache != nullptr);
    for (size_t j = 0; j < i; ++j) MKV_CHECK(slices[i].cache != slices[j].cache);
    const size_t length = slices[i].cache->length(), capacity = slices[i].cache->capacity();
    if (slices[i].tokens.size() > capacity - length) {
      return make_error(ErrorCode::capacity,
                        concat("the context holds ", capacity, " tokens, ",
                               length + slices[i].tokens.size(), " are needed"));
    }
  }
  return {};
}

void embed_rows(const Weight& embedding, float scale, std::span<const TokenId> tokens,
                size_t first_row, Matrix<float>& hidden) {
  for (size_t i = 0; i < tokens.size(); ++i) {
    const std::span<float> row = hidden.row(first_row + i);
    dequantize_row(embedding, static_cast<size_t>(tokens[i]), row);
    if (scale == 1.0f) continue;
    for (float& x : row) x *= scale;
  }
}

}  // namespace

Result<void> Model::check_tokens(std::span<const TokenId> tokens) const {
  const size_t vocab_size = parts_->config.vocab_size;
  for (TokenId token : tokens) {
    if (token < 0 || static_cast<size_t>(token) >= vocab_size) {
      return make_error(ErrorCode::invalid_argument,
                        concat("token ", token, ": not one of the model's ", vocab_size));
    }
  }
  return {};
}

Result<void> Model::check(std::span<const SequenceSlice> slices) const {
  MKV_TRY(check_room(slices));
  for (const SequenceSlice& slice : slices) {
    MKV_TRY(check_tokens(slice.tokens));
  }
  return {};
}

Result<void> Model::embed(std::span<const TokenId> tokens, Matrix<float>& hidden) const {
  MKV_TRY(check_tokens(tokens));
  hidden.reshape(tokens.size(), parts_->config.hidden_size);
  embed_rows(parts_->weights.embedding, parts_->config.embedding_scale, tokens, 0, hidden);
  return {};
}

Result<void> Model::run_layers(std::span<const SequenceSlice> slices, size_t first, size_t last,
                               Matrix<float>& hidden, Scratch& scratch, Workers& workers,
                               const LayerObserver& observer) const {
  MKV_CHECK(first <= last && last <= parts_->config.num_layers);
  MKV_CHECK(hidden.rows() == count_tokens(slices));
  MKV_CHECK(hidden.cols() == parts_->config.hidden_size);
  MKV_TRY(check_room(slices));
  if (hidden.rows() == 0) return {};
  const LayerPassInput input{parts_->config, parts_->interleaved_qk, parts_->weights.layers,
                             slices};
  pass_layers(input, first, last, hidden, scratch, workers, observer);
  return {};
}

void Model::finish(Matrix<float>& hidden) const {
  for (size_t t = 0; t < hidden.rows(); ++t) {
    rms_norm(hidden.row(t), parts_->weights.final_norm, parts_->config.rms_norm_epsilon,
             hidden.row(t));
  }
}

Result<void> Model::forward(std::span<const SequenceSlice> slices, Matrix<float>& hidden,
                            Scratch& scratch, Workers& workers,
                            const LayerObserver& observer) const {
  MKV_TRY(check(slices));
  hidden.reshape(count_tokens(slices), parts_->config.hidden_size);
  size_t row = 0;
  for (const SequenceSlice& slice : slices) {
    embed_rows(parts_->weights.embedding, parts_->config.embedding_scale, slice.tokens, row,
               hidden);
    row += slice.tokens.size();
  }
  MKV_TRY(run_layers(slices, 0, parts_->config.num_layers, hidden, scratch, workers, observer));
  for (const SequenceSlice& slice : slices) slice.cache->commit(slice.tokens.size());
  finish(hidden);
  return {};
}

void Model::logits(View<const float> hidden, View<float> logits, Workers& workers) const {
  matmul(hidden, parts_->weights.output, logits, workers);
}

void Model::likely_logits(std::span<const float> hidden, float within, std::span<float> logits,
                          Workers& workers) const {
  multiply_likely_rows(hidden, parts_->weights.output, parts_->packed.uneven, within, logits,
                       workers);
}

}  // namespace mkv
