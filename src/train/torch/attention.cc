// Attention tile by tile: scores of a tile of queries live only while it is worked on, and are
// computed again for the gradient from their log-sum-exp (arXiv:2205.14135, Algorithms 1 and 4,
// over queries alone).
#include <limits>
#include <vector>

#include "nest/kv_cache.h"
#include "train/torch/functions.h"

namespace mkv::training {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

constexpr int64_t kTile =
    64;  // queries of a tile, times repeats: its scores stay in a core's cache

struct Tile {
  int64_t begin, end;
  Tensor hidden;  // [end - begin x end - begin]: -inf above the diagonal
  Tensor exact;  // [end - begin x end]: 1 where the key is seen exactly; undefined without a window
};

// The rule of CodedView: a key of block b is seen as codes from `recent` after its block's start.
Tensor exact_pairs(int64_t begin, int64_t end, const AttentionView& view,
                   const torch::TensorOptions& options) {
  const auto longs = options.dtype(torch::kLong);
  constexpr auto kBlock = static_cast<int64_t>(kBlockTokens);
  const Tensor keys = torch::arange(end, longs) - view.sinks;
  const Tensor first_coded = keys.div(kBlock, "floor") * kBlock + (view.recent + view.sinks);
  const Tensor queries = torch::arange(begin, end, longs).unsqueeze(1);
  return (queries < first_coded.unsqueeze(0)).logical_and_(keys.ge(0)).to(options.dtype());
}

std::vector<Tile> tiles_of(int64_t tokens, const AttentionView& view,
                           const torch::TensorOptions& options) {
  std::vector<Tile> tiles;
  for (int64_t begin = 0; begin < tokens; begin += kTile) {
    Tile tile{begin, std::min(tokens, begin + kTile), {}, {}};
    const int64_t n = tile.end - begin;
    tile.hidden = torch::full({n, n}, -std::numeric_limits<double>::infinity(), options).triu_(1);
    if (view.recent > 0) tile.exact = exact_pairs(begin, tile.end, view, options);
    tiles.push_back(tile);
  }
  return tiles;
}

// a where `exact` is 1 and b elsewhere; [kv x repeats x n x keys].
Tensor choose(const Tensor& exact, const Tensor& a, const Tensor& b) { return b + exact * (a - b); }

// One tile's products. Queries and what has their shape come as [kv x repeats*n x head_dim].
struct TileProducts {
  const Tile& tile;
  const variable_list& kv;  // coded keys, coded values, exact keys, exact values
  int64_t repeats;

  int64_t rows() const { return tile.end - tile.begin; }
  bool windowed() const { return tile.exact.defined(); }
  Tensor of(size_t which) const { return kv[which].slice(1, 0, tile.end); }
  Tensor by_rows(const Tensor& m) const { return m.view({m.size(0), repeats, rows(), -1}); }
  Tensor flat(const Tensor& m) const { return m.view({m.size(0), repeats * rows(), -1}); }

  // a [kv x repeats*n x head_dim] against keys or values `side`: [kv x repeats x n x keys].
  Tensor against(const Tensor& a, size_t side) const {
    Tensor coded = by_rows(a.bmm(of(side).transpose(1, 2)));
    if (!windowed()) return coded;
    return choose(tile.exact, by_rows(a.bmm(of(side + 2).transpose(1, 2))), coded);
  }
  // weights [kv x repeats x n x keys] times keys or values: [kv x repeats*n x head_dim].
  Tensor mix(const Tensor& weights, size_t side) const {
    if (!windowed()) return flat(weights).bmm(of(side));
    const Tensor exact = weights * tile.exact;
    return flat(weights - exact).bmm(of(side)) + flat(exact).bmm(of(side + 2));
  }
  // The gradients of mix() with respect to keys or values, added.
  void mix_backward(const Tensor& weights, const Tensor& d, size_t side,
                    variable_list& gradients) const {
    const auto add = [&](const Tensor& w, size_t which) {
      gradients[which].slice(1, 0, tile.end).add_(flat(w).transpose(1, 2).bmm(d));
    };
    if (!windowed()) return add(weights, side);
    const Tensor exact = weights * tile.exact;
    add(weights - exact, side);
    add(exact, side + 2);
  }
  Tensor scores(const Tensor& q, double scale) const {
    Tensor s = against(q, 0).mul_(scale);
    s.slice(3, tile.begin, tile.end).add_(tile.hidden);
    return s;
  }
};

struct TiledAttention : Function<TiledAttention> {
  static Tensor forward(AutogradContext* context, const Tensor& q, const Tensor& coded_keys,
                        const Tensor& coded_values, const Tensor& exact_keys,
                        const Tensor& exact_values, double scale, int64_t sinks, int64_t recent) {
    const bool windowed = recent > 0;  // without a window the exact ones are not looked at
    const variable_list kv{coded_keys, coded_values, windowed ? exact_keys : Tensor(),
                           windowed ? exact_values : Tensor()};
    Tensor out = torch::empty_like(q);
    Tensor log_sums = q.new_empty({q.size(0), q.size(1), q.size(2)});
    for (const Tile& tile : tiles_of(q.size(2), {sinks, recent}, q.options())) {
      const TileProducts products{tile, kv, q.size(1)};
      const Tensor part = q.slice(2, tile.begin, tile.end);
      Tensor s = products.scores(products.flat(part.contiguous()), scale);
      const Tensor log_sum = s.logsumexp(-1, true);
      log_sums.slice(2, tile.begin, tile.end).copy_(log_sum.squeeze(-1));
      s.sub_(log_sum).exp_();
      out.slice(2, tile.begin, tile.end).copy_(products.by_rows(products.mix(s, 1)));
    }
    context->saved_data["scale"] = scale;
    context->saved_data["sinks"] = sinks;
    context->saved_data["recent"] = recent;
    context->save_for_backward({q, out, log_sums, kv[0], kv[1], kv[2], kv[3]});
    return out;
  }

  static variable_list backward(AutogradContext* context, variable_list d_outs) {
    const variable_list saved = context->get_saved_variables();
    const Tensor &q = saved[0], &out = saved[1], &log_sums = saved[2], &d_out = d_outs[0];
    const variable_list kv(saved.begin() + 3, saved.end());
    const double scale = context->saved_data["scale"].toDouble();
    const AttentionView view{context->saved_data["sinks"].toInt(),
                             context->saved_data["recent"].toInt()};
    variable_list d_kv;
    for (const Tensor& each : kv) {
      d_kv.push_back(each.defined() ? torch::zeros_like(each) : Tensor());
    }
    Tensor d_q = torch::empty_like(q);
    for (const Tile& tile : tiles_of(q.size(2), view, q.options())) {
      const TileProducts products{tile, kv, q.size(1)};
      const auto part = [&](const Tensor& m) {
        return products.flat(m.slice(2, tile.begin, tile.end).contiguous());
      };
      const Tensor queries = part(q), d = part(d_out);
      Tensor p = products.scores(queries, scale);
      p.sub_(log_sums.slice(2, tile.begin, tile.end).unsqueeze(-1)).exp_();
      products.mix_backward(p, d, 1, d_kv);
      const Tensor mean = products.by_rows((d * part(out)).sum(-1, true));
      Tensor ds = products.against(d, 1).sub_(mean).mul_(p).mul_(scale);
      d_q.slice(2, tile.begin, tile.end).copy_(products.by_rows(products.mix(ds, 0)));
      products.mix_backward(ds, queries, 0, d_kv);
    }
    return {d_q, d_kv[0], d_kv[1], d_kv[2], d_kv[3], Tensor(), Tensor(), Tensor()};
  }
};

}  // namespace

Tensor attention(const AttentionInputs& in, double scale, const AttentionView& view) {
  return TiledAttention::apply(in.queries, in.coded_keys, in.coded_values, in.exact_keys,
                               in.exact_values, scale, view.sinks, view.recent);
}

}  // namespace mkv::training
