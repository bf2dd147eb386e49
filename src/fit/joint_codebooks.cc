#include "fit/joint_codebooks.h"

#include <Eigen/Dense>
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "base/half.h"
#include "nest/kv_cache.h"
#include "nest/slab_kernels.h"

namespace mkv {
namespace {

using Index = Eigen::Index;
using Square = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic>;
using Entries = Eigen::Matrix<double, Eigen::Dynamic, kSlabColumns>;

constexpr size_t kHalf = kBlockTokens / 2;

// What coding some tokens says about the slabs on four columns, in sums that do not grow with the
// tokens. Entry e of stage s has the row s * 16 + e.
class Account {
 public:
  explicit Account(size_t stages)
      : errors(stages + 1, 0.0),
        covariance(stages),
        pairs_(Square::Zero(rows(stages), rows(stages))),
        sums_(Entries::Zero(rows(stages), kSlabColumns)),
        codes_(stages) {}

  // tokens [4][64] with a stride.
  void add(std::span<const CodeSlab> slabs, const float* tokens, size_t stride,
           std::span<const float> weights) {
    float left[kSlabColumns * kBlockTokens];
    for (size_t c = 0; c < kSlabColumns; ++c) {
      std::copy_n(tokens + c * stride, kBlockTokens, left + c * kBlockTokens);
      for (size_t t = 0; t < kBlockTokens; ++t) {
        const float x = tokens[c * stride + t];
        variance[c] += static_cast<double>(weights[t] * x * x);
      }
    }
    add_error(left, weights, errors[0]);
    for (size_t s = 0; s < slabs.size(); ++s) {
      uint8_t packed[kHalf];
      encode_slab(slabs[s].codebook, left, kBlockTokens, packed);
      for (size_t t = 0; t < kHalf; ++t) {
        codes_[s][t] = static_cast<uint16_t>(s * kCodebookEntries + (packed[t] & 15u));
        codes_[s][t + kHalf] = static_cast<uint16_t>(s * kCodebookEntries + (packed[t] >> 4));
      }
      add_error(left, weights, errors[s + 1]);
      for (size_t c = 0; c < kSlabColumns; ++c) {
        for (size_t t = 0; t < kBlockTokens; ++t) {
          const float x = tokens[c * stride + t];
          covariance[s][c] +=
              static_cast<double>(weights[t] * x * (x - left[c * kBlockTokens + t]));
        }
      }
    }
    count(tokens, stride, weights);
  }

  // How the entries move towards the least squares of all prefixes, given the codes. counts[s]:
  // what the errors of all prefixes that stage s is part of count; `ridge` is a weight for each
  // entry.
  Entries step(std::span<const CodeSlab> slabs, std::span<const double> counts,
               double ridge) const {
    const Index n = rows(slabs.size());
    Square normal(n, n);
    Entries now(n, kSlabColumns), right(n, kSlabColumns);
    for (Index i = 0; i < n; ++i) {
      const auto s = static_cast<size_t>(i) / kCodebookEntries;
      const auto e = static_cast<size_t>(i) % kCodebookEntries;
      const Index seen = rows(s + 1);  // the rows of no later stage
      normal.row(i).head(seen) = counts[s] * pairs_.row(i).head(seen);
      normal.col(i).head(seen) = normal.row(i).head(seen).transpose();
      right.row(i) = counts[s] * sums_.row(i);
      for (size_t c = 0; c < kSlabColumns; ++c) {
        now(i, static_cast<Index>(c)) = static_cast<double>(slabs[s].codebook.entry[c][e]);
      }
    }
    right -= normal * now;
    for (Index i = 0; i < n; ++i) {
      normal(i, i) += ridge * counts[static_cast<size_t>(i) / kCodebookEntries];
    }
    return normal.llt().solve(right);
  }

  double weight = 0;                                         // of the tokens
  std::vector<double> errors;                                // by prefix, none first
  std::array<double, kSlabColumns> variance{};               // of the tokens' columns
  std::vector<std::array<double, kSlabColumns>> covariance;  // by stage: tokens and their decoding

 private:
  static Index rows(size_t stages) { return static_cast<Index>(stages * kCodebookEntries); }

  static void add_error(const float* left, std::span<const float> weights, double& error) {
    for (size_t t = 0; t < kBlockTokens; ++t) {
      float square = 0.0f;
      for (size_t c = 0; c < kSlabColumns; ++c) {
        square += left[c * kBlockTokens + t] * left[c * kBlockTokens + t];
      }
      error += static_cast<double>(weights[t] * square);
    }
  }
  // Codes that meet in a token, the later stage's row first; all columns of the same stage too.
  void count(const float* tokens, size_t stride, std::span<const float> weights) {
    double* pairs = pairs_.data();  // column by column
    const Index n = pairs_.rows();
    for (size_t t = 0; t < kBlockTokens; ++t) {
      const double w = static_cast<double>(weights[t]);
      if (w == 0.0) continue;
      weight += w;
      for (size_t s = 0; s < codes_.size(); ++s) {
        const Index row = codes_[s][t];
        for (size_t before = 0; before <= s; ++before) pairs[codes_[before][t] * n + row] += w;
        for (size_t c = 0; c < kSlabColumns; ++c) {
          sums_(row, static_cast<Index>(c)) += w * static_cast<double>(tokens[c * stride + t]);
        }
      }
    }
  }

  Square pairs_;  // weight of the tokens that chose both, where the row's stage is not the earlier
  Entries sums_;  // of the tokens that chose it, weighted
  std::vector<std::array<uint16_t, kBlockTokens>> codes_;  // rows, of the block at hand
};

// The slabs on four columns.
class Stages {
 public:
  Stages(const Matrix<float>& latents, std::span<const float> weights, size_t first_column,
         const JointOptions& options)
      : latents_(latents), weights_(weights), first_(first_column), options_(options) {}

  // Leaves the best of what was tried in `slabs`, the start included, and returns its account.
  Account fit(std::vector<CodeSlab>& slabs) const {
    Account best = account(slabs, 0, 1);
    if (slabs.empty()) return best;
    std::vector<CodeSlab> moved = slabs;
    Account seen = best;
    for (size_t round = 0; round < options_.rounds; ++round) {
      const bool full = round + options_.last_full >= options_.rounds;
      move(seen, moved);
      seen = full ? account(moved, 0, 1) : account(moved, round % options_.parts, options_.parts);
      if (full && objective(seen) < objective(best)) {
        best = seen;
        slabs = moved;
      }
    }
    return best;
  }

 private:
  Account account(std::span<const CodeSlab> slabs, size_t part, size_t parts) const {
    Account seen(slabs.size());
    for (size_t block = part; block < latents_.cols() / kBlockTokens; block += parts) {
      const size_t at = block * kBlockTokens;
      seen.add(slabs, latents_.row(first_).data() + at, latents_.cols(),
               weights_.subspan(at, kBlockTokens));
    }
    return seen;
  }
  double objective(const Account& seen) const {
    double sum = 0.0;
    for (size_t depth = 1; depth < seen.errors.size(); ++depth) {
      sum += options_.depth_power == 1.0
                 ? std::log(floored(seen, depth))
                 : std::pow(floored(seen, depth), 1.0 - options_.depth_power);
    }
    return sum;
  }
  static double floored(const Account& seen, size_t depth) {
    return std::max({seen.errors[depth], 1e-9 * seen.errors[0], 1e-30});
  }
  void move(const Account& seen, std::span<CodeSlab> slabs) const {
    std::vector<double> counts(slabs.size());
    double sum = 0.0;
    for (size_t s = slabs.size(); s-- > 0;) {
      sum += std::pow(floored(seen, s + 1) / floored(seen, slabs.size()), -options_.depth_power);
      counts[s] = sum;
    }
    const Entries step = seen.step(slabs, counts, options_.ridge * seen.weight / kCodebookEntries);
    if (!step.allFinite()) return;
    for (size_t s = 0; s < slabs.size(); ++s) {
      for (size_t c = 0; c < kSlabColumns; ++c) {
        for (size_t e = 0; e < kCodebookEntries; ++e) {
          float& x = slabs[s].codebook.entry[c][e];
          const double to =
              static_cast<double>(x) +
              step(static_cast<Index>(s * kCodebookEntries + e), static_cast<Index>(c));
          x = f16_to_f32(f32_to_f16(static_cast<float>(to)));  // the nest file's precision
        }
      }
    }
  }

  const Matrix<float>& latents_;
  const std::span<const float> weights_;
  const size_t first_;
  const JointOptions& options_;
};

struct Fitted {
  CodeSlab slab;
  double gain = 0, least = 0;  // least: of it and those before it on the same columns
};

}  // namespace

SpaceCode refit_codebooks(const Matrix<float>& latents, std::span<const float> weights,
                          std::span<const CodeSlab> slabs, const JointOptions& options) {
  SpaceCode code;
  std::vector<Fitted> fitted;
  for (size_t first = 0; first + kSlabColumns <= latents.rows(); first += kSlabColumns) {
    std::vector<CodeSlab> stages;
    std::ranges::copy_if(slabs, std::back_inserter(stages),
                         [&](const CodeSlab& slab) { return slab.first_column == first; });
    const Account seen = Stages(latents, weights, first, options).fit(stages);
    code.energy += seen.errors[0] / seen.weight;
    double least = std::numeric_limits<double>::infinity();
    for (size_t s = 0; s < stages.size(); ++s) {
      for (size_t c = 0; c < kSlabColumns; ++c) {
        stages[s].scale[c] = unbiased_scale(seen.variance[c], seen.covariance[s][c]);
      }
      const double gain = (seen.errors[s] - seen.errors[s + 1]) / seen.weight;
      least = std::min(least, gain);
      fitted.push_back({stages[s], gain, least});
    }
  }
  std::ranges::stable_sort(fitted, std::ranges::greater{}, &Fitted::least);
  for (const Fitted& one : fitted) {
    code.slabs.push_back(one.slab);
    code.gains.push_back(one.gain);
  }
  return code;
}

}  // namespace mkv
