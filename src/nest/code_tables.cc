#include "nest/code_tables.h"

#include <algorithm>
#include <cmath>

namespace mkv {
namespace {

// The most that rounding to bytes may add to a plane's columns (standard deviation), against what
// the last slab of the columns holds (root mean square). What the codes lose is about a half of
// that: so a fortieth of their error in squares, and a tenth where that saves the columns a second
// plane.
constexpr float kMostRounding = 0.08f, kMostOfOnePlane = 0.16f;
// A plane's sums must stay within a byte; more slabs are split.
constexpr size_t kMostSlabs = 32;

using Entries = std::vector<float>;  // [slab][column][16]

float& entry_of(Entries& entries, size_t slab, size_t column, size_t e) {
  return entries[(slab * kSlabColumns + column) * kCodebookEntries + e];
}

float largest_of(Entries& entries, size_t slab, size_t column) {
  float largest = 0.0f;
  for (size_t e = 0; e < kCodebookEntries; ++e) {
    largest = std::max(largest, std::abs(entry_of(entries, slab, column, e)));
  }
  return largest;
}

// What one step of a byte is for a column of slabs [begin, end): rounding adds up to one half a
// slab to the largest sum.
float unit_of(Entries& entries, size_t begin, size_t end, size_t column) {
  float reach = 0.0f;
  for (size_t s = begin; s < end; ++s) reach += largest_of(entries, s, column);
  return reach / (127.0f - 0.5f * static_cast<float>(end - begin));
}

// Variance of the rounding of slabs [begin, end), over the four columns.
float rounding_of(Entries& entries, size_t begin, size_t end) {
  float sum = 0.0f;
  for (size_t c = 0; c < kSlabColumns; ++c) {
    const float unit = unit_of(entries, begin, end, c);
    sum += static_cast<float>(end - begin) * unit * unit / 12.0f;
  }
  return sum;
}

float mean_square(Entries& entries, size_t slab) {
  float sum = 0.0f;
  for (size_t i = 0; i < kSlabColumns * kCodebookEntries; ++i) {
    const float x = entries[slab * kSlabColumns * kCodebookEntries + i];
    sum += x * x;
  }
  return sum / kCodebookEntries;
}

// Adds a plane of slabs [begin, end) of four columns, rounded to bytes, and leaves in `entries`
// what the rounding lost.
void add_plane(std::span<const uint16_t> slabs, size_t begin, size_t end, size_t first_column,
               std::span<const float> scale, Entries& entries, CodePlanes& out) {
  CodePlanes::Plane plane{.first_column = first_column,
                          .begin = out.slabs.size(),
                          .end = out.slabs.size() + end - begin,
                          .scale = {}};
  out.slabs.insert(out.slabs.end(), slabs.begin() + static_cast<std::ptrdiff_t>(begin),
                   slabs.begin() + static_cast<std::ptrdiff_t>(end));
  out.entries.resize(plane.end * kSlabColumns * kCodebookEntries);
  for (size_t c = 0; c < kSlabColumns; ++c) {
    const float unit = unit_of(entries, begin, end, c);
    plane.scale[c] = unit * scale[first_column + c];
    for (size_t s = begin; s < end; ++s) {
      for (size_t e = 0; e < kCodebookEntries; ++e) {
        float& entry = entry_of(entries, s, c, e);
        const float rounded = unit > 0.0f ? std::round(entry / unit) : 0.0f;
        out.entries[((plane.begin + s - begin) * kSlabColumns + c) * kCodebookEntries + e] =
            static_cast<int8_t>(rounded);
        entry -= rounded * unit;
      }
    }
  }
  out.planes.push_back(plane);
}

// Of slabs [begin, end): whether their rounding is at most `most` of what the last slab holds.
bool is_precise(Entries& entries, size_t begin, size_t end, float most, float last) {
  return rounding_of(entries, begin, end) <= most * most * last;
}

// The end of the coarsest of slabs [begin, end), as few as make a plane precise of all finer ones
// and of what a plane of them lost.
size_t coarse_end(std::span<const uint16_t> slabs, size_t begin, size_t end,
                  std::span<const float> scale, const Entries& entries, float last) {
  for (size_t coarse = begin + 1; coarse < end; ++coarse) {
    Entries rest = entries;
    CodePlanes tried;
    add_plane(slabs, begin, coarse, 0, scale, rest, tried);
    if (is_precise(rest, begin, end, kMostRounding, last)) return coarse;
  }
  return end;
}

// One plane of all slabs where that is precise enough; else the coarsest ones have one before it.
void add_planes(std::span<const uint16_t> slabs, size_t first_column, std::span<const float> scale,
                Entries& entries, CodePlanes& out) {
  const float last = mean_square(entries, slabs.size() - 1);
  for (size_t begin = 0; begin < slabs.size(); begin += kMostSlabs) {
    const size_t end = std::min(slabs.size(), begin + kMostSlabs);
    if (!is_precise(entries, begin, end, kMostOfOnePlane, last)) {
      const size_t coarse = coarse_end(slabs, begin, end, scale, entries, last);
      add_plane(slabs, begin, coarse, first_column, scale, entries, out);
    }
    add_plane(slabs, begin, end, first_column, scale, entries, out);
  }
}

}  // namespace

ColumnMoments moments_of(std::span<const CodeSlab> slabs, size_t columns) {
  ColumnMoments moments{std::vector<float>(columns), std::vector<float>(columns)};
  for (const CodeSlab& slab : slabs) {
    for (size_t c = 0; c < kSlabColumns; ++c) {
      float sum = 0.0f, squares = 0.0f;
      for (const float x : slab.codebook.entry[c]) {
        sum += x;
        squares += x * x;
      }
      const float mean = sum / kCodebookEntries;
      moments.mean[slab.first_column + c] += mean;
      moments.variance[slab.first_column + c] += squares / kCodebookEntries - mean * mean;
    }
  }
  return moments;
}

CodePlanes make_code_planes(std::span<const CodeSlab> slabs, std::span<const float> scale) {
  CodePlanes out;
  std::vector<std::vector<uint16_t>> by_column(scale.size());
  for (size_t s = 0; s < slabs.size(); ++s) {
    by_column[slabs[s].first_column].push_back(static_cast<uint16_t>(s));
  }
  for (size_t column = 0; column < by_column.size(); ++column) {
    const std::span<const uint16_t> all = by_column[column];
    if (all.empty()) continue;
    Entries entries;
    for (const uint16_t s : all) {
      for (const auto& of_column : slabs[s].codebook.entry) {
        entries.insert(entries.end(), std::begin(of_column), std::end(of_column));
      }
    }
    add_planes(all, column, scale, entries, out);
  }
  return out;
}

}  // namespace mkv
