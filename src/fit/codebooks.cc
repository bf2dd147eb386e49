#include "fit/codebooks.h"

#include <algorithm>
#include <cmath>

#include "base/half.h"
#include "base/rng.h"
#include "nest/kv_cache.h"
#include "nest/slab_kernels.h"

namespace mkv {
namespace {

// The residual of kSlabColumns columns, and what the next slab on them would be.
struct Candidate {
  float* residual = nullptr;  // [kSlabColumns][padded tokens]
  size_t stages = 0;          // slabs already taken
  Codebook codebook;
  double energy = 0, gain = 0;  // of the residual; its fall with this codebook
};

class Fitter {
 public:
  Fitter(Matrix<float>& latents, std::span<const float> weights, const CodebookOptions& options)
      : latents_(latents), weights_(weights), options_(options), stride_(latents.cols()) {
    original_ = latents.clone();
    for (const float w : weights) total_weight_ += w;
    codes_.resize(stride_ / kBlockTokens * kBlockTokens / 2);
    work_.reshape(kSlabColumns, kBlockTokens);
    for (size_t c = 0; c + kSlabColumns <= latents.rows(); c += kSlabColumns) {
      Candidate candidate;
      candidate.residual = latents.row(c).data();
      candidate.energy = energy_of(candidate.residual);
      candidates_.push_back(candidate);
    }
  }

  SpaceCode run() {
    SpaceCode code;
    for (Candidate& candidate : candidates_) {
      code.energy += candidate.energy;
      prepare(candidate);
    }
    while (code.slabs.size() < options_.max_slabs) {
      const auto best = std::ranges::max_element(candidates_, {}, &Candidate::gain);
      if (best->gain <= 0.0) break;
      code.gains.push_back(best->gain);
      code.slabs.push_back(take(*best));
      prepare(*best);
    }
    return code;
  }

 private:
  double energy_of(const float* rows) const {
    double sum = 0.0;
    for (size_t c = 0; c < kSlabColumns; ++c) {
      const float* row = rows + c * stride_;
      double part = 0.0;
      for (size_t t = 0; t < stride_; ++t)
        part += static_cast<double>(weights_[t] * row[t] * row[t]);
      sum += part;
    }
    return sum / total_weight_;
  }

  // Codes all tokens with a codebook: codes_, and the residual's energy. The residual is kept.
  double assign(const Codebook& codebook, const float* residual) {
    double sum = 0.0;
    for (size_t b = 0; b < stride_; b += kBlockTokens) {
      for (size_t c = 0; c < kSlabColumns; ++c) {
        std::copy_n(residual + c * stride_ + b, kBlockTokens, work_.row(c).data());
      }
      encode_slab(codebook, work_.data(), kBlockTokens, codes_.data() + b / 2);
      float part[kBlockTokens] = {};
      for (size_t c = 0; c < kSlabColumns; ++c) {
        for (size_t t = 0; t < kBlockTokens; ++t) part[t] += work_.at(c, t) * work_.at(c, t);
      }
      for (size_t t = 0; t < kBlockTokens; ++t)
        sum += static_cast<double>(weights_[b + t] * part[t]);
    }
    return sum / total_weight_;
  }
  unsigned code_at(size_t t) const {
    const size_t within = t % kBlockTokens, half = kBlockTokens / 2;
    const uint8_t byte = codes_[t / kBlockTokens * half + within % half];
    return within < half ? byte & 15u : byte >> 4;
  }

  // Entries start at tokens drawn by weight (seeded), so that heavy tails are in range.
  void start(Codebook& codebook, const float* residual, uint64_t seed) const {
    Rng rng(seed);
    for (size_t e = 0; e < kCodebookEntries; ++e) {
      size_t t = rng.below(stride_);
      for (size_t tries = 0; tries < 64 && weights_[t] == 0.0f; ++tries) t = rng.below(stride_);
      for (size_t c = 0; c < kSlabColumns; ++c) codebook.entry[c][e] = residual[c * stride_ + t];
    }
  }

  void move_entries(Codebook& codebook, const float* residual) const {
    double sum[kCodebookEntries][kSlabColumns] = {}, weight[kCodebookEntries] = {};
    for (size_t t = 0; t < stride_; ++t) {
      const unsigned e = code_at(t);
      const double w = weights_[t];
      weight[e] += w;
      for (size_t c = 0; c < kSlabColumns; ++c) {
        sum[e][c] += w * static_cast<double>(residual[c * stride_ + t]);
      }
    }
    const auto heaviest =
        static_cast<size_t>(std::ranges::max_element(weight) - std::begin(weight));
    for (size_t e = 0; e < kCodebookEntries; ++e) {
      for (size_t c = 0; c < kSlabColumns; ++c) {
        // An entry that nobody chose splits the one chosen most.
        codebook.entry[c][e] = weight[e] > 0.0 ? static_cast<float>(sum[e][c] / weight[e])
                                               : codebook.entry[c][heaviest] * 1.05f;
      }
    }
  }

  void prepare(Candidate& candidate) {
    candidate.gain = 0.0;
    if (candidate.stages >= options_.max_per_column) return;
    const auto column = static_cast<uint64_t>(candidate.residual - latents_.data()) / stride_;
    Codebook& codebook = candidate.codebook;
    start(codebook, candidate.residual, options_.seed * 7919 + column * 64 + candidate.stages);
    for (size_t i = 0; i < options_.iterations; ++i) {
      assign(codebook, candidate.residual);
      move_entries(codebook, candidate.residual);
    }
    for (auto& column_entries : codebook.entry) {  // the nest file's precision
      for (float& x : column_entries) x = f16_to_f32(f32_to_f16(x));
    }
    candidate.gain = candidate.energy - assign(codebook, candidate.residual);
  }

  CodeSlab take(Candidate& candidate) {
    CodeSlab slab;
    const auto first = static_cast<size_t>(candidate.residual - latents_.data()) / stride_;
    slab.first_column = static_cast<uint16_t>(first);
    slab.codebook = candidate.codebook;
    for (size_t b = 0; b < stride_; b += kBlockTokens) {
      encode_slab(slab.codebook, candidate.residual + b, stride_, codes_.data() + b / 2);
    }
    ++candidate.stages;
    candidate.energy = energy_of(candidate.residual);
    for (size_t c = 0; c < kSlabColumns; ++c) slab.scale[c] = scale_of(first + c);
    return slab;
  }

  float scale_of(size_t column) const {
    double variance = 0.0, covariance = 0.0;
    const std::span<const float> x = original_.row(column), r = latents_.row(column);
    for (size_t t = 0; t < stride_; ++t) {
      variance += static_cast<double>(weights_[t] * x[t] * x[t]);
      covariance += static_cast<double>(weights_[t] * x[t] * (x[t] - r[t]));
    }
    return unbiased_scale(variance, covariance);
  }

  Matrix<float>& latents_;
  Matrix<float> original_, work_;
  std::span<const float> weights_;
  const CodebookOptions& options_;
  const size_t stride_;
  double total_weight_ = 0;
  std::vector<uint8_t> codes_;
  std::vector<Candidate> candidates_;
};

}  // namespace

float unbiased_scale(double variance, double covariance) {
  if (covariance <= 0.25 * variance) return covariance > 0.0 ? 4.0f : 1.0f;
  return f16_to_f32(f32_to_f16(static_cast<float>(variance / covariance)));
}

SpaceCode fit_codebooks(Matrix<float>& latents, std::span<const float> weights,
                        const CodebookOptions& options) {
  return Fitter(latents, weights, options).run();
}

}  // namespace mkv
