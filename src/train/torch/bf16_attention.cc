// Attention tile by tile, as in attention.cc, with products of bf16: rows of queries lie token by
// token, the heads of a token beside each other, so that a tile is a view.
#include "base/check.h"
#include "ops/bf16.h"
#include "train/torch/bf16.h"
#include "train/torch/tiles.h"

namespace mkv::training {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

// [kv x repeats x tokens x head_dim] <-> [kv x tokens*repeats x head_dim]
Tensor by_tokens(const Tensor& x) {
  return x.transpose(1, 2).reshape({x.size(0), -1, x.size(3)}).contiguous();
}
Tensor by_heads(const Tensor& x, int64_t repeats) {
  return x.view({x.size(0), -1, repeats, x.size(2)}).transpose(1, 2);
}

Tensor as_bf16(const Tensor& x) { return x.defined() ? x.to(torch::kBFloat16).contiguous() : x; }

// Keys and values are whole lots of so many tokens, zeros at the end, and tiles see whole lots:
// what is after a query's own is hidden from it like any later key. Rows of scores begin at cache
// lines then; products of 900 keys took three times as long as those of 896.
constexpr int64_t kLot = 64;
int64_t lots_of(int64_t tokens) { return (tokens + kLot - 1) / kLot * kLot; }

Tensor keys_in_lots(const Tensor& x) {
  const Tensor out = torch::zeros({x.size(0), lots_of(x.size(1)), x.size(2)}, torch::kBFloat16);
  out.slice(1, 0, x.size(1)).copy_(x);
  return out;
}

// The keys that are multiplied for a tile.
Tile in_lots(const Tile& tile) {
  const int64_t end = lots_of(tile.end);
  return {tile.begin, end, tile.exact == tile.end ? end : tile.exact};
}

// Scores of every row of a tile, or what is made of them. Memory of their own once, since fresh
// memory costs as much as a product.
class TileMatrix {
 public:
  TileMatrix(int64_t kv_heads, int64_t tokens, int64_t repeats, torch::Dtype type)
      : kv_heads_(kv_heads),
        all_(torch::empty({kv_heads * kTile * repeats * lots_of(tokens)}, type)) {}
  Tensor of(int64_t rows, int64_t keys) const {
    return all_.narrow(0, 0, kv_heads_ * rows * keys).view({kv_heads_, rows, keys});
  }

 private:
  int64_t kv_heads_;
  Tensor all_;
};

// fn(row of the tile's tensors, row of all tokens' of its KV head, keys it sees)
template <class Fn>
void for_rows(const Tile& tile, int64_t kv, int64_t repeats, const Fn& fn) {
  const int64_t rows = (tile.end - tile.begin) * repeats;
  for (int64_t h = 0; h < kv; ++h) {
    for (int64_t r = 0; r < rows; ++r) {
      fn(h * rows + r, h, tile.begin * repeats + r,
         static_cast<size_t>(tile.begin + r / repeats + 1));
    }
  }
}

struct Bf16Attention : Function<Bf16Attention> {
  static Tensor forward(AutogradContext* context, const Tensor& queries, const Tensor& coded_keys,
                        const Tensor& coded_values, const Tensor& exact_keys,
                        const Tensor& exact_values, double scale, int64_t sinks, int64_t recent) {
    const bool windowed = recent > 0;  // without a window the exact ones are not looked at
    const int64_t repeats = queries.size(1), tokens = queries.size(2), kv_heads = queries.size(0);
    const Tensor q = as_bf16(by_tokens(queries * scale));
    const variable_list kv{keys_in_lots(coded_keys), keys_in_lots(coded_values),
                           windowed ? keys_in_lots(exact_keys) : Tensor(),
                           windowed ? keys_in_lots(exact_values) : Tensor()};
    const TileMatrix scores(kv_heads, tokens, repeats, torch::kFloat32),
        weights(kv_heads, tokens, repeats, torch::kBFloat16);
    Tensor out = torch::empty({kv_heads, tokens * repeats, queries.size(3)});
    Tensor log_sums = torch::empty({kv_heads, tokens * repeats});
    for (const Tile& tile : tiles_of(tokens, {sinks, recent})) {
      const auto rows_of = [&](const Tensor& t) {
        return t.slice(1, tile.begin * repeats, tile.end * repeats);
      };
      const Tile lots = in_lots(tile);
      const int64_t rows = (tile.end - tile.begin) * repeats;
      const Tensor s = scores.of(rows, lots.end), p = weights.of(rows, lots.end);
      bf16_products(rows_of(q), seen(lots, kv[0], kv[2]).transpose(1, 2), s);
      Tensor sums = torch::empty({kv_heads, rows, 1});
      for_rows(tile, kv_heads, repeats, [&](int64_t row, int64_t head, int64_t at, size_t keys) {
        const ExpRow exp = exp_row(f32_row(s, row), keys, bf16_row(p, row));
        sums.data_ptr<float>()[row] = exp.sum;
        f32_row(log_sums, head)[static_cast<size_t>(at)] = exp.largest + std::log(exp.sum);
      });
      bf16_products(p, seen(lots, kv[1], kv[3]), rows_of(out));
      rows_of(out).div_(sums);
    }
    context->saved_data["scale"] = scale;
    context->saved_data["sinks"] = sinks;
    context->saved_data["recent"] = recent;
    context->saved_data["repeats"] = repeats;
    context->save_for_backward({q, out, log_sums, kv[0], kv[1], kv[2], kv[3]});
    return by_heads(out, repeats);
  }

  static variable_list backward(AutogradContext* context, variable_list d_outs) {
    const variable_list saved = context->get_saved_variables();
    const Tensor &q = saved[0], &out = saved[1], &log_sums = saved[2];
    const variable_list kv(saved.begin() + 3, saved.end());
    const double scale = context->saved_data["scale"].toDouble();
    const AttentionView view{context->saved_data["sinks"].toInt(),
                             context->saved_data["recent"].toInt()};
    const int64_t repeats = context->saved_data["repeats"].toInt(), kv_heads = q.size(0);
    const int64_t tokens = q.size(1) / repeats;
    const Tensor d_out = by_tokens(d_outs[0]), d = as_bf16(d_out);
    const Tensor means = (d_out * out).sum(-1);
    variable_list d_kv;
    for (const Tensor& each : kv) {
      d_kv.push_back(each.defined() ? torch::zeros(each.sizes()) : Tensor());
    }
    Tensor d_q = torch::empty(q.sizes());
    const TileMatrix scores(kv_heads, tokens, repeats, torch::kFloat32),
        gradients(kv_heads, tokens, repeats, torch::kFloat32),
        weights(kv_heads, tokens, repeats, torch::kBFloat16),
        d_scores(kv_heads, tokens, repeats, torch::kBFloat16);
    for (const Tile& tile : tiles_of(tokens, view)) {
      const auto rows_of = [&](const Tensor& t) {
        return t.slice(1, tile.begin * repeats, tile.end * repeats);
      };
      const Tile lots = in_lots(tile);
      const int64_t rows = (tile.end - tile.begin) * repeats;
      const auto of_tile = [&](const TileMatrix& all) { return all.of(rows, lots.end); };
      const Tensor s = of_tile(scores), d_p = of_tile(gradients), p = of_tile(weights),
                   d_s = of_tile(d_scores);
      const Tensor keys = seen(lots, kv[0], kv[2]), values = seen(lots, kv[1], kv[3]);
      bf16_products(rows_of(q), keys.transpose(1, 2), s);
      bf16_products(rows_of(d), values.transpose(1, 2), d_p);
      for_rows(tile, kv_heads, repeats, [&](int64_t row, int64_t head, int64_t at, size_t count) {
        const auto index = static_cast<size_t>(at);
        exp_row_backward({.scores = f32_row(s, row),
                          .d_p = f32_row(d_p, row),
                          .log_sum = f32_row(log_sums, head)[index],
                          .mean = f32_row(means, head)[index]},
                         count, bf16_row(p, row), bf16_row(d_s, row));
      });
      bf16_products(d_s, keys, rows_of(d_q));
      const Tensor pt = p.transpose(1, 2), dst = d_s.transpose(1, 2);
      if (lots.exact == lots.end) {
        add_bf16_products(pt, rows_of(d), d_kv[1].slice(1, 0, lots.end));
        add_bf16_products(dst, rows_of(q), d_kv[0].slice(1, 0, lots.end));
      } else {
        Tensor d_keys = torch::empty(keys.sizes()), d_values = torch::empty(values.sizes());
        bf16_products(pt, rows_of(d), d_values);
        bf16_products(dst, rows_of(q), d_keys);
        add_seen(lots, d_values, d_kv[1], d_kv[3]);
        add_seen(lots, d_keys, d_kv[0], d_kv[2]);
      }
    }
    for (Tensor& each : d_kv) {
      if (each.defined()) each = each.slice(1, 0, tokens);
    }
    return {by_heads(d_q.mul_(scale), repeats),
            d_kv[0],
            d_kv[1],
            d_kv[2],
            d_kv[3],
            Tensor(),
            Tensor(),
            Tensor()};
  }
};

}  // namespace

Tensor attention_in_bf16(const AttentionInputs& in, double scale, const AttentionView& view) {
  return Bf16Attention::apply(in.queries, in.coded_keys, in.coded_values, in.exact_keys,
                              in.exact_values, scale, view.sinks, view.recent);
}

}  // namespace mkv::training
