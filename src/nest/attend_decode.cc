// Attention of one new token, on the latents as they are stored: the query is turned into each
// latent space once, scores and weighted sums run over the codes, and the value's basis is undone
// after the sum (arXiv:2410.14731 §3.1). The tokens are split into runs of blocks, whose partial
// softmaxes are merged by log-sum-exp (flash decoding), so that workers share one long context.
// Runs depend on the length alone: results do not depend on the number of workers.
#include <algorithm>
#include <cmath>

#include "base/half.h"
#include "nest/block_kernels.h"
#include "nest/kv_state.h"
#include "ops/ops.h"

namespace mkv {
namespace {

constexpr size_t kRunBlocks = 16;

class Decode {
 public:
  Decode(KvCache::State& state, size_t layer, const AttentionInput& input, View<float> out,
         AttentionScratch& scratch, Workers& workers)
      : state_(state),
        layer_(layer),
        input_(input),
        out_(out),
        workers_(workers),
        head_dim_(state.shape.head_dim),
        group_size_(state.nest == nullptr ? 1 : state.nest->config().group_size),
        groups_(state.shape.kv_heads / group_size_),
        repeats_(input.queries.cols / state.width()),
        heads_(group_size_ * repeats_),
        dims_(group_size_ * head_dim_),
        rows_(state.rows_of(state.length + 1)),
        coded_rows_(state.coded_rows(state.length + 1)),
        coded_blocks_((coded_rows_ + kBlockTokens - 1) / kBlockTokens) {
    const size_t blocks = (rows_ + kBlockTokens - 1) / kBlockTokens;
    blocks_ = state.window_blocks == 0 ? coded_blocks_ : blocks;
    runs_ = std::max<size_t>(1, (blocks_ + kRunBlocks - 1) / kRunBlocks);
    scratch.floats.resize(std::max(scratch.floats.size(), 4 + workers.count()));
    auto take = [&](size_t slot, size_t size) {
      scratch.floats[slot].resize(std::max(scratch.floats[slot].size(), size));
      return scratch.floats[slot].data();
    };
    const size_t all_heads = groups_ * heads_;
    queries_ = take(0, all_heads * head_dim_);
    latent_queries_ = take(1, all_heads * dims_);
    mean_terms_ = take(2, all_heads * head_dim_);
    partials_ = take(3, runs_ * all_heads * partial_size());
    const size_t expanded = codes() ? dims_ * kBlockTokens : 0;
    const size_t worker_floats = heads_ * (run_tokens() + dims_ + head_dim_) + expanded;
    for (size_t w = 0; w < workers.count(); ++w)
      worker_scratch_.push_back(take(4 + w, worker_floats));
  }

  void run() {
    for (size_t group = 0; group < groups_; ++group) prepare_queries(group);
    workers_.run(groups_ * runs_, [&](size_t task, size_t worker) {
      attend_run(task % groups_, task / groups_, worker);
    });
    merge();
  }

 private:
  bool codes() const {
    return state_.nest != nullptr && state_.nest->config().slab_kind == SlabKind::code;
  }
  size_t partial_size() const { return head_dim_ + 2; }  // values, top, sum
  size_t run_tokens() const { return kRunBlocks * kBlockTokens + state_.sinks; }
  // A group's rows of a per-head array: heads in the order (KV head, repeat).
  View<float> rows_of_group(float* array, size_t group, size_t cols) const {
    return {array + group * heads_ * cols, heads_, cols};
  }
  float* partial(size_t group, size_t run, size_t head) const {
    return partials_ + ((run * groups_ + group) * heads_ + head) * partial_size();
  }

  void prepare_queries(size_t group) {
    const float* from = input_.queries.row(0).data() + group * heads_ * head_dim_;
    const View<float> queries = rows_of_group(queries_, group, head_dim_);
    for (size_t i = 0; i < heads_ * head_dim_; ++i) queries.data[i] = from[i] * input_.scale;
    if (coded_blocks_ == 0) return;
    const Basis& basis = state_.nest->basis({layer_, group, Side::key});
    const size_t columns = state_.plan({layer_, group, Side::key}).columns;
    for (size_t h = 0; h < heads_; ++h) {
      const size_t offset = h / repeats_ * head_dim_;  // of the head's part of the group's space
      const std::span<float> latent = rows_of_group(latent_queries_, group, dims_).row(h);
      std::fill(latent.begin(), latent.end(), 0.0f);
      for (size_t c = 0; c < head_dim_; ++c) {
        axpy(queries.at(h, c), basis.decode.row(offset + c).first(columns), latent.first(columns));
      }
      prepare_mean_term(std::span(basis.mean).subspan(offset, head_dim_), queries.row(h),
                        rows_of_group(mean_terms_, group, head_dim_).row(h));
    }
  }

  // q . R_t mean = sum_i A_i cos(t w_i) + B_i sin(t w_i): keeps A then B; for a plain mean its
  // product with the query.
  void prepare_mean_term(std::span<const float> mean, std::span<const float> query,
                         std::span<float> term) const {
    const size_t pairs = head_dim_ / 2;
    if (state_.nest->config().key_mean == KeyMean::plain) term[0] = dot(query, mean);
    if (state_.nest->config().key_mean != KeyMean::position) return;
    for (size_t i = 0; i < pairs; ++i) {
      term[i] = query[i] * mean[i] + query[i + pairs] * mean[i + pairs];
      term[i + pairs] = query[i + pairs] * mean[i] - query[i] * mean[i + pairs];
    }
  }

  // Scores of a coded block start as what the mean that coding took away would have added.
  void score_mean(size_t group, size_t block, View<float> scores, View<float> turned) const {
    const View<float> terms = rows_of_group(mean_terms_, group, head_dim_);
    const KeyMean kind = state_.nest->config().key_mean;
    for (size_t h = 0; h < heads_; ++h) {
      std::fill_n(scores.row(h).data(), kBlockTokens,
                  kind == KeyMean::plain ? terms.at(h, 0) : 0.0f);
    }
    if (kind != KeyMean::position) return;
    const size_t pairs = head_dim_ / 2;
    const float* cos0 = state_.block_cos(block);
    const float* sin0 = state_.block_sin(block);
    for (size_t h = 0; h < heads_; ++h) {
      for (size_t i = 0; i < pairs; ++i) {
        const float a = terms.at(h, i), b = terms.at(h, i + pairs);
        turned.at(h, i) = a * cos0[i] + b * sin0[i];
        turned.at(h, i + pairs) = b * cos0[i] - a * sin0[i];
      }
    }
    score_columns_f32(turned, state_.relative_angles.data(), scores);
  }

  const uint16_t* coded_block(size_t group, Side side, size_t block) const {
    const SlabStore& store = state_.layers[layer_].coded[group * 2 + static_cast<size_t>(side)];
    return reinterpret_cast<const uint16_t*>(store.block(block));
  }
  const uint16_t* exact_block(size_t head, Side side, size_t block) const {
    return state_.layers[layer_].exact[static_cast<size_t>(side)].block(block) +
           head * head_dim_ * kBlockTokens;
  }
  const uint16_t* sink_row(size_t head, Side side, size_t sink) const {
    return state_.layers[layer_].sinks.data() +
           (static_cast<size_t>(side) * state_.sinks + sink) * state_.width() + head * head_dim_;
  }

  void score_coded(size_t group, size_t block, View<float> scores, float* expanded) const {
    const GroupId id{layer_, group, Side::key};
    const View<const float> queries(latent_queries_ + group * heads_ * dims_, heads_,
                                    state_.plan(id).columns, dims_);
    if (codes()) {
      expand_latents(state_, id, block, expanded, kBlockTokens);
      score_columns_f32(queries, expanded, scores);
    } else {
      score_columns_f16(queries, coded_block(group, Side::key, block), scores);
    }
  }

  // Scores of one block, columns `scores` (64 of them) for the group's heads.
  void score_block(size_t group, size_t block, View<float> scores, View<float> turned,
                   float* expanded) const {
    if (block < coded_blocks_) {
      score_mean(group, block, scores, turned);
      score_coded(group, block, scores, expanded);
    } else {
      const View<float> queries = rows_of_group(queries_, group, head_dim_);
      for (size_t h = 0; h < heads_; ++h) std::fill_n(scores.row(h).data(), kBlockTokens, 0.0f);
      for (size_t j = 0; j < group_size_; ++j) {
        score_columns_f16(queries.rows_from(j * repeats_, repeats_),
                          exact_block(group * group_size_ + j, Side::key, block),
                          scores.rows_from(j * repeats_, repeats_));
      }
    }
    const size_t tokens = std::min(kBlockTokens, rows_ - block * kBlockTokens);
    for (size_t h = 0; h < heads_; ++h) {
      std::fill(scores.row(h).data() + tokens, scores.row(h).data() + kBlockTokens, -HUGE_VALF);
    }
  }

  void score_sinks(size_t group, size_t sinks, View<float> scores) const {
    for (size_t h = 0; h < heads_; ++h) {
      const std::span<const float> query = rows_of_group(queries_, group, head_dim_).row(h);
      for (size_t s = 0; s < sinks; ++s) {
        const uint16_t* key = sink_row(group * group_size_ + h / repeats_, Side::key, s);
        float sum = 0.0f;
        for (size_t c = 0; c < head_dim_; ++c) sum += query[c] * f16_to_f32(key[c]);
        scores.at(h, s) = sum;
      }
    }
  }

  void attend_run(size_t group, size_t run, size_t worker) {
    const size_t begin = run * kRunBlocks, end = std::min(blocks_, begin + kRunBlocks);
    const size_t sinks = run == 0 ? std::min(state_.sinks, state_.length + 1) : 0;
    const size_t tokens = (end - begin) * kBlockTokens;
    float* memory = worker_scratch_[worker];
    const View<float> weights(memory, heads_, tokens + sinks, run_tokens());
    const View<float> latent_sums(memory + heads_ * run_tokens(), heads_, dims_);
    const View<float> turned(latent_sums.data + heads_ * dims_, heads_, head_dim_);
    float* expanded = turned.data + heads_ * head_dim_;
    for (size_t b = begin; b < end; ++b) {
      score_block(group, b,
                  {weights.data + (b - begin) * kBlockTokens, heads_, kBlockTokens, weights.stride},
                  turned, expanded);
    }
    score_sinks(group, sinks, {weights.data + tokens, heads_, sinks, weights.stride});
    for (size_t h = 0; h < heads_; ++h) {
      float* part = partial(group, run, h);
      std::fill_n(part, head_dim_, 0.0f);
      part[head_dim_] = max_of(weights.row(h));
      part[head_dim_ + 1] = exp_and_sum(weights.row(h), part[head_dim_]);
    }
    sum_values(group, run, {begin, end}, weights, latent_sums, expanded);
    for (size_t h = 0; h < heads_; ++h) {
      for (size_t s = 0; s < sinks; ++s) {
        const uint16_t* value = sink_row(group * group_size_ + h / repeats_, Side::value, s);
        const float weight = weights.at(h, tokens + s);
        float* part = partial(group, run, h);
        for (size_t c = 0; c < head_dim_; ++c) part[c] += weight * f16_to_f32(value[c]);
      }
    }
  }

  struct Range {
    size_t begin = 0, end = 0;
  };
  void sum_values(size_t group, size_t run, Range blocks, View<float> weights,
                  View<float> latent_sums, float* expanded) {
    const auto [begin, end] = blocks;
    const size_t coded_end = std::max(begin, std::min(end, coded_blocks_));
    auto columns = [&, first = begin](size_t block) {
      return View<const float>(weights.data + (block - first) * kBlockTokens, heads_, kBlockTokens,
                               weights.stride);
    };
    if (coded_end > begin) {
      const GroupId id{layer_, group, Side::value};
      const View<float> sums(latent_sums.data, heads_, state_.plan(id).columns, dims_);
      for (size_t h = 0; h < heads_; ++h) std::fill_n(sums.row(h).data(), sums.cols, 0.0f);
      for (size_t b = begin; b < coded_end; ++b) {
        if (codes()) {
          expand_latents(state_, id, b, expanded, kBlockTokens);
          weigh_columns_f32(columns(b), expanded, sums);
        } else {
          weigh_columns_f16(columns(b), coded_block(group, Side::value, b), sums);
        }
      }
      lift(group, run, sums, columns(begin), (coded_end - begin) * kBlockTokens);
    }
    for (size_t b = coded_end; b < end; ++b) {
      for (size_t j = 0; j < group_size_; ++j) {
        const View<float> sums(partial(group, run, j * repeats_), repeats_, head_dim_,
                               partial_size());
        weigh_columns_f16(columns(b).rows_from(j * repeats_, repeats_),
                          exact_block(group * group_size_ + j, Side::value, b), sums);
      }
    }
  }

  // Undoes the value's basis: partial += sums * decode^T + (sum of the coded weights) * mean.
  void lift(size_t group, size_t run, View<const float> sums, View<const float> weights,
            size_t coded_tokens) {
    const Basis& basis = state_.nest->basis({layer_, group, Side::value});
    for (size_t h = 0; h < heads_; ++h) {
      float coded_weight = 0.0f;
      for (size_t t = 0; t < coded_tokens; ++t) coded_weight += weights.row(h).data()[t];
      float* part = partial(group, run, h);
      const size_t offset = h / repeats_ * head_dim_;
      for (size_t c = 0; c < head_dim_; ++c) {
        part[c] += coded_weight * basis.mean[offset + c] +
                   dot(sums.row(h), basis.decode.row(offset + c).first(sums.cols));
      }
    }
  }

  void merge() {
    for (size_t group = 0; group < groups_; ++group) {
      for (size_t h = 0; h < heads_; ++h) {
        float top = -HUGE_VALF;
        for (size_t r = 0; r < runs_; ++r) top = std::max(top, partial(group, r, h)[head_dim_]);
        float* to = out_.row(0).data() + (group * heads_ + h) * head_dim_;
        std::fill_n(to, head_dim_, 0.0f);
        float sum = 0.0f;
        for (size_t r = 0; r < runs_; ++r) {
          const float* part = partial(group, r, h);
          const float factor = std::exp(part[head_dim_] - top);
          sum += factor * part[head_dim_ + 1];
          axpy(factor, {part, head_dim_}, {to, head_dim_});
        }
        scale_by({to, head_dim_}, 1.0f / sum);
      }
    }
  }

  KvCache::State& state_;
  const size_t layer_;
  const AttentionInput& input_;
  const View<float> out_;
  Workers& workers_;
  const size_t head_dim_, group_size_, groups_, repeats_;
  const size_t heads_;  // query heads of a group
  const size_t dims_;   // of a group's space
  const size_t rows_, coded_rows_, coded_blocks_;
  size_t blocks_ = 0, runs_ = 0;
  float* queries_ = nullptr;         // [group][head][head_dim], scaled
  float* latent_queries_ = nullptr;  // [group][head][dims]
  float* mean_terms_ = nullptr;      // [group][head][head_dim]
  float* partials_ = nullptr;        // [run][group][head][head_dim values, top, sum]
  std::vector<float*> worker_scratch_;
};

}  // namespace

void attend_decode(KvCache::State& state, size_t layer, const AttentionInput& input,
                   View<float> out, AttentionScratch& scratch, Workers& workers) {
  Decode(state, layer, input, out, scratch, workers).run();
}

}  // namespace mkv
