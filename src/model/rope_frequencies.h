// Inverse frequencies of RoPE, and the ways in which models stretch them to longer contexts.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "base/result.h"

namespace mkv {

// theta^(-2i / head_dim) for i = 0 ... head_dim/2 - 1 (RoFormer, arXiv 2104.09864, §3.2.2).
Result<std::vector<double>> rope_frequencies(size_t head_dim, double theta);

// Position interpolation (arXiv 2306.15595): every angle divided by the factor.
Result<void> scale_linear(std::span<double> frequencies, double factor);

// Llama 3.1: slow pairs are interpolated, fast ones kept, those between blended.
struct Llama3Scaling {
  double factor = 0, low_frequency_factor = 0, high_frequency_factor = 0, original_context = 0;
};
Result<void> scale_llama3(std::span<double> frequencies, const Llama3Scaling& scaling);

// A divisor for each pair, as GGUF files carry in rope_freqs.weight.
Result<void> divide_frequencies(std::span<double> frequencies, std::span<const float> divisors);

}  // namespace mkv
