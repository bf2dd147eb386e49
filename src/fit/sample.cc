#include "fit/sample.h"

#include <algorithm>
#include <cmath>

#include "base/half.h"
#include "fit/metric_basis.h"
#include "ops/gemm.h"
#include "ops/ops.h"

namespace mkv {
namespace {

class Gatherer {
 public:
  // tokens: of all windows, for room; a Buffer does not grow ahead.
  Gatherer(const Model& model, const SampleOptions& options, size_t tokens, Workers& workers)
      : model_(model), view_(options.view), draws_(options.draws), workers_(workers) {
    const size_t group_size = options.group_size;
    sample_.shape = model.config().kv_shape();
    sample_.group_size = group_size;
    const size_t width = sample_.shape.kv_heads * sample_.shape.head_dim;
    const size_t dims = group_size * sample_.shape.head_dim;
    sample_.values.resize(sample_.shape.layers);
    for (auto& sides : sample_.values) {
      for (Buffer<uint16_t>& store : sides) store.reserve(tokens * width);
    }
    sample_.key_means.assign(sample_.shape.layers, std::vector<float>(width, 0.0f));
    for (size_t i = 0; i < sample_.shape.layers * groups() * 2; ++i) {
      sample_.gradient_moments.emplace_back(dims, dims);
    }
    sample_.gradient_squares.resize(sample_.gradient_moments.size());
    sample_.later_sinks.resize(sample_.shape.layers);
  }

  // The next window's tokens stand at first_position and after it. Its draws follow. `kept`:
  // whether its keys and values are.
  void begin_window(size_t tokens, size_t first_position, bool kept) {
    first_position_ = first_position;
    begin_token_ = sample_.positions.size();
    kept_ = kept;
    all_tokens_ += tokens - std::min(tokens, view_.sinks);
    if (!kept) return;
    for (size_t t = view_.sinks; t < tokens; ++t) {
      sample_.positions.push_back(static_cast<uint32_t>(first_position + t));
    }
  }
  void add(const LayerGradient& seen, bool first_draw) {
    const Rotary& rotary = model_.config().rotary(seen.layer);
    turn(rotary, seen.keys, keys_);
    turn(rotary, seen.key_gradients, key_gradients_);
    if (kept_ && first_draw) {
      for (const uint32_t t : seen.later_sinks) {
        sample_.later_sinks[seen.layer].push_back(
            static_cast<uint32_t>(begin_token_ + t - view_.sinks));
      }
    }
    workers_.run(2, [&](size_t side, size_t) {
      const bool key = side == 0;
      if (kept_ && first_draw) {
        add_values(seen.layer, side, key ? keys_.view() : seen.values, seen.later_sinks);
      }
      for (size_t group = 0; group < groups(); ++group) {
        add_moments((seen.layer * groups() + group) * 2 + side, group,
                    key ? key_gradients_.view() : seen.value_gradients);
      }
    });
  }
  KvSample finish() {
    for (size_t layer = 0; layer < sample_.key_means.size(); ++layer) {
      const size_t tokens = sample_.tokens() - sample_.later_sinks[layer].size();
      for (float& x : sample_.key_means[layer]) {
        x /= static_cast<float>(std::max<size_t>(1, tokens));
      }
    }
    const float scale = 1.0f / static_cast<float>(std::max<size_t>(1, all_tokens_));
    for (Matrix<float>& m : sample_.gradient_moments) {
      for (float& x : m.span()) x *= scale / static_cast<float>(draws_);
    }
    return std::move(sample_);
  }

 private:
  size_t groups() const { return sample_.shape.kv_heads / sample_.group_size; }

  // From where the window was computed to where it stands: every head by first_position.
  void turn(const Rotary& rotary, View<const float> from, Matrix<float>& to) {
    const size_t head_dim = sample_.shape.head_dim;
    std::vector<float> cos(head_dim / 2), sin(head_dim / 2);
    rotary.angles(static_cast<double>(first_position_), cos, sin);
    to.reshape(from.rows, from.cols);
    workers_.run_ranges(from.rows, 64, [&](size_t begin, size_t end, size_t) {
      for (size_t t = begin; t < end; ++t) {
        std::ranges::copy(from.row(t), to.row(t).begin());
        rope_heads(to.row(t), head_dim, cos, sin);
      }
    });
  }

  void add_values(size_t layer, size_t side, View<const float> values,
                  std::span<const uint32_t> later_sinks) {
    Buffer<uint16_t>& store = sample_.values[layer][side];
    const size_t head_dim = sample_.shape.head_dim, pairs = head_dim / 2;
    std::vector<float> row(values.cols), cos(pairs), sin(pairs);
    for (size_t t = view_.sinks; t < values.rows; ++t) {
      const size_t at = store.size();
      store.resize(at + values.cols);
      f32_to_f16(values.row(t), store.span().subspan(at));
      if (side != 0 || std::ranges::binary_search(later_sinks, static_cast<uint32_t>(t))) continue;
      std::ranges::copy(values.row(t), row.begin());
      model_.config().rotary(layer).angles(-static_cast<double>(first_position_ + t), cos, sin);
      rope_heads(row, head_dim, cos, sin);
      axpy(1.0f, row, sample_.key_means[layer]);
    }
  }

  // moments += G^T G of a group's columns, and each token's |g|^2.
  void add_moments(size_t space, size_t group, View<const float> gradients) {
    Matrix<float>& moments = sample_.gradient_moments[space];
    const size_t dims = moments.rows();
    const View<const float> part(gradients.data + group * dims, gradients.rows, dims,
                                 gradients.stride);
    Matrix<float> transposed(dims, part.rows);
    for (size_t t = 0; t < part.rows; ++t) {
      for (size_t c = 0; c < dims; ++c) transposed.at(c, t) = part.at(t, c);
    }
    gemm(transposed.view(), part, Transpose::no, 1.0f, moments.view());
    if (!kept_) return;
    std::vector<float>& squares = sample_.gradient_squares[space];
    squares.resize(sample_.positions.size(), 0.0f);
    for (size_t t = view_.sinks; t < part.rows; ++t) {
      squares[begin_token_ + t - view_.sinks] += dot(part.row(t), part.row(t));
    }
  }

  const Model& model_;
  const CodedView view_;
  const size_t draws_;
  Workers& workers_;
  size_t first_position_ = 0, begin_token_ = 0;  // of the window
  bool kept_ = true;                             // likewise
  size_t all_tokens_ = 0;                        // whose gradients were added
  Matrix<float> keys_, key_gradients_;
  KvSample sample_;
};

// Spread evenly over [0, 1), squared: seven windows of ten in the first half of what is
// left of the context, the first at its beginning.
size_t place_of(size_t window, size_t tokens, size_t context) {
  if (context <= tokens) return 0;
  constexpr double kGoldenRatio = 0.6180339887498949;
  const double part = std::fmod(static_cast<double>(window) * kGoldenRatio, 1.0);
  return static_cast<size_t>(part * part * static_cast<double>(context - tokens));
}

}  // namespace

Result<KvSample> gather_sample(const Model& model, std::span<const std::vector<TokenId>> windows,
                               const SampleOptions& options, const ProgressSink& progress,
                               Workers& workers) {
  const size_t window = windows.empty() ? 0 : windows.front().size();
  const size_t kept =
      std::min(windows.size(), std::max<size_t>(1, options.most / std::max<size_t>(1, window)));
  Gatherer gatherer(model, options, kept * window, workers);
  for (size_t w = 0; w < windows.size(); ++w) {
    report(progress, {"statistics", w, windows.size(), {}});
    const size_t tokens = windows[w].size();
    const bool keep = (w + 1) * kept / windows.size() > w * kept / windows.size();
    gatherer.begin_window(tokens, place_of(w, tokens, options.context), keep);
    for (size_t draw = 0; draw < options.draws; ++draw) {
      MKV_TRY(model.gradients(
          windows[w], options.seed + w + draw * windows.size(), options.view,
          [&](const LayerGradient& seen) { gatherer.add(seen, draw == 0); }, workers));
    }
  }
  report(progress, {"statistics", windows.size(), windows.size(), {}});
  return gatherer.finish();
}

std::vector<float> sample_weights(const KvSample& sample, size_t layer, size_t space, double floor,
                                  size_t padded) {
  std::vector<float> weights = token_weights(sample.gradient_squares[space], floor, padded);
  for (const uint32_t t : sample.later_sinks[layer]) weights[t] = 0.0f;
  return weights;
}

void centred_columns(const KvSample& sample, const Model& model, GroupId id, KeyMean key_mean,
                     Matrix<float>& columns, std::span<float> mean) {
  const size_t head_dim = sample.shape.head_dim, dims = sample.group_size * head_dim;
  const size_t width = sample.shape.kv_heads * head_dim, pairs = head_dim / 2;
  const KeyMean kind = id.side == Side::value ? KeyMean::plain : key_mean;
  const Buffer<uint16_t>& values = sample.values[id.layer][static_cast<size_t>(id.side)];
  std::vector<float> row(dims), cos(pairs), sin(pairs);
  const auto read = [&](size_t t) {
    f16_to_f32(values.span().subspan(t * width + id.group * dims, dims), row);
  };
  const std::vector<uint32_t>& left_out = sample.later_sinks[id.layer];
  std::ranges::fill(mean, 0.0f);
  if (kind == KeyMean::position) {
    std::copy_n(sample.key_means[id.layer].begin() + static_cast<ptrdiff_t>(id.group * dims), dims,
                mean.begin());
  } else if (kind == KeyMean::plain) {
    const auto tokens = static_cast<float>(sample.tokens() - left_out.size());
    for (size_t t = 0; t < sample.tokens(); ++t) {
      if (std::ranges::binary_search(left_out, static_cast<uint32_t>(t))) continue;
      read(t);
      axpy(1.0f / tokens, row, mean);
    }
  }
  columns.reshape(dims, (sample.tokens() + kBlockTokens - 1) / kBlockTokens * kBlockTokens);
  std::ranges::fill(columns.span(), 0.0f);
  std::vector<float> turned(mean.begin(), mean.end());
  for (size_t t = 0; t < sample.tokens(); ++t) {
    read(t);
    if (kind == KeyMean::position) {
      std::ranges::copy(mean, turned.begin());
      model.config().rotary(id.layer).angles(sample.positions[t], cos, sin);
      rope_heads(turned, head_dim, cos, sin);
    }
    for (size_t c = 0; c < dims; ++c) columns.at(c, t) = row[c] - turned[c];
  }
}

}  // namespace mkv
