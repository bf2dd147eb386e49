// y = x * W^T, split into tasks for the workers. Every size below depends on the shapes only.
#include <algorithm>
#include <array>
#include <utility>

#include "base/buffer.h"
#include "ops/brain_panels.h"
#include "ops/gemm.h"
#include "ops/integer_products.h"
#include "ops/ops.h"
#include "ops/weight_kernels.h"

namespace mkv {
namespace {

// Up to so many tokens, decoding weights in registers beats a panel (bench/README.md): of floats,
// and of AMX.
constexpr size_t kFewFloats = 8, kFewBeforeAmx = 16;
// Weight bytes of a task with few tokens: half a microsecond of work, and many more tasks than
// workers, so that they end together.
constexpr size_t kTaskBytes = size_t{14} << 10;
// Dequantised bytes of a panel: half of a 512 KB L2 cache, as gemm() packs its own copy beside.
constexpr size_t kPanelBytes = size_t{1024} << 10;
constexpr size_t kMaxPanelRows = 128, kPanelRowsStep = 16;
constexpr size_t kTokenBlock = 512;
// Tokens that one task makes and rounds.
constexpr size_t kTokenGrain = 8;

// A panel of float32 rows: the weight itself if it is float32, else dequantised to scratch.
View<const float> panel_of(const Weight& w, size_t first, size_t rows) {
  if (w.type == DType::f32) {
    const std::byte* data = w.row(first);
    if (reinterpret_cast<uintptr_t>(data) % alignof(float) == 0) {
      return {reinterpret_cast<const float*>(data), rows, w.cols};
    }
  }
  // One for each thread that ever multiplies, kept for the next call and never larger than
  // kPanelBytes or kPanelRowsStep rows.
  thread_local Buffer<float> scratch;
  scratch.resize(std::max(scratch.size(), rows * w.cols));
  const View<float> panel(scratch.data(), rows, w.cols);
  dequantize_rows(w, first, panel);
  return panel;
}

// Activations as bf16 that stay in an L2 cache. What is larger comes from memory once a panel, so
// panels are as high as leaves tasks for some workers.
constexpr size_t kCachedBytes = size_t{1536} << 10, kBrainTasks = 4;
size_t brain_panel_rows(size_t rows, size_t activations) {
  if (activations * 2 * sizeof(uint16_t) <= kCachedBytes) return kBrainPanelRows;
  const size_t tiles = (rows + kBrainTasks * kTileRows - 1) / (kBrainTasks * kTileRows);
  return std::clamp(tiles * kTileRows, kBrainPanelRows, kMaxBrainPanelRows);
}

// How one product is cut: into `tasks` of `rows` rows (and blocks of tokens, as floats).
enum class Way : uint8_t { floats, integers, words, brain };
struct Cut {
  Way way = Way::floats;
  bool few = false;
  size_t rows = 0, tasks = 0;
};

Cut cut(const Weight& w, size_t tokens) {
  const size_t cols = std::max<size_t>(1, w.cols);
  Cut cut;
  size_t blocks = 1;
  const bool tiles = w.layout != Layout::rows, panels = tiles && has_integer_panels();
  const bool brain = has_brain_panels() && (tiles || info(w.type).block_elements == 1);
  const size_t few_integers = brain ? kFewBeforeAmx : few_for_integer_panels();
  cut.few = tokens <= (panels ? few_integers : kFewFloats);
  if (cut.few) {
    if (tiles && has_integer_products()) cut.way = Way::integers;
    const size_t step = tiles ? kTileRows : 4;  // rows that go together
    const size_t fitting = kTaskBytes / std::max<size_t>(1, row_bytes(w.type, w.cols));
    cut.rows = std::max(step, fitting / step * step);
  } else if (brain) {
    cut.way = Way::brain;
    cut.rows = brain_panel_rows(w.rows, tokens * cols);
  } else if (panels) {
    cut.way = has_exact_words(w.type) ? Way::integers : Way::words;
    cut.rows = integer_panel_rows();
  } else {
    const size_t fitting = kPanelBytes / sizeof(float) / cols;
    cut.rows = std::clamp(fitting / kPanelRowsStep * kPanelRowsStep, kPanelRowsStep, kMaxPanelRows);
    blocks = (tokens + kTokenBlock - 1) / kTokenBlock;
  }
  cut.tasks = (w.rows + cut.rows - 1) / cut.rows * blocks;
  return cut;
}

void multiply_floats(View<const float> x, const Weight& w, const Cut& cut, size_t task,
                     View<float> y) {
  if (cut.few) {
    const size_t row = task * cut.rows;
    return multiply_rows(x, w, row, std::min(row + cut.rows, w.rows), y);
  }
  const size_t panels = (w.rows + cut.rows - 1) / cut.rows;
  const size_t row = task % panels * cut.rows, token = task / panels * kTokenBlock;
  const size_t rows = std::min(cut.rows, w.rows - row);
  const size_t tokens = std::min(kTokenBlock, x.rows - token);
  const View<float> out(&y.at(token, row), tokens, rows, y.stride);
  gemm(x.rows_from(token, tokens), panel_of(w, row, rows), Transpose::yes, 0.0f, out);
}

void multiply_integers(const IntegerRows& x, const Weight& w, const Cut& cut, size_t task,
                       View<float> y) {
  const size_t row = task * cut.rows;
  if (!cut.few) return multiply_exact_panel(x, w, row, y);
  const size_t last = std::min((row + cut.rows) / kTileRows, w.tiles());
  multiply_integer_tiles(x, w, row / kTileRows, last, y);
}

// x as sums of bf16, in a buffer of the calling thread that the workers read.
const BrainRows& split_to_brain(View<const float> x, size_t parts, Workers& workers) {
  thread_local BrainRows kept;
  BrainRows& rows = kept;
  rows.reshape(x.rows, x.cols, parts);
  workers.run(rows.tiles(), [&](size_t tile, size_t) { to_brain_rows(x, tile, tile + 1, rows); });
  return rows;
}

// Makes the rows of x, and rounds them to Rows, in a buffer of the calling thread that the workers
// read.
template <class Rows, class... Args>
const Rows& make_and_round(View<const float> x, const RowMaker& make, Workers& workers,
                           void (*round)(View<const float>, size_t, size_t, Rows&), Args... args) {
  thread_local Rows kept;
  Rows& rows = kept;
  rows.reshape(x.rows, x.cols, args...);
  workers.run_ranges(x.rows, kTokenGrain, [&](size_t begin, size_t end, size_t) {
    for (size_t t = begin; t < end; ++t) {
      rows.prefetch_row_to_write(t);
      if (make) make(t);
      round(x, t, t + 1, rows);
    }
  });
  return rows;
}

}  // namespace

void dequantize_row(const Weight& w, size_t row, std::span<float> out) {
  dequantize_rows(w, row, View<float>(out.data(), 1, out.size()));
}

void matmul(View<const float> x, std::span<const Product> products, Workers& workers,
            const RowMaker& make) {
  MKV_CHECK(products.size() <= kMaxProducts);
  if (x.rows == 0) return;
  std::array<Cut, kMaxProducts> cuts;
  size_t tasks = 0;
  bool integers = false, split = false, words = false;
  size_t parts = 0;
  for (size_t i = 0; i < products.size(); ++i) {
    const Weight& w = *products[i].weight;
    const View<float>& y = products[i].y;
    MKV_CHECK(x.cols == w.cols && y.cols == w.rows && x.rows == y.rows);
    cuts[i] = cut(w, x.rows);
    tasks += cuts[i].tasks;
    integers |= cuts[i].way == Way::integers;
    split |= cuts[i].way == Way::integers && cuts[i].few;
    words |= cuts[i].way == Way::words;
    if (cuts[i].way == Way::brain) parts = std::max(parts, left_parts(brain_parts(w.type)));
  }
  RowMaker left = make;  // the first to read the rows makes them
  const WordRows* word_rows = nullptr;
  if (words) word_rows = &make_and_round(x, std::exchange(left, {}), workers, to_word_rows);
  const IntegerRows* rounded = nullptr;
  if (integers) {
    rounded = &make_and_round(x, std::exchange(left, {}), workers, to_integer_rows,
                              split ? Split::yes : Split::no);
  }
  if (left) {
    workers.run_ranges(x.rows, kTokenGrain, [&](size_t begin, size_t end, size_t) {
      for (size_t t = begin; t < end; ++t) left(t);
    });
  }
  const BrainRows* brain = parts > 0 ? &split_to_brain(x, parts, workers) : nullptr;
  workers.run(tasks, [&](size_t task, size_t) {
    size_t i = 0;
    for (; task >= cuts[i].tasks; ++i) task -= cuts[i].tasks;
    const Weight& w = *products[i].weight;
    const size_t row = task * cuts[i].rows;
    switch (cuts[i].way) {
      case Way::floats:
        return multiply_floats(x, w, cuts[i], task, products[i].y);
      case Way::integers:
        return multiply_integers(*rounded, w, cuts[i], task, products[i].y);
      case Way::words:
        return multiply_word_panel(*word_rows, w, row, products[i].y);
      case Way::brain:
        return multiply_brain_panel(*brain, w, row, std::min(cuts[i].rows, w.rows - row),
                                    products[i].y);
    }
  });
}

void matmul(View<const float> x, const Weight& w, View<float> y, Workers& workers,
            const RowMaker& make) {
  const Product product{&w, y};
  matmul(x, {&product, 1}, workers, make);
}

}  // namespace mkv
