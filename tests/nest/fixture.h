// A small nest with random orthogonal bases and means, and random keys, values and queries.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

#include "base/rng.h"
#include "nest/kv_cache.h"
#include "ops/ops.h"

namespace mkv {

inline Rotary make_rotary(size_t head_dim, double base = 10000.0) {
  std::vector<double> frequencies;
  for (size_t i = 0; i < head_dim / 2; ++i) {
    frequencies.push_back(
        std::pow(base, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim)));
  }
  return Rotary(frequencies);
}

inline LayerTypes layers_alike(size_t head_dim) { return LayerTypes(make_rotary(head_dim)); }

inline LayerTypes layers_alike(size_t head_dim, size_t window) {
  return LayerTypes({{.rotary = make_rotary(head_dim), .window = window}}, {});
}

// Layers see by turns the whole context and a sliding window, with other angles.
inline LayerTypes sliding_layers(size_t head_dim, size_t layers, size_t window) {
  std::vector<uint8_t> of_layer(layers);
  for (size_t l = 0; l < layers; ++l) of_layer[l] = l % 2;
  return LayerTypes({{.rotary = make_rotary(head_dim), .window = kWholeContext},
                     {.rotary = make_rotary(head_dim, 100.0), .window = window}},
                    std::move(of_layer));
}

// n orthonormal rows, each a random direction without its part along those before it (Gram-Schmidt;
// Eigen's factorisations would be most of what compiling these tests takes).
inline std::vector<std::vector<double>> random_orthogonal(size_t n, Rng& rng) {
  std::vector<std::vector<double>> rows;
  const auto dot = [](const auto& x, const auto& y) {
    return std::inner_product(x.begin(), x.end(), y.begin(), 0.0);
  };
  while (rows.size() < n) {
    std::vector<double> row(n);
    for (double& x : row) x = rng.normal();
    for (size_t time = 0; time < 2; ++time) {  // once more for what rounding left
      for (const std::vector<double>& other : rows) {
        const double along = dot(row, other);
        for (size_t i = 0; i < n; ++i) row[i] -= along * other[i];
      }
    }
    const double length = std::sqrt(dot(row, row));
    for (double& x : row) x /= length;
    rows.push_back(std::move(row));
  }
  return rows;
}

inline void fill_random_bases(Nest& nest, uint64_t seed) {
  Rng rng(seed);
  for (size_t space = 0; space < nest.spaces(); ++space) {
    const auto q = random_orthogonal(nest.dims(), rng);
    Basis& basis = nest.basis(nest.unflat(space));
    for (size_t i = 0; i < q.size(); ++i) {
      for (size_t j = 0; j < q.size(); ++j) {
        basis.decode.at(i, j) = basis.encode.at(j, i) = static_cast<float>(q[i][j]);
      }
      basis.mean[i] = static_cast<float>(0.5 * rng.normal());
    }
  }
}

inline Matrix<float> random_matrix(size_t rows, size_t cols, uint64_t seed) {
  Rng rng(seed);
  Matrix<float> m(rows, cols);
  for (float& x : m.span()) x = static_cast<float>(rng.normal());
  return m;
}

// Makes tokens look like the first one: with values of a tenth, and with keys that are its own
// before RoPE.
inline void plant_later_sinks(const Rotary& rotary, size_t head_dim, std::span<const size_t> tokens,
                              Matrix<float>& keys, Matrix<float>& values) {
  const Matrix<float> noise = random_matrix(keys.rows(), keys.cols(), 4);
  std::vector<float> cos(head_dim / 2), sin(head_dim / 2);
  for (float& x : values.row(0)) x *= 0.1f;
  for (const size_t t : tokens) {
    rotary.angles(static_cast<double>(t), cos, sin);
    std::ranges::copy(keys.row(0), keys.row(t).begin());
    rope_heads(keys.row(t), head_dim, cos, sin);
    for (size_t c = 0; c < keys.cols(); ++c) {
      keys.at(t, c) += 0.1f * noise.at(t, c);
      values.at(t, c) = values.at(0, c) + 0.02f * noise.at(t, c);
    }
  }
}

// The widths of one layer's attention, and the scale of its scores.
struct LayerWidths {
  size_t queries = 0, keys = 0;
  float scale = 1.0f;
  bool last_only = false;  // of a chunk the last token attends alone; the others' rows stay zeros
};

// Random tokens through the first layer of a cache, `chunk` at a time: what attention gives them.
// `change` may plant something in keys and values.
using ChangeTokens = std::function<void(Matrix<float>& keys, Matrix<float>& values)>;
inline Matrix<float> feed_layer(KvCache& cache, const LayerWidths& widths, size_t tokens,
                                size_t chunk, uint64_t seed, size_t threads,
                                const ChangeTokens& change = {}) {
  const Matrix<float> q = random_matrix(tokens, widths.queries, seed);
  Matrix<float> k = random_matrix(tokens, widths.keys, seed + 1);
  Matrix<float> v = random_matrix(tokens, widths.keys, seed + 2);
  if (change) change(k, v);
  Matrix<float> out(tokens, widths.queries);
  AttentionScratch scratch;
  Workers workers(threads);
  for (size_t t = 0; t < tokens; t += chunk) {
    const size_t n = std::min(chunk, tokens - t);
    const size_t asking = widths.last_only ? 1 : n, first = t + n - asking;
    cache.attend(0,
                 {q.view().rows_from(first, asking), k.view().rows_from(t, n),
                  v.view().rows_from(t, n), widths.scale},
                 out.view().rows_from(first, asking), scratch, workers);
    cache.commit(n);
  }
  return out;
}

}  // namespace mkv
