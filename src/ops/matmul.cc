// y = x * W^T, split into tasks for the workers. Every size below depends on the shapes only.
#include <algorithm>

#include "base/buffer.h"
#include "ops/gemm.h"
#include "ops/ops.h"
#include "ops/weight_kernels.h"

namespace mkv {
namespace {

// Up to so many tokens, decoding weights in registers beats a panel and gemm() (bench/README.md).
constexpr size_t kFewTokens = 8;
// Weight bytes of a task with few tokens: some microseconds of work, and many more tasks than
// workers, so that they end together.
constexpr size_t kTaskBytes = size_t{32} << 10;
// Dequantised bytes of a panel: half of a 512 KB L2 cache, as gemm() packs its own copy beside.
constexpr size_t kPanelBytes = size_t{1024} << 10;
constexpr size_t kMaxPanelRows = 128, kPanelRowsStep = 16;
constexpr size_t kTokenBlock = 512;

void multiply_few(View<const float> x, const Weight& w, View<float> y, Workers& workers) {
  const size_t bytes = std::max<size_t>(1, row_bytes(w.type, w.cols));
  const size_t grain = std::max<size_t>(2, kTaskBytes / bytes / 2 * 2);  // rows go in pairs
  workers.run_ranges(w.rows, grain,
                     [&](size_t begin, size_t end, size_t) { multiply_rows(x, w, begin, end, y); });
}

// A panel of float32 rows: the weight itself if it is float32, else dequantised to scratch.
View<const float> panel_of(const Weight& w, size_t first, size_t rows) {
  const std::byte* data = w.row(first);
  if (w.type == DType::f32 && reinterpret_cast<uintptr_t>(data) % alignof(float) == 0) {
    return {reinterpret_cast<const float*>(data), rows, w.cols};
  }
  // One for each thread that ever multiplies, kept for the next call and never larger than
  // kPanelBytes or kPanelRowsStep rows.
  thread_local Buffer<float> scratch;
  scratch.resize(std::max(scratch.size(), rows * w.cols));
  const View<float> panel(scratch.data(), rows, w.cols);
  dequantize_rows(w, first, panel);
  return panel;
}

void multiply_many(View<const float> x, const Weight& w, View<float> y, Workers& workers) {
  const size_t fitting = kPanelBytes / sizeof(float) / std::max<size_t>(1, w.cols);
  const size_t panel_rows =
      std::clamp(fitting / kPanelRowsStep * kPanelRowsStep, kPanelRowsStep, kMaxPanelRows);
  const size_t panels = (w.rows + panel_rows - 1) / panel_rows;
  const size_t blocks = (x.rows + kTokenBlock - 1) / kTokenBlock;
  workers.run(panels * blocks, [&](size_t task, size_t) {
    const size_t row = task % panels * panel_rows, token = task / panels * kTokenBlock;
    const size_t rows = std::min(panel_rows, w.rows - row);
    const size_t tokens = std::min(kTokenBlock, x.rows - token);
    const View<float> out(&y.at(token, row), tokens, rows, y.stride);
    gemm(x.rows_from(token, tokens), panel_of(w, row, rows), Transpose::yes, 0.0f, out);
  });
}

}  // namespace

void dequantize_row(const Weight& w, size_t row, std::span<float> out) {
  dequantize_rows(w, row, View<float>(out.data(), 1, out.size()));
}

void matmul(View<const float> x, const Weight& w, View<float> y, Workers& workers) {
  MKV_CHECK(x.cols == w.cols && y.cols == w.rows && x.rows == y.rows);
  if (x.rows <= kFewTokens) {
    multiply_few(x, w, y, workers);
  } else {
    multiply_many(x, w, y, workers);
  }
}

}  // namespace mkv
