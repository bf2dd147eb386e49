// The forward pass. Linear layers run over the tokens of all slices together, attention slice by
// slice. Every loop is split by tokens, so results do not depend on the number of workers.
#include <algorithm>
#include <array>
#include <utility>

#include "model/head_order.h"
#include "model/model_parts.h"
#include "ops/ops.h"
#include "store/message.h"

namespace mkv {
namespace {

constexpr size_t kTokenGrain = 8;

void add(std::span<const float> values, std::span<float> to) {
  if (!values.empty()) axpy(1.0f, values, to);
}

// The layers over one set of slices: what they share, so that the steps read as the architecture.
class LayerPass {
 public:
  LayerPass(const ModelConfig& config, bool interleaved_qk, std::span<const SequenceSlice> slices,
            Matrix<float>& hidden, Scratch& scratch, Workers& workers)
      : config_(config),
        interleaved_qk_(interleaved_qk),
        slices_(slices),
        hidden_(hidden),
        s_(scratch),
        workers_(workers),
        tokens_(hidden.rows()) {
    const size_t query_width = config.num_heads * config.head_dim;
    const size_t key_width = config.num_kv_heads * config.head_dim;
    s_.normed.reshape(tokens_, config.hidden_size);
    s_.attended.reshape(tokens_, query_width);
    share(query_width, key_width, config.intermediate_size);
    fill_angles();
  }

  void run(size_t layer, const LayerWeights& w, const LayerObserver& observer) {
    for_tokens([&](size_t t) { norm(t, w.attention_norm); });
    const Product projections[] = {{&w.query, queries_}, {&w.key, keys_}, {&w.value, values_}};
    matmul(s_.normed.view(), projections, workers_);
    finish_projections(w, s_.angles[config_.layer_types.index_of(layer)],
                       static_cast<bool>(observer));
    attend(layer);
    if (observer) observe(layer, observer);

    matmul(s_.attended.view(), w.output, projected_, workers_);
    for_tokens([&](size_t t) {
      add_projected(t, w.output_bias, w.attention_post_norm);
      norm(t, w.ffn_norm);
    });
    const Product widened[] = {{&w.gate, gate_}, {&w.up, up_}};
    matmul(s_.normed.view(), widened, workers_);
    for_tokens([&](size_t t) {
      add(w.gate_bias, gate_.row(t));
      add(w.up_bias, up_.row(t));
      activate(gate_.row(t), up_.row(t));
    });
    matmul(gate_, w.down, projected_, workers_);
    for_tokens([&](size_t t) { add_projected(t, w.down_bias, w.ffn_post_norm); });
  }

 private:
  // Where activations lie in the shared memory: attention's from its start, over the gate's; what
  // is projected behind them, over the widened values, which are no longer needed when it is
  // written.
  void share(size_t query_width, size_t key_width, size_t inner_width) {
    const size_t attention_width = query_width + 2 * key_width;
    const size_t projected_at = std::max(attention_width, inner_width);
    const size_t width = std::max(projected_at + config_.hidden_size, 2 * inner_width);
    s_.shared.resize(std::max(s_.shared.size(), tokens_ * width));
    const auto place = [&](size_t at, size_t columns) {
      return View<float>(s_.shared.data() + tokens_ * at, tokens_, columns);
    };
    queries_ = place(0, query_width);
    keys_ = place(query_width, key_width);
    values_ = place(query_width + key_width, key_width);
    projected_ = place(projected_at, config_.hidden_size);
    gate_ = place(0, inner_width);
    up_ = place(inner_width, inner_width);
  }

  template <class Fn>
  void for_tokens(const Fn& fn) {
    workers_.run_ranges(tokens_, kTokenGrain, [&](size_t begin, size_t end, size_t) {
      for (size_t t = begin; t < end; ++t) fn(t);
    });
  }

  // fn(slice, first row): the rows of the slices follow each other.
  template <class Fn>
  void for_slices(const Fn& fn) {
    size_t row = 0;
    for (const SequenceSlice& slice : slices_) {
      if (!slice.tokens.empty()) fn(slice, row);
      row += slice.tokens.size();
    }
  }

  void fill_angles() {
    const std::span<const LayerType> types = config_.layer_types.all();
    s_.angles.resize(types.size());
    for (size_t i = 0; i < types.size(); ++i) fill_angles(types[i].rotary, s_.angles[i]);
  }

  void fill_angles(const Rotary& rotary, Angles& angles) {
    angles.cos.reshape(tokens_, rotary.pairs());
    angles.sin.reshape(tokens_, rotary.pairs());
    for_slices([&](const SequenceSlice& slice, size_t row) {
      const size_t start = slice.cache->length();
      workers_.run_ranges(slice.tokens.size(), kTokenGrain, [&](size_t begin, size_t end, size_t) {
        for (size_t i = begin; i < end; ++i) {
          rotary.angles(static_cast<double>(start + i), angles.cos.row(row + i),
                        angles.sin.row(row + i));
        }
      });
    });
  }

  void activate(std::span<float> gate, std::span<const float> up) const {
    if (config_.hidden_activation == Activation::gelu_tanh) {
      geglu(gate, up);
    } else {
      swiglu(gate, up);
    }
  }

  void norm(size_t t, std::span<const float> weight) {
    rms_norm(hidden_.row(t), weight, config_.rms_norm_epsilon, s_.normed.row(t));
  }

  void add_projected(size_t t, std::span<const float> bias, std::span<const float> post_norm) {
    const std::span<float> projected = projected_.row(t);
    add(bias, projected);
    if (!post_norm.empty()) rms_norm(projected, post_norm, config_.rms_norm_epsilon, projected);
    add(projected, hidden_.row(t));
  }

  // Biases, head order, QK norm and RoPE, in this order.
  void finish_projections(const LayerWeights& w, const Angles& angles, bool keep_keys_before_rope) {
    if (keep_keys_before_rope) s_.keys_before_rope.reshape(tokens_, keys_.cols);
    for_tokens([&](size_t t) {
      const std::span<float> queries = queries_.row(t), keys = keys_.row(t);
      finish_heads(queries, w.query_bias, w.query_norm);
      finish_heads(keys, w.key_bias, w.key_norm);
      add(w.value_bias, values_.row(t));
      if (keep_keys_before_rope) std::ranges::copy(keys, s_.keys_before_rope.row(t).begin());
      rope_heads(queries, config_.head_dim, angles.cos.row(t), angles.sin.row(t));
      rope_heads(keys, config_.head_dim, angles.cos.row(t), angles.sin.row(t));
    });
  }

  void finish_heads(std::span<float> heads, std::span<const float> bias,
                    std::span<const float> norm_weight) {
    const size_t head_dim = config_.head_dim;
    if (interleaved_qk_) {
      std::array<float, kMaxHeadDim> scratch;
      separate_halves(heads, head_dim, scratch);
    }
    add(bias, heads);
    if (norm_weight.empty()) return;
    for (size_t at = 0; at < heads.size(); at += head_dim) {
      const std::span<float> head = heads.subspan(at, head_dim);
      rms_norm(head, norm_weight, config_.rms_norm_epsilon, head);
    }
  }

  void attend(size_t layer) {
    for_slices([&](const SequenceSlice& slice, size_t row) {
      const size_t count = slice.tokens.size();
      AttentionInput input;
      input.queries = queries_.rows_from(row, count);
      input.keys = keys_.rows_from(row, count);
      input.values = values_.rows_from(row, count);
      input.scale = config_.attention_scale();
      slice.cache->attend(layer, input, s_.attended.view().rows_from(row, count), s_.attention,
                          workers_);
    });
  }

  void observe(size_t layer, const LayerObserver& observer) {
    for_slices([&](const SequenceSlice& slice, size_t row) {
      const size_t count = slice.tokens.size();
      LayerObservation seen;
      seen.layer = layer;
      seen.first_position = slice.cache->length();
      seen.queries = queries_.rows_from(row, count);
      seen.keys_before_rope = s_.keys_before_rope.view().rows_from(row, count);
      seen.keys = keys_.rows_from(row, count);
      seen.values = values_.rows_from(row, count);
      seen.attended = s_.attended.view().rows_from(row, count);
      observer(seen);
    });
  }

  const ModelConfig& config_;
  const bool interleaved_qk_;
  std::span<const SequenceSlice> slices_;
  Matrix<float>& hidden_;  // [tokens x hidden]
  Scratch& s_;
  Workers& workers_;
  const size_t tokens_;
  View<float> queries_, keys_, values_, projected_, gate_, up_;
};

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
  LayerPass pass(parts_->config, parts_->interleaved_qk, slices, hidden, scratch, workers);
  for (size_t layer = first; layer < last; ++layer) {
    pass.run(layer, parts_->weights.layers[layer], observer);
  }
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

}  // namespace mkv
