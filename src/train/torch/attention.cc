// Attention tile by tile: scores of a tile of queries live only while it is worked on, and are
// computed again for the gradient from their log-sum-exp (arXiv:2205.14135, Algorithms 1 and 4,
// over queries alone).
#include <limits>
#include <vector>

#include "train/torch/functions.h"
#include "train/torch/tiles.h"

namespace mkv::training {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

// -inf above the diagonal [n x n].
Tensor hidden_of(const Tile& tile, const torch::TensorOptions& options) {
  const int64_t n = tile.end - tile.begin;
  return torch::full({n, n}, -std::numeric_limits<double>::infinity(), options).triu_(1);
}

// Queries and what has their shape come as [kv x repeats*n x head_dim], scores as
// [kv x repeats*n x keys].
struct TileRows {
  const Tile& tile;
  int64_t repeats;

  Tensor of(const Tensor& m) const {
    return m.slice(2, tile.begin, tile.end).reshape({m.size(0), -1, m.size(3)});
  }
  Tensor by_rows(const Tensor& m) const {
    return m.view({m.size(0), repeats, tile.end - tile.begin, -1});
  }
  void store(const Tensor& m, Tensor& to) const {
    to.slice(2, tile.begin, tile.end).copy_(by_rows(m));
  }
  Tensor scores(const Tensor& scaled_queries, const Tensor& keys) const {
    Tensor s = scaled_queries.bmm(keys.transpose(1, 2));
    by_rows(s).slice(3, tile.begin, tile.end).add_(hidden_of(tile, s.options()));
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
    Tensor log_sums = q.new_empty({q.size(0), q.size(1), q.size(2), 1});
    for (const Tile& tile : tiles_of(q.size(2), {sinks, recent})) {
      const TileRows rows{tile, q.size(1)};
      Tensor s = rows.scores(rows.of(q) * scale, seen(tile, kv[0], kv[2]));
      const Tensor most = s.amax(-1, true);
      s.sub_(most).exp_();
      const Tensor sum = s.sum(-1, true);
      rows.store(s.bmm(seen(tile, kv[1], kv[3])).div_(sum), out);
      rows.store(sum.log() + most, log_sums);
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
    for (const Tile& tile : tiles_of(q.size(2), view)) {
      const TileRows rows{tile, q.size(1)};
      const Tensor queries = rows.of(q) * scale, d = rows.of(d_out);
      const Tensor keys = seen(tile, kv[0], kv[2]), values = seen(tile, kv[1], kv[3]);
      const Tensor p = rows.scores(queries, keys).sub_(rows.of(log_sums)).exp_();
      add_seen(tile, p.transpose(1, 2).bmm(d), d_kv[1], d_kv[3]);
      const Tensor mean = (d * rows.of(out)).sum(-1, true);
      const Tensor ds = d.bmm(values.transpose(1, 2)).sub_(mean).mul_(p);
      rows.store(ds.bmm(keys).mul_(scale), d_q);
      add_seen(tile, ds.transpose(1, 2).bmm(queries), d_kv[0], d_kv[2]);
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
