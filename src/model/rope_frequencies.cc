#include "model/rope_frequencies.h"

#include <cmath>
#include <numbers>
#include <string>

#include "model/config.h"

namespace mkv {
namespace {

Result<void> check_positive(const char* key, double value) {
  if (std::isfinite(value) && value > 0) return {};
  return bad_value(ErrorCode::corrupt, key, std::to_string(value), "a positive number");
}

}  // namespace

Result<std::vector<double>> rope_frequencies(size_t head_dim, double theta) {
  MKV_TRY(check_positive("rope_theta", theta));
  std::vector<double> frequencies(head_dim / 2);
  for (size_t i = 0; i < frequencies.size(); ++i) {
    frequencies[i] = std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim));
  }
  return frequencies;
}

Result<void> scale_linear(std::span<double> frequencies, double factor) {
  MKV_TRY(check_positive("rope scaling factor", factor));
  for (double& f : frequencies) f /= factor;
  return {};
}

Result<void> scale_llama3(std::span<double> frequencies, const Llama3Scaling& scaling) {
  MKV_TRY(check_positive("rope scaling factor", scaling.factor));
  MKV_TRY(check_positive("low_freq_factor", scaling.low_frequency_factor));
  MKV_TRY(check_positive("high_freq_factor", scaling.high_frequency_factor));
  MKV_TRY(check_positive("original_max_position_embeddings", scaling.original_context));
  const double low = scaling.low_frequency_factor, high = scaling.high_frequency_factor;
  if (high <= low) {
    return bad_value(ErrorCode::corrupt, "high_freq_factor", std::to_string(high),
                     "more than low_freq_factor " + std::to_string(low));
  }
  for (double& f : frequencies) {
    const double wavelength = 2 * std::numbers::pi / f;
    const double turns = scaling.original_context / wavelength;  // within the original context
    if (turns > high) continue;
    if (turns < low) {
      f /= scaling.factor;
    } else {
      const double smooth = (turns - low) / (high - low);
      f *= (1 - smooth) / scaling.factor + smooth;
    }
  }
  return {};
}

Result<void> divide_frequencies(std::span<double> frequencies, std::span<const float> divisors) {
  if (divisors.size() != frequencies.size()) {
    return bad_value(ErrorCode::corrupt, "rope_freqs.weight", std::to_string(divisors.size()),
                     std::to_string(frequencies.size()) + " values");
  }
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const double divisor = static_cast<double>(divisors[i]);
    MKV_TRY(check_positive("rope_freqs.weight", divisor));
    frequencies[i] /= divisor;
  }
  return {};
}

}  // namespace mkv
