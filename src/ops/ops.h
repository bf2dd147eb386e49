// Vector kernels of the forward pass. Each has a scalar reference in ops/reference.h and runs the
// best instruction set of the machine, chosen at run time (ops/instruction_set.h can lower it).
// Shapes in brackets; all floats are float32 unless a Weight says otherwise.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/view.h"
#include "base/workers.h"
#include "ops/weight.h"

namespace mkv {

// out[cols] = one row of a weight, as float32.
void dequantize_row(const Weight& w, size_t row, std::span<float> out);

// One of the weights that the same activations are multiplied with, and where its product goes.
struct Product {
  const Weight* weight = nullptr;
  View<float> y;  // [tokens x weight->rows]
};

inline constexpr size_t kMaxProducts = 4;

// fn(token), by reference: what makes a row of activations.
class RowMaker {
 public:
  RowMaker() = default;
  template <class Fn>
  RowMaker(const Fn& fn)
      : call_([](const void* f, size_t token) { (*static_cast<const Fn*>(f))(token); }), fn_(&fn) {}

  explicit operator bool() const { return call_ != nullptr; }
  void operator()(size_t token) const { call_(fn_, token); }

 private:
  void (*call_)(const void* fn, size_t token) = nullptr;
  const void* fn_ = nullptr;
};

// y[tokens x rows] = x[tokens x cols] * W^T for each product (kMaxProducts at most), in one run of
// the workers. `make`, if any, is called by them once for each row of x, which it writes, before
// anything reads the row: while it is in a cache it is rounded as well. The split into tasks
// depends on the shapes only, so results are bit-equal for any number of workers. Quantised weights
// are multiplied as integers, with activations rounded to 16 bits (ops/integer_products.h); other
// types as floats. Few tokens and many go different ways (README.md), whose results differ by
// rounding.
void matmul(View<const float> x, std::span<const Product> products, Workers& workers,
            const RowMaker& make = {});
void matmul(View<const float> x, const Weight& w, View<float> y, Workers& workers,
            const RowMaker& make = {});

// sum_i a[i] * b[i]; equal sizes.
float dot(std::span<const float> a, std::span<const float> b);
// y[i] += scale * x[i]
void axpy(float scale, std::span<const float> x, std::span<float> y);

// out = x / rms(x) * weight, rms = sqrt(mean(x^2) + epsilon). x and out may be the same.
void rms_norm(std::span<const float> x, std::span<const float> weight, float epsilon,
              std::span<float> out);
// gate[i] = silu(gate[i]) * up[i]
void swiglu(std::span<float> gate, std::span<const float> up);
// gate[i] = gelu(gate[i]) * up[i], gelu by tanh: g / 2 (1 + tanh(sqrt(2 / pi) (g + 0.044715 g^3)))
// (arXiv:1606.08415).
void geglu(std::span<float> gate, std::span<const float> up);

// Softmax in place of x * scale; -inf entries get 0. All -inf gives all 0.
void softmax(std::span<float> x, float scale);
// ln(sum exp(x)).
float log_sum_exp(std::span<const float> x);

// Where the largest number of x is first; x.size() if nothing is a number above -infinity.
size_t index_of_largest(std::span<const float> x);

// Bulk conversions (round to nearest even).
void f32_to_f16(std::span<const float> in, std::span<uint16_t> out);
void f16_to_f32(std::span<const uint16_t> in, std::span<float> out);

// Rotates one head in place, half-split (Hugging Face) order: pairs (i, i + n/2) of the leading
// n = 2 * cos.size() elements turn by the angle whose cosine and sine are given. RoFormer eq. 34.
void rope(std::span<float> head, std::span<const float> cos, std::span<const float> sin);
// The same for heads of head_dim elements side by side.
void rope_heads(std::span<float> heads, size_t head_dim, std::span<const float> cos,
                std::span<const float> sin);

}  // namespace mkv
