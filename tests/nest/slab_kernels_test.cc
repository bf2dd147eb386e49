#include "nest/slab_kernels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <utility>

#include "nest/fixture.h"
#include "nest/score_bytes.h"
#include "nest/slab_reference.h"
#include "ops/each_instruction_set.h"

namespace mkv {
namespace {

Codebook random_codebook(uint64_t seed) {
  Rng rng(seed);
  Codebook codebook;
  for (auto& column : codebook.entry) {
    for (float& x : column) x = static_cast<float>(rng.normal());
  }
  return codebook;
}

TEST(SlabKernels, CodesAndResidualsEqualTheReference) {
  for_each_instruction_set([] {
    for (uint64_t seed = 0; seed < 20; ++seed) {
      const Codebook codebook = random_codebook(seed);
      Matrix<float> expected = random_matrix(kSlabColumns, 67, seed + 100);
      Matrix<float> actual = expected.clone();
      std::array<uint8_t, 32> expected_codes{}, codes{};
      reference::encode_slab(codebook, expected.data() + 3, 67, expected_codes.data());
      encode_slab(codebook, actual.data() + 3, 67, codes.data());
      size_t differing = 0;  // fused arithmetic may break a tie of two entries the other way
      for (size_t t = 0; t < 64; ++t) {
        const bool same =
            reference::code_at(codes.data(), t) == reference::code_at(expected_codes.data(), t);
        differing += same ? 0 : 1;
        for (size_t c = 0; same && c < kSlabColumns; ++c) {
          EXPECT_EQ(actual.at(c, t + 3), expected.at(c, t + 3));
        }
      }
      EXPECT_LE(differing, 1u);
    }
  });
}

TEST(SlabKernels, ExpansionEqualsTheReference) {
  for_each_instruction_set([] {
    for (uint64_t seed = 0; seed < 20; ++seed) {
      const Codebook codebook = random_codebook(seed);
      Rng rng(seed);
      std::array<uint8_t, 33> codes{};
      for (uint8_t& code : codes) code = static_cast<uint8_t>(rng.below(256));
      Matrix<float> expected = random_matrix(kSlabColumns, 65, seed), actual = expected.clone();
      reference::expand_slab(codebook, codes.data() + 1, expected.data() + 1, 65);
      expand_slab(codebook, codes.data() + 1, actual.data() + 1, 65);
      for (size_t i = 0; i < expected.span().size(); ++i) {
        EXPECT_EQ(actual.span()[i], expected.span()[i]);
      }
    }
  });
}

TEST(SlabKernels, WhatIsTakenOffComesBack) {
  const Codebook codebook = random_codebook(1);
  const Matrix<float> original = random_matrix(kSlabColumns, 64, 2);
  Matrix<float> residual = original.clone();
  std::array<uint8_t, 32> codes{};
  encode_slab(codebook, residual.data(), 64, codes.data());
  expand_slab(codebook, codes.data(), residual.data(), 64);
  for (size_t i = 0; i < original.span().size(); ++i) {
    EXPECT_NEAR(residual.span()[i], original.span()[i], 1e-6f);
  }
}

// Slabs over `columns` latent columns, the first of them many times, the last once or never.
std::vector<CodeSlab> random_slabs(size_t count, size_t columns, uint64_t seed) {
  std::vector<CodeSlab> slabs(count);
  std::vector<float> size(columns, 1.0f);  // shrinks from slab to slab, as residuals do
  Rng rng(seed);
  for (size_t s = 0; s < count; ++s) {
    const size_t groups = columns / kSlabColumns;
    slabs[s].first_column =
        static_cast<uint16_t>(kSlabColumns * std::min(rng.below(groups), rng.below(groups)));
    slabs[s].codebook = random_codebook(seed + s);
    for (auto& column : slabs[s].codebook.entry) {
      for (float& x : column) x *= size[slabs[s].first_column];
    }
    size[slabs[s].first_column] *= 0.6f;
  }
  return slabs;
}

std::vector<uint8_t> random_bytes(size_t count, uint64_t seed) {
  std::vector<uint8_t> bytes(count);
  Rng rng(seed);
  for (uint8_t& x : bytes) x = static_cast<uint8_t>(rng.below(256));
  return bytes;
}

TEST(SlabKernels, TablesEqualTheReference) {
  for_each_instruction_set([] {
    const std::vector<CodeSlab> slabs = random_slabs(13, 32, 4);
    const Matrix<float> query = random_matrix(1, 32, 5);
    Matrix<float> expected(13, kCodebookEntries), actual(13, kCodebookEntries);
    reference::tabulate_slabs(slabs, query.data(), expected.data());
    tabulate_slabs(slabs, query.data(), actual.data());
    for (size_t i = 0; i < expected.span().size(); ++i) {
      EXPECT_NEAR(actual.span()[i], expected.span()[i], 1e-5);
    }
  });
}

// Values [slabs][16] of slabs that get smaller, a few very much so.
std::vector<float> random_tables(size_t slabs, uint64_t seed) {
  Rng rng(seed);
  std::vector<float> values;
  for (size_t s = 0; s < slabs; ++s) {
    const double size = 30.0 * std::pow(0.9, double(s) * 40.0 / double(slabs));
    for (size_t e = 0; e < kCodebookEntries; ++e) {
      values.push_back(static_cast<float>(size * rng.normal() / (s % 7 == 6 ? 1000.0 : 1.0)));
    }
  }
  return values;
}

TEST(SlabKernels, BytesHoldTables) {
  for_each_instruction_set([] {
    for (const size_t slabs : {1u, 2u, 97u, 128u}) {
      const std::vector<float> values = random_tables(slabs, slabs);
      ByteTables tables;
      round_to_bytes(values.data(), slabs, &tables);
      std::vector<float> found(values.size());
      size_t at = 0;
      for (size_t c = 0; c < ByteTables::kClasses; ++c) {
        const float unit = tables.unit * static_cast<float>(1 << (ByteTables::kClasses - 1 - c));
        for (; at < tables.end[c]; ++at) {
          const size_t slab = tables.codes[at] / kSpreadCodes;
          for (size_t e = 0; e < kCodebookEntries; ++e) {
            EXPECT_LE(tables.entries[at][e], 127);
            found[slab * kCodebookEntries + e] += unit * tables.entries[at][e];
          }
        }
      }
      float base = 0.0f;
      for (size_t s = 0; s < slabs; ++s) {
        const std::span<const float> of_slab(values.data() + s * kCodebookEntries,
                                             kCodebookEntries);
        const auto [least, most] = std::ranges::minmax(of_slab);
        base += least;
        // A unit of its own 7 bits, of more where they are coarse, or the head's.
        const float range = most - least;
        const bool coarse = range > 127.0f * 16.0f * tables.unit;
        const float bound = std::max(tables.unit, range / (coarse ? 1000.0f : 126.0f));
        for (size_t e = 0; e < kCodebookEntries; ++e) {
          EXPECT_NEAR(found[s * kCodebookEntries + e], of_slab[e] - least, bound);
        }
      }
      EXPECT_FLOAT_EQ(tables.base, base);
    }
  });
}

TEST(SlabKernels, BytesOfEqualValuesAreTheirSum) {
  for_each_instruction_set([] {
    std::vector<float> values(2 * kCodebookEntries, 3.0f);
    std::fill_n(values.begin(), kCodebookEntries, -1.5f);
    ByteTables tables;
    round_to_bytes(values.data(), 2, &tables);
    const auto codes = random_bytes(2 * 32, 1);
    Matrix<float> scores(1, 64);
    scores.at(0, 63) = 1.0f;
    score_bytes(&tables, 2, {codes.data(), 64, 1, {}}, scores.view());
    EXPECT_EQ(scores.at(0, 0), 1.5f);
    EXPECT_EQ(scores.at(0, 63), 2.5f);
  });
}

TEST(SlabKernels, ScoresFromBytesEqualTheReference) {
  for_each_instruction_set([] {
    for (const size_t heads : {1u, 3u, 9u}) {
      for (const size_t slabs : {0u, 1u, 5u, 70u, 128u, 301u}) {
        for (const size_t blocks : {1u, 2u, 3u, 8u}) {
          std::vector<ByteTables> tables(heads * part_count(slabs));
          for (size_t h = 0; h < heads; ++h) {
            round_to_bytes(random_tables(slabs, h).data(), slabs,
                           tables.data() + h * part_count(slabs));
          }
          const size_t stride = slabs * 32 + 5;
          const auto codes = random_bytes(blocks * stride + 1, slabs);
          Matrix<float> expected = random_matrix(heads, blocks * 64, 8), actual = expected.clone();
          const CodeBlocks view{codes.data() + 1, stride, blocks, {}};
          reference::score_bytes(tables.data(), slabs, view, expected.view());
          score_bytes(tables.data(), slabs, view, actual.view());
          for (size_t i = 0; i < expected.span().size(); ++i) {
            // A hundredth of a unit; bases are large.
            EXPECT_NEAR(actual.span()[i], expected.span()[i], 1e-3f);
          }
        }
      }
    }
  });
}

// Tables by fours of some heads, with room of their own.
struct Fours {
  Fours(size_t slabs, size_t heads)
      : entries(heads * four_count(slabs) * kFour * kCodebookEntries, 1),
        factors(heads * factor_count(slabs), -1),
        unit(heads),
        base(heads) {
    tables = {.slabs = slabs,
              .heads = heads,
              .entries = entries.data(),
              .factors = factors.data(),
              .unit = unit.data(),
              .base = base.data()};
  }
  const int8_t* factors_of(size_t head) const {
    return reinterpret_cast<const int8_t*>(factors.data() + head * factor_count(tables.slabs));
  }
  const uint8_t* entries_of(size_t head) const {
    return entries.data() + head * four_count(tables.slabs) * kFour * kCodebookEntries;
  }

  std::vector<uint8_t> entries;
  std::vector<int32_t> factors;
  std::vector<float> unit, base;
  ScoreTables tables;
};

TEST(SlabKernels, FoursHoldTables) {
  for_each_instruction_set([] {
    for (const size_t slabs : {1u, 2u, 5u, 30u, 96u, 301u}) {
      Fours fours(slabs, 2);
      const std::vector<float> values = random_tables(slabs, slabs);
      round_to_fours(values.data(), 1, fours.tables);
      const size_t count = four_count(slabs), singles = single_count(count);
      float base = 0.0f, largest = 0.0f;
      std::vector<float> least(count * kFour), range(count * kFour);
      for (size_t s = 0; s < slabs; ++s) {
        const auto [low, high] =
            std::ranges::minmax(std::span(values).subspan(s * kCodebookEntries, kCodebookEntries));
        base += low;
        least[s] = low;
        range[s] = high - low;
      }
      EXPECT_NEAR(fours.base[1], base, 1e-5f * std::abs(base));
      // What a factor is for: the slab and, but for the leading fours, the one of the next four.
      const auto reach = [&](size_t four, size_t slab) {
        const size_t s = four * kFour + slab;
        return four < singles ? range[s] / 255.0f : (range[s] + range[s + kFour]) / 254.0f;
      };
      for (size_t f = 0; f < count; f += f < singles ? 1 : 2) {
        for (size_t slab = 0; slab < kFour; ++slab) largest = std::max(largest, reach(f, slab));
      }
      EXPECT_FLOAT_EQ(fours.unit[1], largest / 127.0f);
      const int8_t* factor = fours.factors_of(1);
      for (size_t f = 0, step = 1; f < count; f += step) {
        step = f < singles ? 1 : 2;
        for (size_t slab = 0; slab < kFour; ++slab, ++factor) {
          ASSERT_GE(*factor, 1);
          const float unit = fours.unit[1] * static_cast<float>(*factor);
          EXPECT_LE(unit, 1.001f * reach(f, slab) + fours.unit[1]);
          int most = 0;
          for (size_t i = 0; i < step; ++i) {
            const size_t s = (f + i) * kFour + slab;
            const uint8_t* entries = fours.entries_of(1) + s * kCodebookEntries;
            most += *std::max_element(entries, entries + kCodebookEntries);
            for (size_t e = 0; e < kCodebookEntries; ++e) {
              const float value = s < slabs ? values[s * kCodebookEntries + e] - least[s] : 0.0f;
              EXPECT_NEAR(unit * entries[e], value, 0.501f * unit);
            }
          }
          EXPECT_LE(most, 255);  // the sum of two look-ups is a byte
        }
      }
      EXPECT_EQ(fours.factors_of(0)[0], -1);  // other heads' are as they were
    }
  });
}

TEST(SlabKernels, FoursOfEqualValuesAreTheirSum) {
  for_each_instruction_set([] {
    std::vector<float> values(2 * kCodebookEntries, 3.0f);
    std::fill_n(values.begin(), kCodebookEntries, -1.5f);
    Fours fours(2, 1);
    round_to_fours(values.data(), 0, fours.tables);
    const auto codes = random_bytes(2 * 32, 1);
    Matrix<float> scores(1, 64);
    reference::score_slabs(fours.tables, {codes.data(), 64, 1, {}}, scores.view());
    EXPECT_EQ(scores.at(0, 5), 1.5f);
  });
}

TEST(SlabKernels, ScoresFromFoursEqualTheReference) {
  for_each_instruction_set([] {
    if (!scores_by_fours()) return;
    for (const size_t heads : {1u, 2u, 3u, 7u, 9u}) {
      for (const size_t slabs : {0u, 1u, 2u, 5u, 70u, 127u, 128u, 129u, 302u}) {
        for (const size_t blocks : {1u, 2u, 3u, 8u}) {
          Rng rng(heads + slabs);
          Fours fours(slabs, heads);
          for (size_t h = 0; h < heads; ++h) {
            round_to_fours(random_tables(slabs, h).data(), h, fours.tables);
          }
          const size_t stride = slabs * 32 + 5;
          const auto codes = random_bytes(blocks * stride - 5 + 1, slabs);
          Matrix<float> expected = random_matrix(heads, blocks * 64, 8), actual = expected.clone();
          const CodeBlocks view{codes.data() + 1, stride, blocks, {}};
          reference::score_slabs(fours.tables, view, expected.view());
          score_slabs(fours.tables, view, actual.view());
          for (size_t i = 0; i < expected.span().size(); ++i) {
            EXPECT_NEAR(actual.span()[i], expected.span()[i],
                        1e-6f * std::abs(expected.span()[i]) + 1e-3f);
          }
        }
      }
    }
  });
}

TEST(SlabKernels, ScoresAreTheSumsOfValues) {
  for_each_instruction_set([] {
    const size_t slabs = 150, heads = 3, blocks = 2;
    Fours fours(slabs, heads);
    std::vector<ByteTables> bytes(heads * part_count(slabs));
    ScoreTables tables = fours.tables;
    tables.bytes = bytes.data();
    const auto codes = random_bytes(blocks * slabs * 32, 4);
    const CodeBlocks view{codes.data(), slabs * 32, blocks, {}};
    Matrix<float> expected(heads, blocks * 64), actual(heads, blocks * 64);
    std::vector<float> reach(heads);
    for (size_t h = 0; h < heads; ++h) {
      const std::vector<float> values = random_tables(slabs, h);
      for (size_t s = 0; s < slabs; ++s) {
        const float* of_slab = values.data() + s * kCodebookEntries;
        float largest = 0.0f;
        for (size_t e = 0; e < kCodebookEntries; ++e) {
          largest = std::max(largest, std::abs(of_slab[e]));
        }
        reach[h] += largest;
        for (size_t i = 0; i < blocks * 64; ++i) {
          expected.at(h, i) +=
              of_slab[reference::code_at(codes.data() + i / 64 * view.stride + s * 32, i % 64)];
        }
      }
      round_tables(values.data(), h, tables);
    }
    score_slabs(tables, view, actual.view());
    for (size_t h = 0; h < heads; ++h) {
      double square = 0.0;
      for (size_t i = 0; i < blocks * 64; ++i) {
        EXPECT_NEAR(actual.at(h, i), expected.at(h, i), 4e-3f * reach[h]);
        square += std::pow(actual.at(h, i) - expected.at(h, i), 2);
      }
      EXPECT_LE(std::sqrt(square / (blocks * 64)), 1.2e-3 * reach[h]);
    }
  });
}

// Scores of a softmax, the largest 0: a few large weights, and the flatter the more.
std::vector<float> softmax_scores(size_t size, double flatness, uint64_t seed) {
  Rng rng(seed);
  std::vector<float> scores(size);
  for (float& x : scores) x = static_cast<float>(std::log(rng.uniform()) / flatness);
  const float largest = *std::ranges::max_element(scores);
  for (float& x : scores) x -= largest;
  return scores;
}

TEST(SlabKernels, WeightsAreRoundedToTheLargest) {
  for_each_instruction_set([] {
    const float most = has_vnni() ? 255.0f : 127.0f;
    for (const size_t size : {64u, 128u, 256u}) {
      for (const double flatness : {0.002, 1.0, 1e6}) {
        std::vector<float> scores = softmax_scores(size, flatness, size);
        const float top = 5.0f;  // any
        for (float& x : scores) x += top;
        std::vector<uint8_t> weights(size);
        const auto [unit, sum] = soften_to_bytes(scores, top, weights.data());
        EXPECT_GE(unit, 1.0f / 255.1f);
        // 16 tokens of the largest weight may have to fit a word; few do where the rest is small.
        EXPECT_LE(unit, (flatness < 0.1 ? 1.0f / 127.0f : 16.0f / 250.0f) * 1.01f);
        double expected = 0.0;
        for (size_t t = 0; t < size; ++t) {
          const double weight = std::exp(double(scores[t]) - double(top));
          expected += weight;
          EXPECT_NEAR(static_cast<float>(weights[t]) * unit, weight, 0.501f * unit);
        }
        EXPECT_NEAR(sum, expected, 1e-6 * expected);
      }
      std::vector<uint8_t> weights(size, 1);
      std::vector<float> single(size, -HUGE_VALF);  // what is not seen
      single[size / 2] = 3.0f;                      // nothing else limits the unit
      const auto [unit, sum] = soften_to_bytes(single, 3.0f, weights.data());
      EXPECT_FLOAT_EQ(unit, 1.0f / most);
      EXPECT_EQ(sum, 1.0f);
      EXPECT_EQ(weights[size / 2], most);
      EXPECT_EQ(std::ranges::count(weights, 0), ptrdiff_t(size) - 1);
    }
  });
}

TEST(SlabKernels, WeighedSumsEqualTheReference) {
  for_each_instruction_set([] {
    for (const size_t heads : {1u, 3u, 9u, 16u}) {
      for (const size_t blocks : {1u, 3u, 4u}) {
        const size_t count = 37, columns = 48, stride = count * 32 + 3;
        const auto slabs = random_slabs(count, columns, heads);
        const Matrix<float> scale = random_matrix(1, columns, 6),
                            factor = random_matrix(1, heads, 7);
        CodePlanes planes = make_code_planes(slabs, scale.row(0));
        const auto codes = random_bytes(blocks * stride + 3, 2);
        std::vector<uint8_t> weights(heads * kWeighBlocks * 64);
        for (size_t h = 0; h < heads; ++h) {  // from flat ones to a single one
          const double flatness = std::pow(10.0, 6.0 - double(h));
          soften_to_bytes(softmax_scores(blocks * 64, flatness, h), 0.0f,
                          weights.data() + h * kWeighBlocks * 64);
        }
        const CodeBlocks view{codes.data() + 3, stride, blocks};
        Matrix<float> expected = random_matrix(heads, columns, 8), actual = expected.clone();
        reference::weigh_slabs(planes, view, weights.data(), factor.row(0), expected.view());
        weigh_slabs(planes, view, weights.data(), factor.row(0), actual.view());
        // Planes of one column nearly cancel each other, the more so the larger the weights are.
        Matrix<float> magnitude(heads, columns);
        for (const CodePlanes::Plane& plane : std::exchange(planes.planes, {})) {
          planes.planes = {plane};
          Matrix<float> part(heads, columns);
          reference::weigh_slabs(planes, view, weights.data(), factor.row(0), part.view());
          for (size_t i = 0; i < part.span().size(); ++i) {
            magnitude.span()[i] += std::abs(part.span()[i]);
          }
        }
        for (size_t i = 0; i < expected.span().size(); ++i) {
          EXPECT_NEAR(actual.span()[i], expected.span()[i], 1e-6f * magnitude.span()[i] + 1e-6f);
        }
      }
    }
  });
}

TEST(SlabKernels, PlanesHoldTheColumns) {
  const size_t columns = 16;
  for (const size_t count : {2u, 8u, 40u, 300u}) {
    const auto slabs = random_slabs(count, columns, count);
    const std::vector<float> scale(columns, 1.5f);
    const CodePlanes planes = make_code_planes(slabs, scale);
    const auto codes = random_bytes(count * 32, 2);
    Matrix<float> expected(columns, 64), actual(columns, 64);
    for (size_t s = 0; s < count; ++s) {
      reference::expand_slab(slabs[s].codebook, codes.data() + s * 32,
                             expected.row(slabs[s].first_column).data(), 64);
    }
    // Each slab of the last plane of some slabs is within half a unit.
    std::map<std::pair<size_t, size_t>, float> bounds;  // by column and first slab
    for (const CodePlanes::Plane& plane : planes.planes) {
      for (size_t c = 0; c < kSlabColumns; ++c) {
        bounds[{plane.first_column + c, planes.slabs[plane.begin]}] =
            0.5f * static_cast<float>(plane.end - plane.begin) * plane.scale[c];
      }
    }
    for (const CodePlanes::Plane& plane : planes.planes) {
      for (size_t c = 0; c < kSlabColumns; ++c) {
        for (size_t t = 0; t < 64; ++t) {
          int sum = 0;
          for (size_t s = plane.begin; s < plane.end; ++s) {
            sum += planes.entries[(s * kSlabColumns + c) * kCodebookEntries +
                                  reference::code_at(codes.data() + planes.slabs[s] * 32, t)];
          }
          EXPECT_LE(std::abs(sum), 127);
          actual.at(plane.first_column + c, t) += plane.scale[c] * static_cast<float>(sum);
        }
      }
    }
    for (size_t c = 0; c < columns; ++c) {
      float bound = 1e-4f;
      for (const auto& [key, value] : bounds) bound += key.first == c ? value : 0.0f;
      for (size_t t = 0; t < 64; ++t) {
        EXPECT_NEAR(actual.at(c, t), 1.5f * expected.at(c, t), bound);
      }
    }
  }
}

}  // namespace
}  // namespace mkv
