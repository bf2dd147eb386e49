// Products of weights with many tokens by AMX, in sums of bf16 (ops/amx_products.h): weights are
// split as they are unpacked, a block of columns at a time, activations once a call.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/buffer.h"
#include "base/view.h"
#include "ops/amx_products.h"
#include "ops/weight.h"

namespace mkv {

// Activations as the left side. Reused from call to call: grows, never shrinks.
struct BrainRows {
  size_t tokens = 0, cols = 0, parts = 0;
  Buffer<uint16_t> data;  // [tile of 16 tokens][block][part]

  void reshape(size_t token_count, size_t col_count, size_t part_count);
  size_t tiles() const { return (tokens + kBrainRows - 1) / kBrainRows; }
  size_t blocks() const { return (cols + kBrainColumns - 1) / kBrainColumns; }
  size_t tile_size() const { return blocks() * parts * kBrainTile; }
};

// Whether the instruction set in use has these kernels: AMX.
bool has_brain_panels();
// What the products with weights of a type are made of.
BrainParts brain_parts(DType type);

// Tiles first ... last-1 of the tokens of x into `out`, which has its shape already.
void to_brain_rows(View<const float> x, size_t first, size_t last, BrainRows& out);

// y[t][r] = x[t] . row r of w, for `rows` rows from `first` (a multiple of 16) and all tokens of x.
// What a token gets depends on nothing else.
inline constexpr size_t kBrainPanelRows = 64, kMaxBrainPanelRows = 256;
void multiply_brain_panel(const BrainRows& x, const Weight& w, size_t first, size_t rows,
                          View<float> y);

// c [left.tokens x 16 n] = left * x, whose rows are left's columns [cols x 16 n]. left.tokens is a
// multiple of 16, left has two parts.
void multiply_brain_columns(const BrainRows& left, View<const float> x, View<float> c);

}  // namespace mkv
