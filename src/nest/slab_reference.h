// Scalar references of nest/slab_kernels.h, for tests.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>

#include "nest/score_bytes.h"
#include "nest/slab_kernels.h"

namespace mkv::reference {

inline unsigned code_at(const uint8_t* codes, size_t t) {
  return t < 32 ? codes[t] & 15u : codes[t - 32] >> 4;
}

inline void encode_slab(const Codebook& codebook, float* residual, size_t stride, uint8_t* codes) {
  const auto half_norms = codebook.half_norms();
  for (size_t i = 0; i < 32; ++i) codes[i] = 0;
  for (size_t t = 0; t < 64; ++t) {
    unsigned best = 0;
    float least = 0.0f;
    for (unsigned e = 0; e < kCodebookEntries; ++e) {
      float cost = half_norms[e];
      for (size_t c = 0; c < kSlabColumns; ++c) {
        cost -= residual[c * stride + t] * codebook.entry[c][e];
      }
      if (e == 0 || cost < least) {
        best = e;
        least = cost;
      }
    }
    for (size_t c = 0; c < kSlabColumns; ++c) {
      residual[c * stride + t] -= codebook.entry[c][best];
    }
    codes[t % 32] = static_cast<uint8_t>(codes[t % 32] | (t < 32 ? best : best << 4));
  }
}

inline void expand_slab(const Codebook& codebook, const uint8_t* codes, float* rows,
                        size_t stride) {
  for (size_t t = 0; t < 64; ++t) {
    for (size_t c = 0; c < kSlabColumns; ++c) {
      rows[c * stride + t] += codebook.entry[c][code_at(codes, t)];
    }
  }
}

inline void tabulate_slabs(std::span<const CodeSlab> slabs, const float* query, float* out) {
  for (size_t s = 0; s < slabs.size(); ++s) {
    for (size_t e = 0; e < kCodebookEntries; ++e) {
      float& sum = out[s * kCodebookEntries + e] = 0.0f;
      for (size_t c = 0; c < kSlabColumns; ++c) {
        sum += query[slabs[s].first_column + c] * slabs[s].codebook.entry[c][e];
      }
    }
  }
}

// By tables of four slabs.
inline void score_fours(const ScoreTables& tables, Slabs which, const CodeBlocks& blocks,
                        std::span<const size_t> heads, View<float> scores) {
  const size_t fours = four_count(tables.slabs), singles = single_count(fours);
  const size_t leading = leading_slabs(tables.slabs);
  const bool is_leading = which == Slabs::leading;
  const size_t begin = is_leading ? 0 : leading, end = is_leading ? leading : tables.slabs;
  if (begin == end) return;
  for (const size_t h : heads) {
    const uint8_t* entries = tables.entries + h * fours * kFour * kCodebookEntries;
    const auto* factors =
        reinterpret_cast<const int8_t*>(tables.factors + h * factor_count(tables.slabs));
    const float base =
        is_leading ? tables.base[h] + tables.expected[h] : tables.rest_base[h] - tables.expected[h];
    for (size_t i = 0; i < blocks.count * 64; ++i) {
      int sum = 0;
      for (size_t s = begin; s < end; ++s) {
        const uint8_t* codes = blocks.data + i / 64 * blocks.stride + s * 32;
        const size_t four = s / kFour;
        const size_t factor = four < singles ? four : singles + (four - singles) / 2;
        sum += factors[factor * kFour + s % kFour] *
               entries[s * kCodebookEntries + code_at(codes, i % 64)];
      }
      scores.at(h, i) += base + tables.unit[h] * static_cast<float>(sum);
    }
  }
}

inline void score_bytes(const ScoreTables& tables, Slabs which, const CodeBlocks& blocks,
                        std::span<const size_t> heads, View<float> scores) {
  const auto [first_part, end_part] = parts_of(which, tables.slabs);
  for (const size_t h : heads) {
    for (size_t p = first_part; p < end_part; ++p) {
      const ByteTables& part = tables.bytes[h * part_count(tables.slabs) + p];
      const float sign = which == Slabs::leading ? 1.0f : -1.0f;
      const float more = p == first_part ? sign * tables.expected[h] : 0.0f;
      for (size_t i = 0; i < blocks.count * 64; ++i) {
        const uint8_t* codes =
            blocks.data + i / 64 * blocks.stride + part_slabs(tables.slabs, p).begin * 32;
        unsigned sum = 0;
        size_t at = 0;
        for (const uint16_t end : part.end) {
          sum *= 2;
          for (; at < end; ++at) {
            sum += part.entries[at][code_at(codes + part.codes[at] / kSpreadCodes * 32, i % 64)];
          }
        }
        scores.at(h, i) += part.base + more + part.unit * static_cast<float>(sum);
      }
    }
  }
}

inline Softened soften_to_bytes(std::span<const float> scores, float top, uint8_t* weights) {
  Softened out{.unit = 1.0f / 127.0f};
  for (size_t t = 0; t < scores.size(); ++t) {
    const float weight = std::exp(scores[t] - top);
    out.sum += weight;
    weights[t] = static_cast<uint8_t>(std::lrint(weight / out.unit));
  }
  return out;
}

inline void weigh_slabs(const CodePlanes& planes, const CodeBlocks& blocks, const uint8_t* weights,
                        std::span<const float> factor, View<float> sums) {
  for (const CodePlanes::Plane& plane : planes.planes) {
    for (size_t h = 0; h < sums.rows; ++h) {
      for (size_t c = 0; c < kSlabColumns; ++c) {
        int sum = 0;
        for (size_t i = 0; i < blocks.count * 64; ++i) {
          for (size_t s = plane.begin; s < plane.end; ++s) {
            const uint8_t* codes = blocks.data + i / 64 * blocks.stride + planes.slabs[s] * 32;
            sum +=
                weights[h * kWeighBlocks * 64 + i] *
                planes.entries[(s * kSlabColumns + c) * kCodebookEntries + code_at(codes, i % 64)];
          }
        }
        sums.at(h, plane.first_column + c) += factor[h] * plane.scale[c] * static_cast<float>(sum);
      }
    }
  }
}

}  // namespace mkv::reference
