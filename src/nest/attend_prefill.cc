// Attention of many new tokens: keys and values are expanded to float32 span by span, each span
// once for all of them, and each tile of queries keeps an online softmax (arXiv:2205.14135,
// Algorithm 1). With Arithmetic::fast the products are of bf16, where the machine has them
// (nest/flash_kernels.h). Every token gets the view it would have alone: see nest/kv_cache.h.
#include <algorithm>
#include <cmath>

#include "nest/block_kernels.h"
#include "nest/flash_kernels.h"
#include "nest/kv_state.h"
#include "ops/gemm.h"

namespace mkv {
namespace {

constexpr size_t kSpanBlocks = 4;
constexpr size_t kSpanTokens = kSpanBlocks * kBlockTokens;

// New tokens of one block (or, before row 0, the sinks themselves): they share a view.
struct Tile {
  size_t token = 0, count = 0;  // among the new tokens
  bool sink = false;
  size_t block = 0, row = 0;  // of the first token, when not a sink
};

std::vector<Tile> make_tiles(const KvCache::State& state, size_t tokens) {
  std::vector<Tile> tiles;
  for (size_t t = 0; t < tokens;) {
    const size_t position = state.length + t;
    Tile tile{.token = t};
    if (position < state.sinks) {
      tile.sink = true;
      tile.count = std::min(tokens - t, state.sinks - position);
    } else {
      tile.row = position - state.sinks;
      tile.block = tile.row / kBlockTokens;
      tile.count = std::min(tokens - t, (tile.block + 1) * kBlockTokens - tile.row);
    }
    tiles.push_back(tile);
    t += tile.count;
  }
  return tiles;
}

class Prefill {
 public:
  Prefill(KvCache::State& state, size_t layer, const AttentionInput& input, View<float> out,
          AttentionScratch& scratch, Workers& workers)
      : state_(state),
        layer_(layer),
        type_(state.types->of(layer)),
        input_(input),
        out_(out),
        workers_(workers),
        head_dim_(state.shape.head_dim),
        kv_heads_(state.shape.kv_heads),
        repeats_(input.queries.cols / state.width()),
        flash_(state.arithmetic == Arithmetic::fast && flash::usable(state.shape.head_dim)),
        tiles_(make_tiles(state, input.queries.rows)) {
    const size_t rows = input.queries.rows * kv_heads_ * repeats_;
    scratch.floats.resize(std::max(scratch.floats.size(), 5 + workers.count()));
    auto take = [&](size_t slot, size_t size) {
      scratch.floats[slot].resize(std::max(scratch.floats[slot].size(), size));
      return scratch.floats[slot].data();
    };
    queries_ = take(0, flash_ ? 0 : rows * head_dim_);
    sums_ = take(1, rows * head_dim_);
    states_ = take(2, rows * 2);
    keys_ = take(3, state.width() * kSpanTokens);
    values_ = take(4, state.width() * kSpanTokens);
    for (size_t w = 0; w < workers.count(); ++w) {
      scores_.push_back(take(5 + w, flash_ ? 0 : kBlockTokens * repeats_ * kSpanTokens));
    }
    if (!flash_) return;
    const size_t span = state.width() * kSpanTokens;
    const size_t bytes = (rows * head_dim_ + 2 * span) * sizeof(uint16_t);
    scratch.bytes.resize(std::max(scratch.bytes.size(), bytes));
    packed_keys_ = reinterpret_cast<uint16_t*>(scratch.bytes.data());
    packed_values_ = packed_keys_ + span;
    packed_queries_ = packed_values_ + span;
  }

  void run() {
    for_tiles([&](size_t head, const Tile& tile, size_t) { gather_queries(head, tile); });
    if (type_.first_seen(state_.length) < state_.sinks) attend_sinks();
    const size_t rows = state_.rows_of(state_.length + input_.queries.rows);
    if (rows > 0) {
      const size_t last = (rows - 1) / kBlockTokens;
      const size_t seen = state_.first_seen_block(layer_, state_.length);
      if (state_.window_blocks == 0) {
        attend_spans(seen, last + 1, true);
      } else {
        attend_spans(seen, state_.first_exact(last), true);
        const size_t first_row = state_.rows_of(state_.length);
        attend_spans(std::max(seen, state_.first_exact(first_row / kBlockTokens)), last + 1, false);
      }
    }
    for_tiles([&](size_t head, const Tile& tile, size_t) { scatter(head, tile); });
  }

 private:
  template <class Fn>
  void for_tiles(const Fn& fn) {
    workers_.run(kv_heads_ * tiles_.size(), [&](size_t task, size_t worker) {
      fn(task % kv_heads_, tiles_[task / kv_heads_], worker);
    });
  }
  // A tile's part of the scratch: rows (token, repeat).
  size_t first_row(size_t head, const Tile& tile) const {
    return (head * input_.queries.rows + tile.token) * repeats_;
  }

  void gather_queries(size_t head, const Tile& tile) {
    const size_t first = first_row(head, tile), columns = repeats_ * head_dim_;
    for (size_t t = 0; t < tile.count; ++t) {
      const float* from = input_.queries.row(tile.token + t).data() + head * columns;
      const size_t at = (first + t * repeats_) * head_dim_;
      if (flash_) {
        flash::pack_queries({from, columns}, input_.scale, packed_queries_ + at);
      } else {
        for (size_t c = 0; c < columns; ++c) queries_[at + c] = from[c] * input_.scale;
      }
    }
    std::fill_n(sums_ + first * head_dim_, tile.count * columns, 0.0f);
    for (size_t r = first; r < first + tile.count * repeats_; ++r) {
      states_[2 * r] = -HUGE_VALF;
      states_[2 * r + 1] = 0.0f;
    }
  }

  // Of some keys, those that token t of a tile sees: [from + t, to + step * t), cut to what there
  // is.
  struct Seen {
    ptrdiff_t from = 0;
    size_t to = 0, step = 0;

    size_t begin(size_t t, size_t keys) const {
      return static_cast<size_t>(
          std::clamp<ptrdiff_t>(from + static_cast<ptrdiff_t>(t), 0, static_cast<ptrdiff_t>(keys)));
    }
    size_t end(size_t t, size_t keys) const { return std::min(keys, to + step * t); }
  };
  // For keys at `position` and after it, of which the first token sees `to`.
  Seen seen_by(const Tile& tile, size_t position, size_t to, size_t step) const {
    const auto first = static_cast<ptrdiff_t>(state_.length + tile.token + 1);
    return {first - static_cast<ptrdiff_t>(type_.window + position), to, step};
  }

  // Adds `keys` tokens, columns [first, first + keys) of the span, to a tile's softmax.
  void update(size_t head, const Tile& tile, size_t first, size_t keys, size_t worker,
              const Seen& seen) {
    if (flash_) return update_packed(head, tile, first, keys, seen);
    const size_t begin = first_row(head, tile), rows = tile.count * repeats_;
    const View<float> scores(scores_[worker], rows, keys, kSpanTokens);
    const size_t span_offset = head * head_dim_ * kSpanTokens + first;
    gemm({queries_ + begin * head_dim_, rows, head_dim_},
         {keys_ + span_offset, head_dim_, keys, kSpanTokens}, Transpose::no, 0.0f, scores);
    for (size_t r = 0; r < rows; ++r) {
      const std::span<float> row = scores.row(r);
      const size_t from = seen.begin(r / repeats_, keys), to = seen.end(r / repeats_, keys);
      if (from >= to) {
        std::ranges::fill(row, 0.0f);
        continue;
      }
      const std::span<float> visible = row.subspan(from, to - from);
      std::ranges::fill(row.first(from), 0.0f);
      std::ranges::fill(row.subspan(to), 0.0f);
      float& top = states_[2 * (begin + r)];
      float& sum = states_[2 * (begin + r) + 1];
      const float new_top = std::max(top, max_of(visible));
      const float old_scale = top == -HUGE_VALF ? 0.0f : std::exp(top - new_top);
      sum = sum * old_scale + exp_and_sum(visible, new_top);
      if (old_scale != 1.0f) scale_by({sums_ + (begin + r) * head_dim_, head_dim_}, old_scale);
      top = new_top;
    }
    gemm(scores, {values_ + span_offset, head_dim_, keys, kSpanTokens}, Transpose::yes, 1.0f,
         {sums_ + begin * head_dim_, rows, head_dim_});
  }

  // The same from packed blocks.
  void update_packed(size_t head, const Tile& tile, size_t first, size_t keys, const Seen& seen) {
    const size_t row = first_row(head, tile);
    flash::Tile rows{.queries = packed_queries_ + row * head_dim_,
                     .rows = tile.count * repeats_,
                     .repeats = repeats_,
                     .head_dim = head_dim_,
                     .step = seen.step,
                     .sums = sums_ + row * head_dim_,
                     .states = states_ + 2 * row};
    for (size_t done = 0; done < keys; done += kBlockTokens) {
      rows.first = seen.to - done;
      rows.hidden = seen.from - static_cast<ptrdiff_t>(done);
      const size_t at = packed_at(head, (first + done) / kBlockTokens);
      flash::attend_block(rows, packed_keys_ + at, packed_values_ + at);
    }
  }

  // Of a head's block of the span.
  size_t packed_at(size_t head, size_t block) const {
    return (block * kv_heads_ + head) * head_dim_ * kBlockTokens;
  }
  void pack_span(size_t blocks) {
    if (!flash_) return;
    workers_.run(blocks * kv_heads_, [&](size_t task, size_t) {
      const size_t head = task % kv_heads_, block = task / kv_heads_;
      const size_t from = head * head_dim_ * kSpanTokens + block * kBlockTokens;
      const size_t to = packed_at(head, block);
      flash::pack_keys({keys_ + from, head_dim_, kBlockTokens, kSpanTokens}, packed_keys_ + to);
      flash::pack_values({values_ + from, head_dim_, kBlockTokens, kSpanTokens},
                         packed_values_ + to);
    });
  }

  void attend_sinks() {
    const Sinks& sinks = state_.layers[layer_].sinks;
    std::vector<float> row(state_.width());
    for (const Side side : {Side::key, Side::value}) {
      float* to = side == Side::key ? keys_ : values_;
      for (size_t s = 0; s < state_.sinks; ++s) {
        sinks.load(side, s, 0, row);
        for (size_t c = 0; c < row.size(); ++c) to[c * kSpanTokens + s] = row[c];
      }
    }
    pack_span(1);
    for_tiles([&](size_t head, const Tile& tile, size_t worker) {
      const size_t first = state_.length + tile.token + 1;
      update(head, tile, 0, state_.sinks, worker,
             seen_by(tile, 0, tile.sink ? first : state_.sinks, tile.sink ? 1 : 0));
    });
  }

  void expand_span(size_t first, size_t count, bool coded) {
    if (coded) {
      const size_t dims = state_.nest->dims();
      workers_.run(state_.groups() * 2, [&](size_t task, size_t) {
        thread_local Matrix<float> latents;
        const GroupId id{layer_, task / 2, task % 2 == 0 ? Side::key : Side::value};
        float* out = (task % 2 == 0 ? keys_ : values_) + id.group * dims * kSpanTokens;
        decode_blocks(state_, id, first, count, {out, dims, kSpanTokens}, latents);
      });
      return;
    }
    workers_.run(count * 2, [&](size_t task, size_t) {
      const size_t block = task / 2;
      const ExactBlocks& exact = state_.layers[layer_].exact[task % 2];
      widen_block(exact.columns(first + block, 0), state_.width(),
                  {task % 2 == 0 ? keys_ : values_, state_.width(), kSpanTokens},
                  block * kBlockTokens);
    });
  }

  // Blocks [begin, end), coded or exact, each seen by the tiles that see it in that form.
  void attend_spans(size_t begin, size_t end, bool coded) {
    for (size_t span = begin; span < end; span += kSpanBlocks) {
      const size_t count = std::min(kSpanBlocks, end - span);
      expand_span(span, count, coded);
      pack_span(count);
      for_tiles([&](size_t head, const Tile& tile, size_t worker) {
        if (tile.sink) return;
        const size_t exact_from = state_.first_exact(tile.block);
        const bool all_coded = state_.window_blocks == 0;
        // Blocks of the span in this form that the tile sees: [from, to).
        const size_t seen = state_.first_seen_block(layer_, state_.length + tile.token);
        const size_t from = std::max({span, seen, coded ? 0 : exact_from});
        const size_t to = std::min(span + count, coded && !all_coded ? exact_from : tile.block + 1);
        if (from >= to) return;
        const size_t first = from * kBlockTokens;
        update(head, tile, (from - span) * kBlockTokens, (to - from) * kBlockTokens, worker,
               seen_by(tile, first + state_.sinks, tile.row + 1 - first, 1));
      });
    }
  }

  void scatter(size_t head, const Tile& tile) {
    const size_t first = first_row(head, tile), columns = repeats_ * head_dim_;
    for (size_t t = 0; t < tile.count; ++t) {
      float* to = out_.row(tile.token + t).data() + head * columns;
      for (size_t r = 0; r < repeats_; ++r) {
        const size_t row = first + t * repeats_ + r;
        const float factor = 1.0f / states_[2 * row + 1];
        for (size_t c = 0; c < head_dim_; ++c) {
          to[r * head_dim_ + c] = sums_[row * head_dim_ + c] * factor;
        }
      }
    }
  }

  KvCache::State& state_;
  const size_t layer_;
  const LayerType& type_;
  const AttentionInput& input_;
  const View<float> out_;
  Workers& workers_;
  const size_t head_dim_, kv_heads_, repeats_;
  const bool flash_;
  const std::vector<Tile> tiles_;
  float* queries_ = nullptr;  // [kv_head][token][repeat][head_dim], scaled; unless flash_
  float* sums_ = nullptr;     // the same shape: sum of exp(score - top) * value
  float* states_ = nullptr;   // [kv_head][token][repeat][top, sum of exp(score - top)]
  float* keys_ = nullptr;     // [kv_heads*head_dim][kSpanTokens]
  float* values_ = nullptr;
  std::vector<float*> scores_;  // a worker each
  // bf16, as flash wants them: [block][kv_head][head_dim*64], and as queries_.
  uint16_t* packed_keys_ = nullptr;
  uint16_t* packed_values_ = nullptr;
  uint16_t* packed_queries_ = nullptr;
};

}  // namespace

void attend_prefill(KvCache::State& state, size_t layer, const AttentionInput& input,
                    View<float> out, AttentionScratch& scratch, Workers& workers) {
  Prefill(state, layer, input, out, scratch, workers).run();
}

}  // namespace mkv
