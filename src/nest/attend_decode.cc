// Attention of one new token, on the latents as they are stored: the query is turned into each
// latent space once, scores and weighted sums run over the codes, and the value's basis is undone
// after the sum (arXiv:2410.14731 §3.1). The tokens are split into runs of blocks, whose partial
// softmaxes are merged by log-sum-exp (flash decoding), so that workers share one long context.
// Runs depend on the length alone: results do not depend on the number of workers.
#include <algorithm>
#include <cmath>

#include "base/prefetch.h"
#include "nest/arena.h"
#include "nest/attend_codes.h"
#include "nest/block_kernels.h"
#include "nest/kv_state.h"
#include "nest/partials.h"
#include "nest/row_kernels.h"
#include "nest/slab_kernels.h"

namespace mkv {
namespace {

size_t runs_of(size_t blocks) { return (blocks + kRunBlocks - 1) / kRunBlocks; }

using Blocks = CodedAttention::Blocks;

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
        repeats_(input.queries.cols / state.width()),
        heads_(state.shape.kv_heads * repeats_),
        group_heads_((state.nest == nullptr ? 1 : state.nest->config().group_size) * repeats_),
        columns_(most_columns(state, layer)),
        rows_(state.rows_of(state.length + 1)) {
    const size_t blocks = (rows_ + kBlockTokens - 1) / kBlockTokens;
    const size_t coded_end = (state.coded_rows(state.length + 1) + kBlockTokens - 1) / kBlockTokens;
    coded_.begin = state.first_seen_block(layer, state.length);
    coded_.end = std::max(coded_.begin, coded_end);
    exact_.begin = coded_.end;
    exact_.end = state.window_blocks == 0 ? coded_.end : std::max(coded_.end, blocks);
    sinks_end_ = std::min(state.sinks, state.length + 1);
    sinks_begin_ = std::min(sinks_end_, state.types->of(layer).first_seen(state.length));
    coded_runs_ = runs_of(coded_.count());
    exact_runs_ = std::max<size_t>(runs_of(exact_.count()), sinks_end_ > sinks_begin_ ? 1 : 0);
    for_later_sinks(coded_, [&](const LaterSink&) { ++later_count_; });
    if (later_count_ > 0) exact_runs_ = std::max<size_t>(exact_runs_, 1);
    early_runs_ = coded_runs_ > 0 ? exact_runs_ : std::min<size_t>(exact_runs_, 2);
    Arena sizes(workers.count());
    take_scratch(sizes);
    scratch.bytes.resize(std::max(scratch.bytes.size(), sizes.bytes()));
    Arena arena(scratch.bytes.data(), sizes);
    take_scratch(arena);
    size_t at = 0;
    for_later_sinks(coded_, [&](const LaterSink& sink) { later_[at++] = &sink; });
  }

  void run() {
    prefetch_to_write(queries_, heads_ * head_dim_ * sizeof(float));
    for (size_t h = 0; h < heads_; ++h) scale_query(h);
    partials_.leave_nothing_out();
    prepare();
    const size_t kv_heads = state_.shape.kv_heads;
    if (coded_runs_ == 0) {
      workers_.run(kv_heads * (exact_runs_ - early_runs_), [&](size_t task, size_t worker) {
        attend_exact(task % kv_heads, 1 + task / kv_heads, worker);
      });
      for (size_t h = 0; h < kv_heads; ++h) merge(h, 0, head_dim_, 0);
      return;
    }
    workers_.run(coded_tasks(), [&](size_t task, size_t worker) {
      const bool is_first = task == workers_.first_task(coded_tasks(), worker);
      const size_t group = task / coded_runs_, run = task % coded_runs_;
      if (is_first || run == 0) codes_.ask_for_tables(group);
      attend_coded(group, run, next_coded(workers_.next_task(coded_tasks(), task)), worker);
    });
    const size_t half = head_dim_ / 2;
    workers_.run(2 * kv_heads, [&](size_t task, size_t worker) {
      merge(task / 2, task % 2 * half, half, worker);
    });
  }

 private:
  // Of values that are merged: of latents, and of exact tokens.
  static size_t most_columns(const KvCache::State& state, size_t layer) {
    size_t most = state.shape.head_dim;
    for (size_t group = 0; state.nest != nullptr && group < state.groups(); ++group) {
      most = std::max(most, reached_columns(state, {layer, group, Side::value}));
    }
    return most;
  }
  // Tasks of a group are neighbours: most of what a worker reads it has made itself.
  size_t coded_tasks() const { return heads_ / group_heads_ * coded_runs_; }
  std::optional<CodedAttention::Next> next_coded(std::optional<size_t> task) const {
    if (!task) return {};
    return CodedAttention::Next{*task / coded_runs_, run_blocks(coded_, *task % coded_runs_)};
  }

  // Exact tokens that come first and, if there are codes, what each head needs for them.
  void prepare() {
    const size_t kv_heads = state_.shape.kv_heads;
    const bool coded = coded_runs_ > 0;
    const size_t head_tasks = early_runs_ + (coded ? 1 : 0), tasks = kv_heads * head_tasks;
    const auto is_exact = [&](size_t task) { return task % head_tasks < early_runs_; };
    for (size_t w = 0; w < workers_.count(); ++w) {
      const auto first = next_coded(workers_.first_task(coded_tasks(), w));
      *asked_.of(w) = codes_.ask_for_keys(first, tasks / workers_.count());
    }
    workers_.run(tasks, [&](size_t task, size_t worker) {
      if (task == workers_.first_task(tasks, worker)) {
        prefetch(this, sizeof(*this));
        prefetch(queries_, heads_ * head_dim_ * sizeof(float));
        for (std::optional<size_t> t = task; t; t = workers_.next_task(tasks, *t)) {
          if (!is_exact(*t)) codes_.ask_for_basis(*t / head_tasks, Side::key, 0, head_dim_);
        }
      }
      asked_.of(worker)->step();
      const size_t head = task / head_tasks;
      if (is_exact(task)) return attend_exact(head, early_run(task % head_tasks), worker);
      codes_.prepare(head, queries(head), worker);
    });
    const bool late = state_.arithmetic == Arithmetic::fast && early_runs_ < exact_runs_;
    if (!(coded ? codes_.skips() : late)) return;
    const float share = coded ? Partials::negligible_share(count_parts(coded_.count()))
                              : std::ldexp(1.0f, -negligible_power(rows_ + state_.sinks));
    for (size_t h = 0; h < heads_; ++h) {
      partials_.find_least(h, share, early_runs_,
                           [&](size_t i) { return coded_runs_ + early_run(i); });
    }
  }

  // Of an exact run, a part is a block; sinks may be some more.
  size_t largest_size() const { return (run_tokens() / kBlockTokens + 1) * repeats_; }

  size_t run_tokens() const { return kRunBlocks * kBlockTokens + state_.sinks + later_count_; }
  // Exact tokens apart from blocks: the leading sinks that the token sees, then the later ones.
  size_t sink_count() const { return sinks_end_ - sinks_begin_ + later_count_; }
  // Their rows, columns first_column ... of one side, which are asked of the memory.
  Rows sink_rows(Side side, size_t first_column, size_t worker) const {
    const LayerCache& cache = state_.layers[layer_];
    const std::byte** at = sink_rows_.of(worker) + static_cast<size_t>(side) * sink_count();
    size_t count = 0;
    for (size_t s = sinks_begin_; s < sinks_end_; ++s) {
      at[count++] = cache.sinks.row(side, s, first_column);
    }
    for (size_t s = 0; s < later_count_; ++s) {
      at[count++] = later_[s]->token.row(side, 0, first_column);
    }
    const size_t bytes = row_bytes(cache.sinks.type, head_dim_);
    for (size_t s = 0; s < count; ++s) prefetch(at[s], bytes);
    return {{at, count}, cache.sinks.type};
  }
  // Those of some coded blocks that the token sees.
  template <class Fn>
  void for_later_sinks(Blocks blocks, const Fn& fn) const {
    const size_t first =
        std::max(blocks.begin * kBlockTokens, state_.first_seen_row(layer_, state_.length));
    state_.layers[layer_].for_later_sinks(first, blocks.end * kBlockTokens, fn);
  }

  void take_scratch(Arena& arena) {
    queries_ = arena.take<float>(heads_ * head_dim_);
    // Runs of coded blocks come first, then runs of exact ones, whose values are of head_dim_.
    partials_.take_scratch(arena, coded_runs_ + exact_runs_, heads_, columns_);
    largest_ = arena.take_for_each<float>(largest_size());
    scores_ = arena.take_for_each<float>(group_heads_ * run_tokens());
    merged_ = arena.take_for_each<float>(repeats_ * (columns_ + 2));
    factors_ = arena.take_for_each<float>(repeats_ * partials_.runs());
    values_ = arena.take_for_each<const std::byte*>(partials_.runs());
    later_ = arena.take<const LaterSink*>(later_count_);
    asked_ = arena.take_for_each<Prefetcher>(1);
    sink_rows_ = arena.take_for_each<const std::byte*>(2 * sink_count());
    if (coded_.count() > 0) {
      codes_.take_scratch(arena, state_, layer_, {heads_, group_heads_});
    }
  }

  std::span<float> query(size_t head) const { return {queries_ + head * head_dim_, head_dim_}; }

  void scale_query(size_t head) {
    const float* from = input_.queries.row(0).data() + head * head_dim_;
    for (size_t c = 0; c < head_dim_; ++c) query(head)[c] = from[c] * input_.scale;
  }
  View<const float> queries(size_t kv_head) const {
    return {queries_ + kv_head * repeats_ * head_dim_, repeats_, head_dim_};
  }

  // Exact runs that come first, as they have most of the weight: beside codes all of them, else
  // those of the first tokens and of the last.
  size_t early_run(size_t i) const { return i == 0 || coded_runs_ > 0 ? i : exact_runs_ - 1; }
  // Of some blocks' tokens those before a sliding window and those to come.
  void hide_unseen(Blocks blocks, View<float> scores) const {
    const size_t begin = blocks.begin * kBlockTokens, end = blocks.end * kBlockTokens;
    const size_t first = state_.first_seen_row(layer_, state_.length);
    for (size_t h = 0; h < scores.rows; ++h) {
      const std::span<float> row = scores.row(h);
      std::ranges::fill(row.first(first > begin ? first - begin : 0), -HUGE_VALF);
      std::ranges::fill(row.subspan(std::min(end, rows_) - begin), -HUGE_VALF);
    }
  }

  static Blocks run_blocks(Blocks all, size_t run) {
    const size_t begin = all.begin + run * kRunBlocks;
    return {begin, std::min(all.end, begin + kRunBlocks)};
  }

  void attend_coded(size_t group, size_t run, std::optional<CodedAttention::Next> next,
                    size_t worker) {
    const Blocks blocks = run_blocks(coded_, run);
    const View<float> scores(scores_.of(worker), group_heads_, blocks.count() * kBlockTokens);
    codes_.score(group, blocks, scores, worker);
    hide_unseen(blocks, scores);
    for_later_sinks(blocks, [&](const LaterSink& sink) {
      const size_t at = sink.row - blocks.begin * kBlockTokens;
      for (size_t h = 0; h < scores.rows; ++h) scores.at(h, at) = kHiddenScore;
    });
    codes_.weigh(group, blocks, scores, partials_, run, next, worker);
  }

  void attend_exact(size_t kv_head, size_t run, size_t worker) {
    const Blocks blocks = run_blocks(exact_, run);
    const size_t tokens = blocks.count() * kBlockTokens;
    const size_t sinks = run == 0 ? sink_count() : 0;
    const size_t first_head = kv_head * repeats_, first_column = kv_head * head_dim_;
    const LayerCache& cache = state_.layers[layer_];
    const View<float> scores(scores_.of(worker), repeats_, tokens + sinks);
    const View<float> of_blocks(scores.data, repeats_, tokens, scores.stride);
    const View<float> of_sinks(scores.data + tokens, repeats_, sinks, scores.stride);
    Rows sink_keys, sink_values;
    if (sinks > 0) {
      sink_keys = sink_rows(Side::key, first_column, worker);
      sink_values = sink_rows(Side::value, first_column, worker);
    }
    if (tokens > 0) {
      for (size_t r = 0; r < repeats_; ++r) std::ranges::fill(of_blocks.row(r), 0.0f);
      score_columns(queries(kv_head), cache.exact[0].columns(blocks.begin, first_column),
                    of_blocks);
      hide_unseen(blocks, of_blocks);
    }
    if (sinks > 0) score_rows(queries(kv_head), sink_keys, of_sinks);
    const size_t part_run = coded_runs_ + run;
    float* largest = largest_.of(worker);
    partials_.start(part_run, first_head, scores, kBlockTokens, largest);
    const View<float> sums(partials_.at(part_run, first_head).values, repeats_, head_dim_,
                           partials_.stride());
    // Neighbours together: each block asks the memory for the next.
    const size_t parts = (scores.cols + kBlockTokens - 1) / kBlockTokens;
    const auto counts = [&](size_t b, size_t r) {
      return Partials::counts(largest[r * parts + b]);
    };
    const auto is_heavy = [&](size_t b) {
      bool any = false;
      for (size_t r = 0; r < repeats_; ++r) any |= counts(b, r);
      return any;
    };
    for (size_t b = 0, end = 0; b < blocks.count(); b = end + 1) {
      for (end = b; end < blocks.count() && is_heavy(end); ++end) {
        for (size_t r = 0; r < repeats_; ++r) {
          if (counts(end, r)) continue;
          std::ranges::fill(of_blocks.row(r).subspan(end * kBlockTokens, kBlockTokens), 0.0f);
        }
      }
      if (end == b) continue;
      weigh_columns(
          {of_blocks.data + b * kBlockTokens, repeats_, (end - b) * kBlockTokens, of_blocks.stride},
          cache.exact[1].columns(blocks.begin + b, first_column), sums);
    }
    if (sinks > 0) weigh_rows(of_sinks, sink_values, sums);
  }

  // Columns [first, first + count) of the outputs of a KV head's queries. Each part of the columns
  // needs the sum of all latents, which is small beside lifting it.
  void merge(size_t kv_head, size_t first, size_t count, size_t worker) {
    const size_t runs = partials_.runs(), first_head = kv_head * repeats_;
    float* scratch = merged_.of(worker);
    const View<float> latents(scratch, repeats_, columns_);
    const std::span<float> coded(scratch + repeats_ * columns_, repeats_);
    const std::span<float> sums(coded.data() + repeats_, repeats_);
    const std::span<const std::byte*> values(values_.of(worker), runs);
    const View<float> factors(factors_.of(worker), repeats_, runs);
    const View<float> out(out_.row(0).data() + first_head * head_dim_ + first, repeats_, count,
                          head_dim_);
    partials_.prefetch_sums(first_head, repeats_);
    if (coded_runs_ > 0) codes_.ask_for_basis(kv_head, Side::value, first, count);
    for (size_t r = 0; r < repeats_; ++r)
      prefetch_to_write(out.row(r).data(), count * sizeof(float));
    const auto values_of = [&](size_t run, size_t r) {
      return partials_.at(run, first_head + r).values;
    };
    for (size_t r = 0; r < repeats_; ++r) {
      const auto [sum, coded_weight] = partials_.weigh_runs(first_head + r, factors.row(r));
      sums[r] = sum;
      coded[r] = coded_weight;
      for (size_t run = 0; run < runs; ++run) {
        if (factors.at(r, run) > 0.0f) prefetch(values_of(run, r), columns_ * sizeof(float));
      }
    }
    // Of what weighs something.
    const auto add = [&](size_t r, size_t begin, size_t end, size_t column, std::span<float> to) {
      size_t used = 0;
      for (size_t run = begin; run < end; ++run) {
        const float factor = factors.at(r, run);
        if (factor == 0.0f) continue;
        factors.at(r, begin + used) = factor;
        values[used++] = reinterpret_cast<const std::byte*>(values_of(run, r) + column);
      }
      weigh_rows({factors.row(r).data() + begin, 1, used}, {values.first(used), DType::f32},
                 {to.data(), 1, to.size()});
    };
    for (size_t r = 0; r < repeats_; ++r) {
      std::ranges::fill(latents.row(r), 0.0f);
      add(r, 0, coded_runs_, 0, latents.row(r));
    }
    if (coded_runs_ > 0) codes_.lift(kv_head, first, latents, coded, out);
    for (size_t r = 0; r < repeats_; ++r) {
      if (coded_runs_ == 0) std::ranges::fill(out.row(r), 0.0f);
      add(r, coded_runs_, runs, first, out.row(r));
      scale_by(out.row(r), 1.0f / sums[r]);
    }
  }

  KvCache::State& state_;
  const size_t layer_;
  const AttentionInput& input_;
  const View<float> out_;
  Workers& workers_;
  const size_t head_dim_, repeats_;
  const size_t heads_;        // query heads, in the order (KV head, repeat)
  const size_t group_heads_;  // of a latent space
  const size_t columns_;      // of values that are merged
  const size_t rows_;
  Blocks coded_, exact_;                    // that the token sees
  size_t sinks_begin_ = 0, sinks_end_ = 0;  // likewise
  size_t later_count_ = 0;                  // of later_
  size_t coded_runs_ = 0, exact_runs_ = 0;
  size_t early_runs_ = 0;                  // of exact ones, see early_run
  float* queries_ = nullptr;               // [head][head_dim], scaled
  const LaterSink** later_ = nullptr;      // that the token sees
  PerWorker<float> largest_;               // [largest_size()]: [repeat][part of a run]
  PerWorker<float> scores_;                // [head of a group][run_tokens()]
  PerWorker<float> merged_;                // [repeats][latents, coded weight, sum]
  PerWorker<float> factors_;               // [repeat][run], of partials
  PerWorker<const std::byte*> values_;     // [run], likewise
  PerWorker<Prefetcher> asked_;            // for the keys that it scores first
  PerWorker<const std::byte*> sink_rows_;  // [side][sink_count()]
  Partials partials_;
  CodedAttention codes_;
};

}  // namespace

void attend_decode(KvCache::State& state, size_t layer, const AttentionInput& input,
                   View<float> out, AttentionScratch& scratch, Workers& workers) {
  Decode(state, layer, input, out, scratch, workers).run();
}

}  // namespace mkv
