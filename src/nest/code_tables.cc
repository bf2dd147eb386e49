#include "nest/code_tables.h"

#include <algorithm>
#include <cmath>

namespace mkv {
namespace {

// Up to this many slabs one plane is precise enough: what is coded with 3 bits a column has an
// error of about a sixth of the column's spread, a byte's rounding one of a hundredth.
constexpr size_t kSlabsOfOnePlane = 3;
// A plane's sums must stay within a byte; more slabs are split.
constexpr size_t kMostSlabs = 32;

using Entries = std::vector<float>;  // [slab][column][16]

// Adds a plane of `entries` rounded to bytes and leaves in `entries` what the rounding lost.
void add_plane(std::span<const uint16_t> slabs, size_t first_column, std::span<const float> scale,
               Entries& entries, CodePlanes& out) {
  CodePlanes::Plane plane{.first_column = first_column,
                          .begin = out.slabs.size(),
                          .end = out.slabs.size() + slabs.size(),
                          .scale = {}};
  out.slabs.insert(out.slabs.end(), slabs.begin(), slabs.end());
  out.entries.resize(plane.end * kSlabColumns * kCodebookEntries);
  for (size_t c = 0; c < kSlabColumns; ++c) {
    float reach = 0.0f;
    for (size_t s = 0; s < slabs.size(); ++s) {
      float largest = 0.0f;
      for (size_t e = 0; e < kCodebookEntries; ++e) {
        largest =
            std::max(largest, std::abs(entries[(s * kSlabColumns + c) * kCodebookEntries + e]));
      }
      reach += largest;
    }
    // Rounding adds up to one half a slab.
    const float unit = reach / (127.0f - 0.5f * static_cast<float>(slabs.size()));
    plane.scale[c] = unit * scale[first_column + c];
    for (size_t s = 0; s < slabs.size(); ++s) {
      for (size_t e = 0; e < kCodebookEntries; ++e) {
        float& entry = entries[(s * kSlabColumns + c) * kCodebookEntries + e];
        const float rounded = unit > 0.0f ? std::round(entry / unit) : 0.0f;
        out.entries[((plane.begin + s) * kSlabColumns + c) * kCodebookEntries + e] =
            static_cast<int8_t>(rounded);
        entry -= rounded * unit;
      }
    }
  }
  out.planes.push_back(plane);
}

}  // namespace

CodePlanes make_code_planes(std::span<const CodeSlab> slabs, std::span<const float> scale) {
  CodePlanes out;
  std::vector<std::vector<uint16_t>> by_column(scale.size());
  for (size_t s = 0; s < slabs.size(); ++s) {
    by_column[slabs[s].first_column].push_back(static_cast<uint16_t>(s));
  }
  for (size_t column = 0; column < by_column.size(); ++column) {
    const std::span<const uint16_t> all = by_column[column];
    for (size_t from = 0; from < all.size(); from += kMostSlabs) {
      const auto part = all.subspan(from, std::min(kMostSlabs, all.size() - from));
      Entries entries;
      for (const uint16_t s : part) {
        for (const auto& of_column : slabs[s].codebook.entry) {
          entries.insert(entries.end(), std::begin(of_column), std::end(of_column));
        }
      }
      add_plane(part, column, scale, entries, out);
      if (all.size() > kSlabsOfOnePlane) add_plane(part, column, scale, entries, out);
    }
  }
  return out;
}

}  // namespace mkv
