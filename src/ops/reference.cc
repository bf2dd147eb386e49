#include "ops/reference.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numbers>
#include <vector>

#include "base/half.h"

namespace mkv::reference {
namespace {

uint16_t load_u16(const uint8_t* p) { return static_cast<uint16_t>(p[0] | (p[1] << 8)); }
float load_half(const uint8_t* p) { return mkv::f16_to_f32(load_u16(p)); }

// 32 elements: d * q + m, or d * (q - half of the range) if the type has no minimum.
void block_of_32(DType type, const uint8_t* block, float* out) {
  const bool has_min = type == DType::q4_1 || type == DType::q5_1;
  const bool five_bits = type == DType::q5_0 || type == DType::q5_1;
  const float d = load_half(block);
  const uint8_t* p = block + 2;
  float m = 0;
  if (has_min) {
    m = load_half(p);
    p += 2;
  }
  uint32_t high = 0;
  if (five_bits) {
    std::memcpy(&high, p, 4);
    p += 4;
  }
  for (size_t j = 0; j < 32; ++j) {
    int q = j < 16 ? p[j] & 15 : p[j - 16] >> 4;
    if (five_bits) q |= static_cast<int>(high >> j & 1) << 4;
    if (has_min) {
      out[j] = d * static_cast<float>(q) + m;
    } else {
      out[j] = d * static_cast<float>(q - (five_bits ? 16 : 8));
    }
  }
}

// The j-th of eight 6-bit (scale, minimum) pairs in 12 bytes: the first four scales and minimums
// are the low 6 bits of bytes 0-3 and 4-7; the last four have their low 4 bits in the nibbles of
// bytes 8-11 and their high 2 bits on top of bytes 0-3 and 4-7.
void scale_and_min(const uint8_t* s, size_t j, int& scale, int& min) {
  if (j < 4) {
    scale = s[j] & 63;
    min = s[j + 4] & 63;
  } else {
    scale = (s[j + 4] & 15) | (s[j - 4] >> 6 << 4);
    min = (s[j + 4] >> 4) | (s[j] >> 6 << 4);
  }
}

void block_q4_k_q5_k(DType type, const uint8_t* block, float* out) {
  const float d = load_half(block), dmin = load_half(block + 2);
  const uint8_t* scales = block + 4;
  const uint8_t* high = block + 16;  // Q5_K only
  const uint8_t* quants = type == DType::q5_k ? block + 48 : block + 16;
  for (size_t e = 0; e < 256; ++e) {
    const size_t group = e / 32, j = e % 32;
    int scale = 0, min = 0;
    scale_and_min(scales, group, scale, min);
    const uint8_t byte = quants[group / 2 * 32 + j];
    int q = group % 2 == 0 ? byte & 15 : byte >> 4;
    if (type == DType::q5_k) q |= (high[j] >> group & 1) << 4;
    out[e] = d * static_cast<float>(scale) * static_cast<float>(q) - dmin * static_cast<float>(min);
  }
}

void block_q6_k(const uint8_t* block, float* out) {
  const float d = load_half(block + 208);
  for (size_t e = 0; e < 256; ++e) {
    const size_t half = e / 128, quarter = e % 128 / 32, j = e % 32;
    const uint8_t low = block[half * 64 + quarter % 2 * 32 + j];
    const uint8_t high = block[128 + half * 32 + j];
    const int q = (quarter < 2 ? low & 15 : low >> 4) | (high >> (2 * quarter) & 3) << 4;
    const int scale = static_cast<int8_t>(block[192 + e / 16]);
    out[e] = d * static_cast<float>(scale) * static_cast<float>(q - 32);
  }
}

}  // namespace

void dequantize_row(const Weight& w, size_t row, std::span<float> out) {
  MKV_CHECK(out.size() == w.cols && row < w.rows);
  const auto* p = reinterpret_cast<const uint8_t*>(w.row(row));
  const DTypeInfo& type = info(w.type);
  for (size_t c = 0; c < w.cols; c += type.block_elements, p += type.block_bytes) {
    float* to = out.data() + c;
    switch (w.type) {
      case DType::f32:
        std::memcpy(to, p, 4);
        break;
      case DType::f16:
        *to = load_half(p);
        break;
      case DType::bf16:
        *to = bf16_to_f32(load_u16(p));
        break;
      case DType::q4_0:
      case DType::q4_1:
      case DType::q5_0:
      case DType::q5_1:
        block_of_32(w.type, p, to);
        break;
      case DType::q8_0:
        for (size_t j = 0; j < 32; ++j) {
          to[j] = load_half(p) * static_cast<float>(static_cast<int8_t>(p[2 + j]));
        }
        break;
      case DType::q4_k:
      case DType::q5_k:
        block_q4_k_q5_k(w.type, p, to);
        break;
      case DType::q6_k:
        block_q6_k(p, to);
        break;
    }
  }
}

void matmul(View<const float> x, const Weight& w, View<float> y) {
  std::vector<float> row(w.cols);
  for (size_t r = 0; r < w.rows; ++r) {
    dequantize_row(w, r, row);
    for (size_t t = 0; t < x.rows; ++t) y.at(t, r) = static_cast<float>(dot(x.row(t), row));
  }
}

double dot(std::span<const float> a, std::span<const float> b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += static_cast<double>(a[i]) * b[i];
  return sum;
}

void axpy(float scale, std::span<const float> x, std::span<float> y) {
  for (size_t i = 0; i < x.size(); ++i) y[i] += scale * x[i];
}

void rms_norm(std::span<const float> x, std::span<const float> weight, float epsilon,
              std::span<float> out) {
  const double mean = dot(x, x) / static_cast<double>(x.size());
  const double factor = 1.0 / std::sqrt(mean + static_cast<double>(epsilon));
  for (size_t i = 0; i < x.size(); ++i) {
    out[i] = static_cast<float>(static_cast<double>(x[i]) * factor * weight[i]);
  }
}

void swiglu(std::span<float> gate, std::span<const float> up) {
  for (size_t i = 0; i < gate.size(); ++i) {
    const double g = gate[i];
    gate[i] = static_cast<float>(g / (1.0 + std::exp(-g)) * up[i]);
  }
}

void geglu(std::span<float> gate, std::span<const float> up) {
  const double slope = std::sqrt(2.0 / std::numbers::pi);
  for (size_t i = 0; i < gate.size(); ++i) {
    const double g = gate[i];
    // (1 + tanh u) / 2 = 1 / (1 + exp(-2u)), which keeps its digits far below zero.
    const double u = slope * (g + 0.044715 * g * g * g);
    gate[i] = static_cast<float>(g / (1.0 + std::exp(-2.0 * u)) * up[i]);
  }
}

void softmax(std::span<float> x, float scale) {
  double largest = -std::numeric_limits<double>::infinity();
  for (float& v : x) {
    v *= scale;
    largest = std::max(largest, static_cast<double>(v));
  }
  if (std::isinf(largest)) {
    std::fill(x.begin(), x.end(), 0.0f);
    return;
  }
  double sum = 0;
  for (const float v : x) sum += std::exp(v - largest);
  for (float& v : x) v = static_cast<float>(std::exp(v - largest) / sum);
}

double log_sum_exp(std::span<const float> x) {
  double largest = -std::numeric_limits<double>::infinity();
  for (const float v : x) largest = std::max(largest, static_cast<double>(v));
  if (std::isinf(largest)) return largest;
  double sum = 0;
  for (const float v : x) sum += std::exp(v - largest);
  return largest + std::log(sum);
}

size_t index_of_largest(std::span<const float> x) {
  size_t best = x.size();
  float largest = -std::numeric_limits<float>::infinity();
  for (size_t i = 0; i < x.size(); ++i) {
    if (x[i] > largest) {
      largest = x[i];
      best = i;
    }
  }
  return best;
}

void f32_to_f16(std::span<const float> in, std::span<uint16_t> out) {
  for (size_t i = 0; i < in.size(); ++i) out[i] = mkv::f32_to_f16(in[i]);
}

void f16_to_f32(std::span<const uint16_t> in, std::span<float> out) {
  for (size_t i = 0; i < in.size(); ++i) out[i] = mkv::f16_to_f32(in[i]);
}

void rope(std::span<float> head, std::span<const float> cos, std::span<const float> sin) {
  const size_t half = cos.size();
  for (size_t i = 0; i < half; ++i) {
    const double a = head[i], b = head[i + half];
    head[i] = static_cast<float>(a * cos[i] - b * sin[i]);
    head[i + half] = static_cast<float>(b * cos[i] + a * sin[i]);
  }
}

}  // namespace mkv::reference
