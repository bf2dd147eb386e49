#include "model/layer_pass.h"

#include <algorithm>
#include <array>

#include "model/head_order.h"
#include "ops/ops.h"

namespace mkv {
namespace {

constexpr size_t kTokenGrain = 8;
// Most tokens that go through a linear layer together: many enough to unpack its weights for, few
// enough for what they are widened to.
constexpr size_t kPieceTokens = 176, kPieceStep = 16;
static_assert(kPieceTokens % kPieceStep == 0);

// fn(first, count), alike in size.
template <class Fn>
void for_pieces(size_t tokens, const Fn& fn) {
  const size_t pieces = (tokens + kPieceTokens - 1) / kPieceTokens;
  if (pieces == 0) return;
  const size_t even = (tokens + pieces - 1) / pieces;
  const size_t step = std::min(tokens, (even + kPieceStep - 1) / kPieceStep * kPieceStep);
  for (size_t first = 0; first < tokens; first += step) fn(first, std::min(step, tokens - first));
}

void add(std::span<const float> values, std::span<float> to) {
  if (!values.empty()) axpy(1.0f, values, to);
}

// The layers over one set of slices: what they share, so that the steps read as the architecture.
class LayerPass {
 public:
  LayerPass(const LayerPassInput& input, Matrix<float>& hidden, Scratch& scratch, Workers& workers)
      : config_(input.config),
        interleaved_qk_(input.interleaved_qk),
        slices_(input.slices),
        hidden_(hidden),
        s_(scratch),
        workers_(workers),
        tokens_(hidden.rows()),
        asking_(tokens_) {
    const size_t query_width = config_.num_heads * config_.head_dim;
    const size_t key_width = config_.num_kv_heads * config_.head_dim;
    s_.attended.reshape(tokens_, query_width);
    share(query_width, key_width, config_.intermediate_size);
    fill_angles();
  }

  // some_ask: in the last layer, where only some tokens' outputs are asked for; they become the
  // leading rows of hidden. Returns the number of rows.
  size_t run(size_t layer, const LayerWeights& w, bool some_ask, const LayerObserver& observer) {
    project(w, !some_ask);
    if (some_ask) {
      keep_asking();
      project_queries(w);
    }
    finish_projections(w, s_.angles[config_.layer_types.index_of(layer)],
                       static_cast<bool>(observer));
    attend(layer);
    if (observer) observe(layer, observer);
    for_pieces(asking_, [&](size_t first, size_t count) { feed_forward(w, first, count); });
    return asking_;
  }

 private:
  // Where activations lie in the shared memory: those of all tokens that attention takes from its
  // start, and over them, once it has run, those of a piece. What is projected lies over the
  // widened values, which are no longer needed when it is written.
  void share(size_t query_width, size_t key_width, size_t inner_width) {
    const size_t piece = std::min(tokens_, kPieceTokens);  // the most rows of one
    const size_t piece_width = inner_width + std::max(inner_width, config_.hidden_size);
    const size_t size = std::max(tokens_ * (query_width + 2 * key_width), piece * piece_width);
    s_.shared.resize(std::max(s_.shared.size(), size));
    const auto place = [&](size_t rows, size_t at, size_t columns) {
      return View<float>(s_.shared.data() + rows * at, rows, columns);
    };
    queries_ = place(tokens_, 0, query_width);
    keys_ = place(tokens_, query_width, key_width);
    values_ = place(tokens_, query_width + key_width, key_width);
    gate_ = place(piece, 0, inner_width);
    up_ = place(piece, inner_width, inner_width);
    projected_ = place(piece, inner_width, config_.hidden_size);
  }

  template <class Fn>
  void for_tokens(size_t tokens, const Fn& fn) {
    workers_.run_ranges(tokens, kTokenGrain, [&](size_t begin, size_t end, size_t) {
      for (size_t t = begin; t < end; ++t) fn(t);
    });
  }

  // fn(slice, first row of its tokens, first row of its queries, queries): the rows of the slices
  // follow each other.
  template <class Fn>
  void for_slices(const Fn& fn) {
    size_t row = 0, query = 0;
    for (const SequenceSlice& slice : slices_) {
      const size_t count = slice.tokens.size(), asking = all_ask() ? count : asking_of(slice);
      if (count > 0) fn(slice, row, query, asking);
      row += count;
      query += asking;
    }
  }

  bool all_ask() const { return asking_ == tokens_; }
  static size_t asking_of(const SequenceSlice& slice) {
    return slice.last_only ? std::min<size_t>(1, slice.tokens.size()) : slice.tokens.size();
  }
  // The token that row q of the queries is of.
  size_t token_of(size_t q) const { return all_ask() ? q : s_.asking[q]; }

  // Hidden rows of the tokens that ask become the first.
  void keep_asking() {
    s_.asking.clear();
    size_t row = 0;
    for (const SequenceSlice& slice : slices_) {
      const size_t end = row + slice.tokens.size();
      for (row = end - asking_of(slice); row < end; ++row) {
        std::ranges::copy(hidden_.row(row), hidden_.row(s_.asking.size()).begin());
        s_.asking.push_back(row);
      }
    }
    asking_ = s_.asking.size();
  }

  // Queries, if asked for, keys and values of all tokens.
  void project(const LayerWeights& w, bool with_queries) {
    for_pieces(tokens_, [&](size_t first, size_t count) {
      const auto rows = [&](View<float> of) { return of.rows_from(first, count); };
      const Product projections[] = {
          {&w.query, rows(queries_)}, {&w.key, rows(keys_)}, {&w.value, rows(values_)}};
      project_normed(w, first, count, std::span(projections).subspan(with_queries ? 0 : 1));
    });
  }

  // Of those who ask, once they are the first.
  void project_queries(const LayerWeights& w) {
    for_pieces(asking_, [&](size_t first, size_t count) {
      const Product projection{&w.query, queries_.rows_from(first, count)};
      project_normed(w, first, count, {&projection, 1});
    });
  }

  void project_normed(const LayerWeights& w, size_t first, size_t count,
                      std::span<const Product> products) {
    s_.normed.reshape(count, config_.hidden_size);
    const auto make = [&](size_t t) {
      norm(hidden_.row(first + t), w.attention_norm, s_.normed.row(t));
    };
    matmul(s_.normed.view(), products, workers_, make);
  }

  // What follows attention, for some rows of hidden.
  void feed_forward(const LayerWeights& w, size_t first, size_t count) {
    const View<float> gate = gate_.rows_from(0, count), up = up_.rows_from(0, count);
    const View<float> projected = projected_.rows_from(0, count);
    s_.normed.reshape(count, config_.hidden_size);
    matmul(s_.attended.view().rows_from(first, count), w.output, projected, workers_);
    const auto make_normed = [&](size_t t) {
      const std::span<float> hidden = hidden_.row(first + t);
      add_projected(projected.row(t), w.output_bias, w.attention_post_norm, hidden);
      norm(hidden, w.ffn_norm, s_.normed.row(t));
    };
    const Product widened[] = {{&w.gate, gate}, {&w.up, up}};
    matmul(s_.normed.view(), widened, workers_, make_normed);
    const auto make_activated = [&](size_t t) {
      add(w.gate_bias, gate.row(t));
      add(w.up_bias, up.row(t));
      activate(gate.row(t), up.row(t));
    };
    matmul(gate, w.down, projected, workers_, make_activated);
    for_tokens(count, [&](size_t t) {
      add_projected(projected.row(t), w.down_bias, w.ffn_post_norm, hidden_.row(first + t));
    });
  }

  void fill_angles() {
    const std::span<const LayerType> types = config_.layer_types.all();
    s_.angles.resize(types.size());
    for (size_t i = 0; i < types.size(); ++i) fill_angles(types[i].rotary, s_.angles[i]);
  }

  void fill_angles(const Rotary& rotary, Angles& angles) {
    angles.cos.reshape(tokens_, rotary.pairs());
    angles.sin.reshape(tokens_, rotary.pairs());
    for_slices([&](const SequenceSlice& slice, size_t row, size_t, size_t) {
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

  void norm(std::span<const float> row, std::span<const float> weight, std::span<float> out) {
    rms_norm(row, weight, config_.rms_norm_epsilon, out);
  }

  void add_projected(std::span<float> projected, std::span<const float> bias,
                     std::span<const float> post_norm, std::span<float> hidden) {
    add(bias, projected);
    if (!post_norm.empty()) norm(projected, post_norm, projected);
    add(projected, hidden);
  }

  // Biases, head order, QK norm and RoPE, in this order.
  void finish_projections(const LayerWeights& w, const Angles& angles, bool keep_keys_before_rope) {
    if (keep_keys_before_rope) s_.keys_before_rope.reshape(tokens_, keys_.cols);
    const auto turn = [&](std::span<float> heads, size_t t) {
      rope_heads(heads, config_.head_dim, angles.cos.row(t), angles.sin.row(t));
    };
    for_tokens(tokens_, [&](size_t t) {
      const std::span<float> keys = keys_.row(t);
      finish_heads(keys, w.key_bias, w.key_norm);
      add(w.value_bias, values_.row(t));
      if (keep_keys_before_rope) std::ranges::copy(keys, s_.keys_before_rope.row(t).begin());
      turn(keys, t);
      if (t >= asking_) return;
      finish_heads(queries_.row(t), w.query_bias, w.query_norm);
      turn(queries_.row(t), token_of(t));
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
    for_slices([&](const SequenceSlice& slice, size_t row, size_t query, size_t asking) {
      const size_t count = slice.tokens.size();
      AttentionInput input;
      input.queries = queries_.rows_from(query, asking);
      input.keys = keys_.rows_from(row, count);
      input.values = values_.rows_from(row, count);
      input.scale = config_.attention_scale();
      slice.cache->attend(layer, input, s_.attended.view().rows_from(query, asking), s_.attention,
                          workers_);
    });
  }

  void observe(size_t layer, const LayerObserver& observer) {
    for_slices([&](const SequenceSlice& slice, size_t row, size_t, size_t count) {
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
  size_t asking_;                        // rows of queries
  View<float> queries_, keys_, values_;  // of all tokens
  View<float> gate_, up_, projected_;    // of a piece
};

}  // namespace

void pass_layers(const LayerPassInput& input, size_t first, size_t last, Matrix<float>& hidden,
                 Scratch& scratch, Workers& workers, const LayerObserver& observer) {
  const bool some_ask = std::ranges::any_of(input.slices, [](const SequenceSlice& slice) {
    return slice.last_only && slice.tokens.size() > 1;
  });
  MKV_CHECK(!some_ask || !observer);
  LayerPass pass(input, hidden, scratch, workers);
  for (size_t layer = first; layer < last; ++layer) {
    const bool narrow = some_ask && layer + 1 == input.layers.size();
    hidden.reshape(pass.run(layer, input.layers[layer], narrow, observer), hidden.cols());
  }
}

}  // namespace mkv
