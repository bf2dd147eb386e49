// The plain twin of beam_kernels.h: what tests compare with.
#pragma once

#include <algorithm>
#include <array>
#include <vector>

#include "nest/nest.h"

namespace mkv::reference {

struct BeamPath {
  std::array<float, kSlabColumns> left{};
  std::vector<uint8_t> codes;
  float cost = 0;  // squared length of what is left
};

// Of one token: the best path.
inline BeamPath encode_beam(std::span<const CodeSlab* const> stages,
                            std::array<float, kSlabColumns> token, size_t beam) {
  std::vector<BeamPath> paths{{token, {}, 0}};
  for (const CodeSlab* stage : stages) {
    std::vector<BeamPath> longer;
    for (const BeamPath& path : paths) {
      for (size_t e = 0; e < kCodebookEntries; ++e) {
        BeamPath next = path;
        next.cost = 0;
        for (size_t c = 0; c < kSlabColumns; ++c) {
          next.left[c] -= stage->codebook.entry[c][e];
          next.cost += next.left[c] * next.left[c];
        }
        next.codes.push_back(static_cast<uint8_t>(e));
        longer.push_back(std::move(next));
      }
    }
    std::ranges::stable_sort(longer, {}, &BeamPath::cost);
    longer.resize(std::min(beam, longer.size()));
    paths = std::move(longer);
  }
  return paths.front();
}

}  // namespace mkv::reference
