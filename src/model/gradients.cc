// Backward pass of the loss to every layer's keys and values. Weights stay as they are; only
// activations have gradients. Activations are kept at layer inputs and recomputed inside a layer,
// so that memory grows with layers x tokens x hidden_size.
#include <algorithm>
#include <cmath>

#include "base/rng.h"
#include "model/backward_steps.h"
#include "model/head_order.h"
#include "model/model_parts.h"
#include "nest/later_sinks.h"
#include "ops/gemm.h"
#include "ops/ops.h"

namespace mkv {
namespace {

constexpr size_t kLogitRows = 512;

// Takes the pairs that the view sees exactly out of m [queries x keys].
void keep_coded_pairs(const CodedView& view, size_t first_query, size_t first_key,
                      Matrix<float>& m) {
  for (size_t i = 0; i < m.cols(); ++i) {
    const size_t first = view.first_query_that_sees_codes(first_key + i);
    for (size_t r = 0; r < m.rows() && first_query + r < first; ++r) m.at(r, i) = 0.0f;
  }
}

// One query head's attention, causal over a whole window of text, or a layer's sliding window of
// it.
struct HeadBackward {
  Matrix<float> probabilities, scores_gradient;  // of some queries and the keys that they see

  struct Sources {
    View<const float> queries, keys, values, out, out_gradient;
  };
  struct Targets {
    View<float> queries, keys, values;     // full gradients
    View<float> coded_keys, coded_values;  // through the pairs that see codes alone
  };

  // Columns of one head in [tokens x heads*head_dim].
  static View<const float> head(View<const float> m, size_t index, size_t head_dim) {
    return {m.data + index * head_dim, m.rows, head_dim, m.stride};
  }

  void run(const Sources& from, float scale, const LayerType& type, const CodedView& view,
           const Targets& to) {
    for (const View<float> m : {to.keys, to.values, to.coded_keys, to.coded_values}) {
      for (size_t t = 0; t < m.rows; ++t) std::ranges::fill(m.row(t), 0.0f);
    }
    for (size_t begin = 0; begin < from.queries.rows; begin += kQueries) {
      const size_t queries = std::min(kQueries, from.queries.rows - begin);
      const size_t first = type.first_seen(begin), keys = begin + queries - first;
      const View<const float> q = from.queries.rows_from(begin, queries);
      const View<const float> d_out = from.out_gradient.rows_from(begin, queries);
      scores(from, scale, type, begin, queries);
      gemm(scores_gradient.view(), from.keys.rows_from(first, keys), Transpose::no, 0.0f,
           to.queries.rows_from(begin, queries));
      add_transposed(scores_gradient.view(), q, to.keys.rows_from(first, keys));
      add_transposed(probabilities.view(), d_out, to.values.rows_from(first, keys));
      keep_coded_pairs(view, begin, first, scores_gradient);
      keep_coded_pairs(view, begin, first, probabilities);
      add_transposed(scores_gradient.view(), q, to.coded_keys.rows_from(first, keys));
      add_transposed(probabilities.view(), d_out, to.coded_values.rows_from(first, keys));
    }
  }

 private:
  static constexpr size_t kQueries = 128;  // at a time: what they see stays in the caches

  // Both matrices of queries begin ... and the keys from the first that they see to the last.
  void scores(const Sources& from, float scale, const LayerType& type, size_t begin,
              size_t queries) {
    const size_t low = type.first_seen(begin), keys = begin + queries - low;
    probabilities.reshape(queries, keys);
    scores_gradient.reshape(queries, keys);
    gemm(from.queries.rows_from(begin, queries), from.keys.rows_from(low, keys), Transpose::yes,
         0.0f, probabilities.view());
    gemm(from.out_gradient.rows_from(begin, queries), from.values.rows_from(low, keys),
         Transpose::yes, 0.0f, scores_gradient.view());
    for (size_t r = 0; r < queries; ++r) {
      const std::span<float> p = probabilities.row(r), ds = scores_gradient.row(r);
      const size_t first = type.first_seen(begin + r) - low, end = begin + r + 1 - low;
      softmax(p.subspan(first, end - first), scale);
      std::ranges::fill(p.first(first), 0.0f);
      std::ranges::fill(p.subspan(end), 0.0f);
      const float mean = dot(from.out.row(begin + r), from.out_gradient.row(begin + r));
      for (size_t s = first; s < end; ++s) ds[s] = scale * p[s] * (ds[s] - mean);
      std::ranges::fill(ds.first(first), 0.0f);
      std::ranges::fill(ds.subspan(end), 0.0f);
    }
  }
};

// What the forward pass through one layer leaves for its backward pass.
struct LayerRecord {
  Matrix<float> queries, keys, values, attended;

  void copy(const LayerObservation& seen) {
    const auto take = [](View<const float> from, Matrix<float>& to) {
      to.reshape(from.rows, from.cols);
      for (size_t t = 0; t < from.rows; ++t) std::ranges::copy(from.row(t), to.row(t).begin());
    };
    take(seen.queries, queries);
    take(seen.keys, keys);
    take(seen.values, values);
    take(seen.attended, attended);
  }
};

class LayerBackward {
 public:
  LayerBackward(const ModelConfig& config, bool interleaved_qk, const CodedView& view,
                Workers& workers)
      : config_(config),
        interleaved_qk_(interleaved_qk),
        view_(view),
        workers_(workers),
        heads_(workers.count()) {}

  // `gradient` [tokens x hidden]: with respect to the layer's output on entry, its input on return.
  void run(size_t layer, const LayerWeights& w, const Matrix<float>& input,
           const LayerRecord& record, Matrix<float>& gradient) {
    const size_t tokens = input.rows();
    middle_.reshape(tokens, config_.hidden_size);
    added_.reshape(tokens, config_.hidden_size);
    matmul(record.attended.view(), w.output, added_.view(), workers_);
    for_tokens(tokens, [&](size_t t) {
      const std::span<float> added = added_.row(t), middle = middle_.row(t);
      if (!w.output_bias.empty()) axpy(1.0f, w.output_bias, added);
      if (w.attention_post_norm.empty()) {
        std::ranges::copy(added, middle.begin());
      } else {
        rms_norm(added, w.attention_post_norm, config_.rms_norm_epsilon, middle);
      }
      axpy(1.0f, input.row(t), middle);
    });
    feed_forward(w, gradient);
    attention(layer, w, record, before_post_norm(w.attention_post_norm, added_, gradient));
    projections(layer, w, input, gradient);
  }

  // Tokens that no other sees as codes.
  void leave_out(std::span<const uint32_t> tokens) {
    for (const uint32_t t : tokens) {
      std::ranges::fill(coded_keys_.row(t), 0.0f);
      std::ranges::fill(coded_values_.row(t), 0.0f);
    }
  }
  const Matrix<float>& coded_key_gradient() const { return coded_keys_; }
  const Matrix<float>& coded_value_gradient() const { return coded_values_; }

 private:
  template <class Fn>
  void for_tokens(size_t tokens, const Fn& fn) {
    workers_.run_ranges(tokens, 8, [&](size_t begin, size_t end, size_t) {
      for (size_t t = begin; t < end; ++t) fn(t);
    });
  }

  // The gradient before a norm of `x`, given that after it: the same where there is no norm.
  const Matrix<float>& before_post_norm(std::span<const float> norm, const Matrix<float>& x,
                                        const Matrix<float>& gradient) {
    if (norm.empty()) return gradient;
    through_.reshape(x.rows(), x.cols());
    std::ranges::fill(through_.span(), 0.0f);
    for_tokens(x.rows(), [&](size_t t) {
      add_norm_backward(x.row(t), norm, config_.rms_norm_epsilon, gradient.row(t), through_.row(t));
    });
    return through_;
  }

  void feed_forward(const LayerWeights& w, Matrix<float>& gradient) {
    const size_t tokens = middle_.rows();
    normed_.reshape(tokens, config_.hidden_size);
    gate_.reshape(tokens, config_.intermediate_size);
    up_.reshape(tokens, config_.intermediate_size);
    slope_.reshape(tokens, config_.intermediate_size);
    product_.reshape(tokens, config_.intermediate_size);
    for_tokens(tokens, [&](size_t t) {
      rms_norm(middle_.row(t), w.ffn_norm, config_.rms_norm_epsilon, normed_.row(t));
    });
    matmul(normed_.view(), w.gate, gate_.view(), workers_);
    matmul(normed_.view(), w.up, up_.view(), workers_);
    for_tokens(tokens, [&](size_t t) {
      if (!w.gate_bias.empty()) axpy(1.0f, w.gate_bias, gate_.row(t));
      if (!w.up_bias.empty()) axpy(1.0f, w.up_bias, up_.row(t));
      activate(config_.hidden_activation, gate_.row(t), slope_.row(t));
      for (size_t i = 0; i < config_.intermediate_size; ++i) {
        product_.at(t, i) = gate_.at(t, i) * up_.at(t, i);
      }
    });
    if (!w.ffn_post_norm.empty()) {  // what the layer adds, before its norm
      matmul(product_.view(), w.down, normed_.view(), workers_);
      if (!w.down_bias.empty()) {
        for_tokens(tokens, [&](size_t t) { axpy(1.0f, w.down_bias, normed_.row(t)); });
      }
    }
    const Matrix<float>& added = before_post_norm(w.ffn_post_norm, normed_, gradient);
    matmul_backward(added.view(), w.down, false, product_.view(), workers_);
    for_tokens(tokens, [&](size_t t) {
      for (size_t i = 0; i < config_.intermediate_size; ++i) {
        const float d = product_.at(t, i), activated = gate_.at(t, i);
        gate_.at(t, i) = d * up_.at(t, i) * slope_.at(t, i);
        up_.at(t, i) = d * activated;
      }
    });
    matmul_backward(gate_.view(), w.gate, false, normed_.view(), workers_);
    matmul_backward(up_.view(), w.up, true, normed_.view(), workers_);
    for_tokens(tokens, [&](size_t t) {
      add_norm_backward(middle_.row(t), w.ffn_norm, config_.rms_norm_epsilon, normed_.row(t),
                        gradient.row(t));
    });
  }

  // `gradient`: of W_O's output.
  void attention(size_t layer, const LayerWeights& w, const LayerRecord& record,
                 const Matrix<float>& gradient) {
    const size_t tokens = gradient.rows(), head_dim = config_.head_dim;
    const size_t repeats = config_.num_heads / config_.num_kv_heads;
    const size_t width = config_.num_heads * head_dim;
    attended_.reshape(tokens, width);
    for (Matrix<float>* m :
         {&queries_, &keys_all_, &values_all_, &coded_keys_all_, &coded_values_all_}) {
      m->reshape(tokens, width);
    }
    matmul_backward(gradient.view(), w.output, false, attended_.view(), workers_);
    workers_.run(config_.num_heads, [&](size_t h, size_t worker) {
      const auto part = [&](View<const float> m, size_t index) {
        return HeadBackward::head(m, index, head_dim);
      };
      const auto target = [&](Matrix<float>& m) {
        return View<float>(m.data() + h * head_dim, tokens, head_dim, width);
      };
      heads_[worker].run({part(record.queries.view(), h), part(record.keys.view(), h / repeats),
                          part(record.values.view(), h / repeats), part(record.attended.view(), h),
                          part(attended_.view(), h)},
                         config_.attention_scale(), config_.layer_types.of(layer), view_,
                         {target(queries_), target(keys_all_), target(values_all_),
                          target(coded_keys_all_), target(coded_values_all_)});
    });
    for (auto [all, sum] : {std::pair{&keys_all_, &keys_}, std::pair{&values_all_, &values_},
                            std::pair{&coded_keys_all_, &coded_keys_},
                            std::pair{&coded_values_all_, &coded_values_}}) {
      sum->reshape(tokens, config_.num_kv_heads * head_dim);
      for_tokens(tokens, [from = all, to = sum, repeats, this](size_t t) {
        sum_repeats(from->row(t), repeats, to->row(t));
      });
    }
  }

  // Query heads that read the same KV head each have their share of its gradient.
  void sum_repeats(std::span<const float> all, size_t repeats, std::span<float> out) const {
    const size_t head_dim = config_.head_dim;
    for (size_t i = 0; i < out.size(); ++i) {
      const size_t first = i / head_dim * repeats * head_dim + i % head_dim;
      out[i] = 0.0f;
      for (size_t r = 0; r < repeats; ++r) out[i] += all[first + r * head_dim];
    }
  }

  // From queries, keys and values through RoPE, QK norm and W_q, W_k, W_v to the layer's input.
  void projections(size_t layer, const LayerWeights& w, const Matrix<float>& input,
                   Matrix<float>& gradient) {
    const size_t tokens = input.rows();
    for_tokens(tokens, [&](size_t t) {
      rms_norm(input.row(t), w.attention_norm, config_.rms_norm_epsilon, normed_.row(t));
    });
    const Rotary& rotary = config_.rotary(layer);
    heads_backward(rotary, w.query, w.query_bias, w.query_norm, queries_);
    heads_backward(rotary, w.key, w.key_bias, w.key_norm, keys_);
    matmul_backward(queries_.view(), w.query, false, normed_.view(), workers_);
    matmul_backward(keys_.view(), w.key, true, normed_.view(), workers_);
    matmul_backward(values_.view(), w.value, true, normed_.view(), workers_);
    for_tokens(tokens, [&](size_t t) {
      add_norm_backward(input.row(t), w.attention_norm, config_.rms_norm_epsilon, normed_.row(t),
                        gradient.row(t));
    });
  }

  // `d` [tokens x heads*head_dim]: gradient after RoPE on entry, of W x in the weight's row order
  // on return. normed_ holds x.
  void heads_backward(const Rotary& rotary, const Weight& weight, std::span<const float> bias,
                      std::span<const float> norm, Matrix<float>& d) {
    const size_t head_dim = config_.head_dim, pairs = head_dim / 2;
    Matrix<float> before;
    if (!norm.empty()) {
      before.reshape(d.rows(), d.cols());
      matmul(normed_.view(), weight, before.view(), workers_);
    }
    for_tokens(d.rows(), [&](size_t t) {
      std::vector<float> cos(pairs), sin(pairs), head(head_dim);
      rotary.angles(-static_cast<double>(t), cos, sin);
      for (size_t at = 0; at < d.cols(); at += head_dim) {
        const std::span<float> part = d.row(t).subspan(at, head_dim);
        rope(part, cos, sin);
        if (!norm.empty()) {
          const std::span<float> x = before.row(t).subspan(at, head_dim);
          if (!bias.empty()) axpy(1.0f, bias.subspan(at, head_dim), x);
          std::fill(head.begin(), head.end(), 0.0f);
          add_norm_backward(x, norm, config_.rms_norm_epsilon, part, head);
          std::ranges::copy(head, part.begin());
        }
        if (interleaved_qk_) interleave_halves(part, head);
      }
    });
  }

  const ModelConfig& config_;
  const bool interleaved_qk_;
  const CodedView view_;
  Workers& workers_;
  std::vector<HeadBackward> heads_;  // a worker each
  Matrix<float> added_, middle_, through_, normed_, gate_, up_, slope_, product_, attended_;
  Matrix<float> queries_, keys_all_, values_all_, coded_keys_all_, coded_values_all_;
  Matrix<float> keys_, values_, coded_keys_, coded_values_;
};

// The loss's gradient with respect to `finished` rows: softmax - one-hot of a drawn label, through
// the output projection.
void loss_gradient(const Model& model, const Weight& output, const Matrix<float>& finished,
                   uint64_t seed, Matrix<float>& gradient, Workers& workers) {
  Matrix<float> logits;
  for (size_t row = 0; row < finished.rows(); row += kLogitRows) {
    const size_t count = std::min(kLogitRows, finished.rows() - row);
    logits.reshape(count, output.rows);
    model.logits(finished.view().rows_from(row, count), logits.view(), workers);
    workers.run(count, [&](size_t r, size_t) {
      const std::span<float> p = logits.row(r);
      softmax(p, 1.0f);
      double left = Rng(seed * 1000003 + row + r).uniform();
      size_t label = 0;
      while (label + 1 < p.size() && (left -= p[label]) >= 0.0) ++label;
      p[label] -= 1.0f;
    });
    matmul_backward(logits.view(), output, false, gradient.view().rows_from(row, count), workers);
  }
}

}  // namespace

Result<void> Model::gradients(std::span<const TokenId> tokens, uint64_t seed, const CodedView& view,
                              const GradientSink& sink, Workers& workers) const {
  const ModelConfig& config = parts_->config;
  Scratch scratch;
  std::vector<Matrix<float>> inputs(config.num_layers);
  std::vector<std::vector<uint32_t>> sinks(config.num_layers);
  Matrix<float> hidden;
  MKV_TRY(embed(tokens, hidden));
  KvCache cache = exact_cache(tokens.size());
  const SequenceSlice slice{tokens, &cache};
  for (size_t layer = 0; layer < config.num_layers; ++layer) {
    inputs[layer] = hidden.clone();
    MKV_TRY(run_layers(
        {&slice, 1}, layer, layer + 1, hidden, scratch, workers, [&](const LayerObservation& seen) {
          sinks[layer] =
              find_later_sinks(seen.keys_before_rope, seen.values, view.sinks,
                               later_sink_rule(config.layer_types, layer, view.later_sinks),
                               layer > 0 ? sinks[layer - 1] : std::vector<uint32_t>());
        }));
  }
  Matrix<float> last = hidden.clone();
  finish(hidden);
  Matrix<float> dy(hidden.rows(), hidden.cols()), gradient(hidden.rows(), hidden.cols());
  loss_gradient(*this, parts_->weights.output, hidden, seed, dy, workers);
  for (size_t t = 0; t < last.rows(); ++t) {
    add_norm_backward(last.row(t), parts_->weights.final_norm, config.rms_norm_epsilon, dy.row(t),
                      gradient.row(t));
  }
  LayerBackward backward(config, parts_->interleaved_qk, view, workers);
  LayerRecord record;
  for (size_t layer = config.num_layers; layer-- > 0;) {
    cache.clear();
    hidden = inputs[layer].clone();
    MKV_TRY(run_layers({&slice, 1}, layer, layer + 1, hidden, scratch, workers,
                       [&](const LayerObservation& seen) { record.copy(seen); }));
    backward.run(layer, parts_->weights.layers[layer], inputs[layer], record, gradient);
    backward.leave_out(sinks[layer]);
    sink({layer, record.keys.view(), record.values.view(), backward.coded_key_gradient().view(),
          backward.coded_value_gradient().view(), sinks[layer]});
  }
  return {};
}

}  // namespace mkv
