// Attention of many new tokens: keys and values are expanded to float32 span by span, each span
// once for all of them, and each tile of queries keeps an online softmax (arXiv:2205.14135,
// Algorithm 1). With Arithmetic::fast the products are of 16 bits, where the machine has them
// (nest/flash_kernels.h). Every token gets the view it would have alone: see nest/kv_cache.h.
#include <algorithm>
#include <cmath>

#include "base/prefetch.h"
#include "hwy/cache_control.h"
#include "nest/block_kernels.h"
#include "nest/flash_codes.h"
#include "nest/flash_kernels.h"
#include "nest/kv_state.h"
#include "nest/prefill_tiles.h"
#include "ops/gemm.h"

namespace mkv {
namespace {

using prefill::make_tiles, prefill::rows_of, prefill::Seen, prefill::Tile;

// Blocks that are expanded at once; of codes_, which take less, twice as many.
constexpr size_t kSpanBlocks = 4, kSpanBlocksOfCodes = 8;
constexpr size_t kSpanTokens = kSpanBlocks * kBlockTokens;
constexpr size_t kTokensAhead = 4;  // whose queries are asked of the memory

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
        flash_(state.arithmetic == Arithmetic::fast ? flash::kernels(head_dim_) : nullptr),
        codes_(flash_ != nullptr && state.coded_rows(state.length + input.queries.rows) > 0
                   ? flash::code_kernels(head_dim_)
                   : nullptr),
        tiles_(make_tiles(state, input.queries.rows, repeats_)),
        head_rows_(tiles_.back().slot + rows_of(tiles_.back(), repeats_)) {
    const size_t rows = kv_heads_ * head_rows_;
    const size_t expanded = state.width() * kBlockTokens;
    scratch.floats.resize(std::max(scratch.floats.size(), 5 + workers.count()));
    auto take = [&](size_t slot, size_t size) {
      scratch.floats[slot].resize(std::max(scratch.floats[slot].size(), size));
      return scratch.floats[slot].data();
    };
    queries_ = take(0, flash_ != nullptr ? 0 : rows * head_dim_);
    sums_ = take(1, rows * head_dim_);
    tops_ = take(2, rows * 3);
    totals_ = tops_ + rows;
    steps_ = totals_ + rows;
    keys_ = take(3, flash_ != nullptr ? 0 : state.width() * kSpanTokens);
    values_ = take(4, flash_ != nullptr ? 0 : state.width() * kSpanTokens);
    for (size_t w = 0; w < workers.count(); ++w) {
      of_workers_.push_back(
          take(5 + w, flash_ != nullptr ? expanded : kBlockTokens * repeats_ * kSpanTokens));
    }
    prepare_decoders(scratch);
    if (flash_ == nullptr) return;
    const size_t of_codes =
        codes_ == nullptr ? 0 : kSpanBlocksOfCodes * flash::packed_code_size(head_dim_);
    const size_t span = kv_heads_ * std::max(kSpanBlocks * flash::packed_size(head_dim_), of_codes);
    const size_t query = codes_ == nullptr ? head_dim_ : flash::packed_query_size(head_dim_);
    const size_t bytes = (rows * query + 2 * span) * sizeof(uint16_t);
    scratch.bytes.resize(std::max(scratch.bytes.size(), bytes));
    packed_keys_ = reinterpret_cast<uint16_t*>(scratch.bytes.data());
    packed_values_ = packed_keys_ + span;
    packed_queries_ = packed_values_ + span;
    if (codes_ != nullptr) order_columns();
  }

  void run() {
    const size_t rows = state_.rows_of(state_.length + input_.queries.rows);
    const size_t last = rows == 0 ? 0 : (rows - 1) / kBlockTokens;
    const size_t seen = state_.first_seen_block(layer_, state_.length);
    const bool all_coded = state_.window_blocks == 0;
    gather_queries(false);
    if (type_.first_seen(state_.length) < state_.sinks) attend_sinks();
    if (rows > 0 && !all_coded) {
      const size_t first_row = state_.rows_of(state_.length);
      attend_spans(std::max(seen, state_.first_exact(first_row / kBlockTokens)), last + 1, false);
    }
    if (codes_ != nullptr) gather_queries(true);
    if (rows > 0) attend_spans(seen, all_coded ? last + 1 : state_.first_exact(last), true);
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
  size_t first_row(size_t head, const Tile& tile) const { return head * head_rows_ + tile.slot; }
  flash::Tile flash_tile(size_t head, const Tile& tile) const {
    const size_t row = first_row(head, tile);
    return {.queries = packed_queries_ + row * query_size_,
            .rows = tile.count * repeats_,
            .repeats = repeats_,
            .head_dim = head_dim_,
            .sums = sums_ + row * head_dim_,
            .tops = tops_ + row,
            .totals = totals_ + row,
            .steps = steps_ + row,
            .negligible = negligible_power(state_.length + input_.keys.rows)};
  }

  void order_columns() {
    order_.resize(state_.width());
    const size_t columns = repeats_ * head_dim_;
    workers_.run(kv_heads_, [&](size_t head, size_t) {
      const float* first = input_.queries.row(0).data() + head * columns;
      flash::order_columns({first, input_.queries.rows, columns, input_.queries.stride},
                           std::span(order_).subspan(head * head_dim_, head_dim_));
    });
  }
  const uint16_t* order_of(size_t head) const { return order_.data() + head * head_dim_; }

  // Of the softmax, in the tasks that begin: there are megabytes of sums.
  void start_rows(size_t row, size_t count) {
    std::fill_n(sums_ + row * head_dim_, count * head_dim_, 0.0f);
    std::fill_n(tops_ + row, count, -HUGE_VALF);
    std::fill_n(totals_ + row, count, 0.0f);
  }

  // A query, and where another will be packed: no prefetcher foresees a head's part of a token.
  void ask_for(const float* query, const flash::Tile& packed, size_t row) const {
    for (size_t c = 0; c < head_dim_; c += 64 / sizeof(float)) hwy::Prefetch(query + c);
    if (flash_ == nullptr) return;
    prefetch_to_write(packed.queries + row * query_size_, query_size_ * sizeof(uint16_t));
  }

  // Packs the queries as codes_ or as flash_ reads them, or scales them.
  void gather_queries(bool as_codes) {
    as_codes_ = as_codes;
    query_size_ = as_codes ? flash::packed_query_size(head_dim_) : head_dim_;
    for_tiles([&](size_t head, const Tile& tile, size_t) {
      const size_t columns = repeats_ * head_dim_;
      const flash::Tile packed = flash_tile(head, tile);
      if (!as_codes) start_rows(first_row(head, tile), rows_of(tile, repeats_));
      for (size_t row = 0; row < tile.count * repeats_; ++row) {
        const size_t token = row / repeats_;
        const std::span<const float> query =
            input_.queries.row(tile.token + token)
                .subspan(head * columns + row % repeats_ * head_dim_, head_dim_);
        const size_t later = std::min(token + kTokensAhead, tile.count - 1) - token;
        ask_for(query.data() + later * input_.queries.stride, packed, row + kTokensAhead);
        if (as_codes) {
          codes_->pack_query(query, input_.scale, order_of(head), packed, row);
        } else if (flash_ != nullptr) {
          flash_->pack_query(query, input_.scale, packed, row);
        } else {
          float* to = queries_ + (first_row(head, tile) + row) * head_dim_;
          for (size_t c = 0; c < head_dim_; ++c) to[c] = query[c] * input_.scale;
        }
      }
    });
  }

  // For keys at `position` and after it, of which the first token sees `to`.
  Seen seen_by(const Tile& tile, size_t position, size_t to, size_t step) const {
    const auto first = static_cast<ptrdiff_t>(state_.length + tile.token + 1);
    return {first - static_cast<ptrdiff_t>(type_.window + position), to, step};
  }

  // Adds `keys` tokens, columns [first, first + keys) of the span, to a tile's softmax.
  void update(size_t head, const Tile& tile, size_t first, size_t keys, size_t worker,
              const Seen& seen) {
    if (flash_ != nullptr) return update_packed(head, tile, first, keys, seen);
    const size_t begin = first_row(head, tile), rows = tile.count * repeats_;
    const View<float> scores(of_workers_[worker], rows, keys, kSpanTokens);
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
      float& top = tops_[begin + r];
      float& sum = totals_[begin + r];
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
    flash::Tile rows = flash_tile(head, tile);
    const auto attend_block = as_codes_ ? codes_->attend_block : flash_->attend_block;
    rows.step = seen.step;
    for (size_t done = 0; done < keys; done += kBlockTokens) {
      rows.first = seen.to - done;
      rows.hidden = seen.from - static_cast<ptrdiff_t>(done);
      const size_t at = packed_at(head, (first + done) / kBlockTokens);
      attend_block(rows, packed_keys_ + at, packed_values_ + at);
    }
  }

  // Of a head's block of the span.
  size_t packed_at(size_t head, size_t block) const {
    return (block * kv_heads_ + head) *
           (as_codes_ ? flash::packed_code_size(head_dim_) : flash::packed_size(head_dim_));
  }
  // One side of some heads, a block [dims x 64] of the span, for flash_ or codes_.
  void pack(Side side, size_t first_head, size_t block, View<const float> columns) {
    for (size_t row = 0; row < columns.rows; row += head_dim_) {
      const size_t head = first_head + row / head_dim_, to = packed_at(head, block);
      const View<const float> of_head = columns.rows_from(row, head_dim_);
      if (side == Side::value) {
        (as_codes_ ? codes_->pack_values : flash_->pack_values)(of_head, packed_values_ + to);
      } else if (as_codes_) {
        codes_->pack_keys(of_head, order_of(head), packed_keys_ + to);
      } else {
        flash_->pack_keys(of_head, packed_keys_ + to);
      }
    }
  }
  // fn(to) writes one side of some heads, a block of the span, to columns [rows x 64].
  template <class Fn>
  void expand(Side side, size_t first_head, size_t rows, size_t block, size_t worker,
              const Fn& fn) {
    if (flash_ == nullptr) {
      float* span = side == Side::key ? keys_ : values_;
      const size_t at = first_head * head_dim_ * kSpanTokens + block * kBlockTokens;
      return fn(View<float>(span + at, rows, kBlockTokens, kSpanTokens));
    }
    const View<float> columns(of_workers_[worker], rows, kBlockTokens);
    fn(columns);
    pack(side, first_head, block, columns);
  }

  void attend_sinks() {
    const Sinks& sinks = state_.layers[layer_].sinks;
    std::vector<float> row(state_.width());
    for (const Side side : {Side::key, Side::value}) {
      expand(side, 0, state_.width(), 0, 0, [&](View<float> to) {
        // What packing rounds by is of the sinks alone.
        for (size_t c = 0; c < to.rows; ++c) std::ranges::fill(to.row(c), 0.0f);
        for (size_t s = 0; s < state_.sinks; ++s) {
          sinks.load(side, s, 0, row);
          for (size_t c = 0; c < row.size(); ++c) to.at(c, s) = row[c];
        }
      });
    }
    for_tiles([&](size_t head, const Tile& tile, size_t worker) {
      const size_t first = state_.length + tile.token + 1;
      update(head, tile, 0, state_.sinks, worker,
             seen_by(tile, 0, tile.sink ? first : state_.sinks, tile.sink ? 1 : 0));
    });
  }

  GroupId space_at(size_t space) const {
    return {layer_, space / 2, space % 2 == 0 ? Side::key : Side::value};
  }
  // Of the layer, if there is anything to decode.
  void prepare_decoders(AttentionScratch& scratch) {
    if (flash_ == nullptr || state_.nest == nullptr) return;
    const size_t spaces = state_.groups() * 2;
    if (state_.coded_rows(state_.length + input_.queries.rows) == 0) return;
    scratch.decoders.resize(std::max(scratch.decoders.size(), spaces));
    workers_.run(spaces, [&](size_t space, size_t) {
      prepare_decoding(state_, space_at(space), scratch.decoders[space]);
    });
    decoders_ = scratch.decoders.data();
  }

  void expand_span(size_t first, size_t count, bool coded) {
    if (coded) return expand_codes(first, count);
    workers_.run(count * 2, [&](size_t task, size_t worker) {
      const size_t block = task / 2;
      const ExactBlocks& exact = state_.layers[layer_].exact[task % 2];
      const Side side = task % 2 == 0 ? Side::key : Side::value;
      expand(side, 0, state_.width(), block, worker, [&](View<float> to) {
        widen_block(exact.columns(first + block, 0), state_.width(), to, 0);
      });
    });
  }
  void expand_codes(size_t first, size_t count) {
    const size_t dims = state_.nest->dims(), spaces = state_.groups() * 2;
    const size_t heads = state_.nest->config().group_size;
    workers_.run(spaces * count, [&](size_t task, size_t worker) {
      thread_local DecodeScratch scratch;
      const size_t space = task / count, block = task % count;
      const GroupId id = space_at(space);
      const SpaceDecoder* by = decoders_ == nullptr ? nullptr : decoders_ + space;
      expand(id.side, id.group * heads, dims, block, worker,
             [&](View<float> to) { decode_block(state_, id, first + block, by, to, scratch); });
    });
  }

  // Blocks [begin, end), coded or exact, each seen by the tiles that see it in that form; coded
  // ones from the last to the first, as most weigh the less the longer ago they are.
  void attend_spans(size_t begin, size_t end, bool coded) {
    const size_t step = as_codes_ ? kSpanBlocksOfCodes : kSpanBlocks;
    const size_t spans = begin < end ? (end - begin + step - 1) / step : 0;
    for (size_t i = 0; i < spans; ++i) {
      const size_t span = begin + (coded ? spans - 1 - i : i) * step;
      const size_t count = std::min(step, end - span);
      expand_span(span, count, coded);
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
    const flash::Tile packed = flash_tile(head, tile);
    for (size_t t = 0; t < tile.count; ++t) {
      float* to = out_.row(tile.token + t).data() + head * columns;
      for (size_t r = 0; r < repeats_; ++r, to += head_dim_) {
        const size_t at = t * repeats_ + r, row = first + at;
        if (flash_ != nullptr) {
          flash_->finish(packed, at, {to, head_dim_});
          continue;
        }
        const float factor = 1.0f / totals_[row];
        for (size_t c = 0; c < head_dim_; ++c) to[c] = sums_[row * head_dim_ + c] * factor;
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
  const flash::Kernels* const flash_;
  const flash::CodeKernels* const codes_;
  bool as_codes_ = false;  // queries and blocks at hand are those of codes_
  size_t query_size_ = 0;  // of packed_queries_
  const std::vector<Tile> tiles_;
  const size_t head_rows_;    // of all tiles
  float* queries_ = nullptr;  // [kv_head][row of a tile][head_dim], scaled; unless flash_
  float* sums_ = nullptr;     // the same shape: sum of exp(score - top) * value
  float* tops_ = nullptr;     // [kv_head][row of a tile]
  float* totals_ = nullptr;   // the same shape: sum of exp(score - top)
  float* steps_ = nullptr;    // the same shape, for flash_
  float* keys_ = nullptr;     // [kv_heads*head_dim][kSpanTokens]; unless flash_
  float* values_ = nullptr;
  std::vector<float*> of_workers_;  // scores or, for flash_, some blocks
  const SpaceDecoder* decoders_ = nullptr;
  // As flash wants them: [block][kv_head][packed_size], and as queries_.
  uint16_t* packed_keys_ = nullptr;
  uint16_t* packed_values_ = nullptr;
  uint16_t* packed_queries_ = nullptr;
  std::vector<uint16_t> order_;  // [kv_head][head_dim], for codes_
};

}  // namespace

void attend_prefill(KvCache::State& state, size_t layer, const AttentionInput& input,
                    View<float> out, AttentionScratch& scratch, Workers& workers) {
  Prefill(state, layer, input, out, scratch, workers).run();
}

}  // namespace mkv
