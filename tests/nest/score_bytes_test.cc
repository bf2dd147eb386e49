#include "nest/score_bytes.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "nest/fixture.h"
#include "nest/random_bytes.h"
#include "nest/slab_kernels.h"
#include "nest/slab_reference.h"
#include "ops/each_instruction_set.h"

namespace mkv {
namespace {

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

std::vector<size_t> all_of(size_t heads) {
  std::vector<size_t> all(heads);
  std::iota(all.begin(), all.end(), size_t{0});
  return all;
}

// Every second head of some.
std::vector<size_t> odd_of(size_t heads) {
  std::vector<size_t> odd;
  for (size_t h = 1; h < heads; h += 2) odd.push_back(h);
  return odd;
}

// Slabs begin with the leading ones, and each is in one part.
TEST(ScoreTables, PartsAreAllSlabs) {
  for (size_t slabs = 0; slabs < 600; ++slabs) {
    size_t at = 0;
    for (size_t p = 0; p < part_count(slabs); ++p) {
      const SlabRange part = part_slabs(slabs, p);
      EXPECT_EQ(part.begin, at);
      EXPECT_GT(part.end, part.begin);
      EXPECT_LE(part.end - part.begin, kPartSlabs);
      at = part.end;
      if (p + 1 == parts_of(Slabs::leading, slabs).end) {
        EXPECT_EQ(at, leading_slabs(slabs));
      }
    }
    EXPECT_EQ(at, slabs);
    const size_t fours = four_count(slabs);
    EXPECT_EQ((fours - single_count(fours)) % 2, 0u);
    EXPECT_EQ(parts_of(Slabs::leading, slabs).end, parts_of(Slabs::rest, slabs).begin);
    EXPECT_EQ(parts_of(Slabs::rest, slabs).end, part_count(slabs));
  }
}

TEST(ScoreTables, BytesHoldTables) {
  for_each_instruction_set([] {
    for (const size_t slabs : {1u, 2u, 4u}) {  // all of them leading
      const std::vector<float> values = random_tables(slabs, slabs);
      ByteTables tables;
      ASSERT_EQ(part_count(slabs), 1u);
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

TEST(ScoreTables, BytesOfEqualValuesAreTheirSum) {
  for_each_instruction_set([] {
    std::vector<float> values(2 * kCodebookEntries, 3.0f);
    std::fill_n(values.begin(), kCodebookEntries, -1.5f);
    ByteTables tables;
    round_to_bytes(values.data(), 2, &tables);
    const auto codes = random_bytes(2 * 32, 1);
    Matrix<float> scores(1, 64);
    scores.at(0, 63) = 1.0f;
    float expected = 4.0f;
    const ScoreTables of_head{.slabs = 2, .heads = 1, .expected = &expected, .bytes = &tables};
    const CodeBlocks view{codes.data(), 64, 1, {}};
    score_bytes(of_head, Slabs::leading, view, all_of(1), scores.view());
    EXPECT_EQ(scores.at(0, 0), 5.5f);
    EXPECT_EQ(scores.at(0, 63), 6.5f);
  });
}

TEST(ScoreTables, ScoresFromBytesEqualTheReference) {
  for_each_instruction_set([] {
    for (const size_t heads : {1u, 3u, 9u}) {
      for (const size_t slabs : {0u, 1u, 5u, 70u, 128u, 301u, 600u}) {
        for (const size_t blocks : {1u, 2u, 3u, 8u}) {
          std::vector<ByteTables> bytes(heads * part_count(slabs));
          std::vector<float> rest(heads, 3.0f);
          for (size_t h = 0; h < heads; ++h) {
            round_to_bytes(random_tables(slabs, h).data(), slabs,
                           bytes.data() + h * part_count(slabs));
          }
          const ScoreTables tables{
              .slabs = slabs, .heads = heads, .expected = rest.data(), .bytes = bytes.data()};
          const size_t stride = slabs * 32 + 5;
          const auto codes = random_bytes(blocks * stride + 1, slabs);
          Matrix<float> expected = random_matrix(heads, blocks * 64, 8), actual = expected.clone();
          const CodeBlocks view{codes.data() + 1, stride, blocks, {}};
          for (const auto& [which, some] :
               {std::pair(Slabs::leading, all_of(heads)), std::pair(Slabs::rest, odd_of(heads))}) {
            reference::score_bytes(tables, which, view, some, expected.view());
            score_bytes(tables, which, view, some, actual.view());
          }
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
        base(heads),
        rest_base(heads),
        expected(heads, 3.0f) {
    tables = {.slabs = slabs,
              .heads = heads,
              .expected = expected.data(),
              .entries = entries.data(),
              .factors = factors.data(),
              .unit = unit.data(),
              .base = base.data(),
              .rest_base = rest_base.data()};
  }
  const int8_t* factors_of(size_t head) const {
    return reinterpret_cast<const int8_t*>(factors.data() + head * factor_count(tables.slabs));
  }
  const uint8_t* entries_of(size_t head) const {
    return entries.data() + head * four_count(tables.slabs) * kFour * kCodebookEntries;
  }

  std::vector<uint8_t> entries;
  std::vector<int32_t> factors;
  std::vector<float> unit, base, rest_base, expected;
  ScoreTables tables;
};

TEST(ScoreTables, FoursHoldTables) {
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
      EXPECT_NEAR(fours.base[1] + fours.rest_base[1], base, 1e-5f * std::abs(base));
      if (singles == count) {
        EXPECT_EQ(fours.rest_base[1], 0.0f);
      }
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

TEST(ScoreTables, FoursOfEqualValuesAreTheirSum) {
  for_each_instruction_set([] {
    std::vector<float> values(2 * kCodebookEntries, 3.0f);
    std::fill_n(values.begin(), kCodebookEntries, -1.5f);
    Fours fours(2, 1);
    round_to_fours(values.data(), 0, fours.tables);
    const auto codes = random_bytes(2 * 32, 1);
    Matrix<float> scores(1, 64);
    const CodeBlocks view{codes.data(), 64, 1, {}};
    reference::score_fours(fours.tables, Slabs::leading, view, all_of(1), scores.view());
    EXPECT_EQ(scores.at(0, 5), 4.5f);  // with what is expected of the rest, which are none
  });
}

TEST(ScoreTables, ScoresFromFoursEqualTheReference) {
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
          for (const auto& [which, some] :
               {std::pair(Slabs::leading, all_of(heads)), std::pair(Slabs::rest, odd_of(heads))}) {
            reference::score_fours(fours.tables, which, view, some, expected.view());
            score_slabs(fours.tables, which, view, some, actual.view());
          }
          for (size_t i = 0; i < expected.span().size(); ++i) {
            EXPECT_NEAR(actual.span()[i], expected.span()[i],
                        1e-6f * std::abs(expected.span()[i]) + 1e-3f);
          }
        }
      }
    }
  });
}

TEST(ScoreTables, ScoresAreTheSumsOfValues) {
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
    score_slabs(tables, Slabs::leading, view, all_of(heads), actual.view());
    score_slabs(tables, Slabs::rest, view, all_of(heads), actual.view());
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

}  // namespace
}  // namespace mkv
