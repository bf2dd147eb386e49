#include "model/backward_steps.h"

#include <algorithm>
#include <cmath>

#include "ops/gemm.h"
#include "ops/ops.h"

namespace mkv {
namespace {

// A panel of dequantised rows serves a block of tokens: large enough to pay for itself, small
// enough for the caches and for some tasks a worker.
constexpr size_t kPanelRows = 256, kTokenBlock = 256;

}  // namespace

void matmul_backward(View<const float> g, const Weight& w, bool add, View<float> out,
                     Workers& workers) {
  workers.run_ranges(g.rows, kTokenBlock, [&](size_t begin, size_t end, size_t) {
    thread_local Matrix<float> panel;
    for (size_t row = 0; row < w.rows; row += kPanelRows) {
      const size_t count = std::min(kPanelRows, w.rows - row);
      panel.reshape(count, w.cols);
      for (size_t r = 0; r < count; ++r) dequantize_row(w, row + r, panel.row(r));
      const View<const float> part(g.data + begin * g.stride + row, end - begin, count, g.stride);
      gemm(part, panel.view(), Transpose::no, row == 0 && !add ? 0.0f : 1.0f,
           out.rows_from(begin, end - begin));
    }
  });
}

void add_norm_backward(std::span<const float> x, std::span<const float> weight, float epsilon,
                       std::span<const float> dy, std::span<float> dx) {
  double square = 0.0, product = 0.0;
  for (size_t i = 0; i < x.size(); ++i) {
    square += static_cast<double>(x[i]) * x[i];
    product += static_cast<double>(weight[i]) * dy[i] * x[i];
  }
  const double n = static_cast<double>(x.size());
  const double r = 1.0 / std::sqrt(square / n + epsilon);
  const auto direct = static_cast<float>(r);
  const auto along = static_cast<float>(r * r * r * product / n);
  for (size_t i = 0; i < x.size(); ++i) dx[i] += direct * weight[i] * dy[i] - along * x[i];
}

void activate(Activation activation, std::span<float> gate, std::span<float> slope) {
  for (size_t i = 0; i < gate.size(); ++i) {
    const float g = gate[i];
    // Both are g sigmoid(x): x = g, or 2 sqrt(2 / pi) (g + 0.044715 g^3).
    float x = g, dx = 1.0f;
    if (activation == Activation::gelu_tanh) {
      constexpr float kSlope = 1.5957691216f, kCubic = 0.044715f;
      x = kSlope * g * (1.0f + kCubic * g * g);
      dx = kSlope * (1.0f + 3.0f * kCubic * g * g);
    }
    const float sigmoid = 1.0f / (1.0f + std::exp(-x));
    gate[i] = g * sigmoid;
    slope[i] = sigmoid + g * sigmoid * (1.0f - sigmoid) * dx;
  }
}

}  // namespace mkv
