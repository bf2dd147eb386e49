#include "nest/amx_codes.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "nest/amx_reference.h"
#include "nest/fixture.h"

namespace mkv {
namespace {

constexpr size_t kMostPositions = 8 * amx::kBlock;

// Codes of `slabs` slabs, planes of them and queries, all random.
struct Inputs {
  size_t heads, pairs, columns;
  std::vector<CodeSlab> slabs;
  CodePlanes keys, values;
  size_t stride;
  std::vector<uint8_t> codes;
  std::vector<float> cos, sin;  // [pairs][kMostPositions]
  Buffer<int8_t> bytes, angles;
  std::vector<float> unit, base, terms, block_angles;
  Matrix<float> latents;

  Inputs(size_t heads_, size_t count, size_t pairs_, size_t columns_ = 48)
      : heads(heads_), pairs(pairs_), columns(columns_), slabs(count), stride(count * 32 + 3) {
    Rng rng(heads + count + pairs);
    std::vector<float> size(columns, 1.0f);
    for (CodeSlab& slab : slabs) {
      const size_t groups = columns / kSlabColumns;
      slab.first_column =
          static_cast<uint16_t>(kSlabColumns * std::min(rng.below(groups), rng.below(groups)));
      for (auto& column : slab.codebook.entry) {
        for (float& x : column) x = size[slab.first_column] * static_cast<float>(rng.normal());
      }
      size[slab.first_column] *= 0.6f;
    }
    const Matrix<float> scale = random_matrix(1, columns, 6);
    values = make_fine_planes(slabs, scale.row(0));
    keys = interleave_columns(values);
    codes.resize(8 * stride + 64);
    for (uint8_t& x : codes) x = static_cast<uint8_t>(rng.below(256));
    latents = random_matrix(heads, columns, 7);
    bytes.resize(amx::query_tiles_of(keys) * amx::kTile);
    unit.resize(amx::kLanes), base.resize(amx::kLanes);
    make_angles(rng);
    for (size_t h = 0; h < heads; ++h) {
      base[h] = static_cast<float>(rng.normal());
      amx::round_query(keys, latents.row(h).data(), h, queries());
    }
  }
  void make_angles(Rng& rng) {
    cos.resize(pairs * kMostPositions), sin.resize(cos.size());
    std::vector<float> of_pair_cos, of_pair_sin;
    block_angles.resize(8 * 2 * pairs);
    for (size_t i = 0; i < pairs; ++i) {
      const double w = rng.uniform();
      for (size_t t = 0; t < kMostPositions; ++t) {
        const double angle = w * static_cast<double>(t);
        cos[i * kMostPositions + t] = static_cast<float>(std::cos(angle));
        sin[i * kMostPositions + t] = static_cast<float>(std::sin(angle));
        if (t < amx::kPair) of_pair_cos.push_back(cos[i * kMostPositions + t]);
        if (t < amx::kPair) of_pair_sin.push_back(sin[i * kMostPositions + t]);
        if (t % amx::kBlock != 0) continue;
        block_angles[t / amx::kBlock * 2 * pairs + i] = cos[i * kMostPositions + t];
        block_angles[(t / amx::kBlock * 2 + 1) * pairs + i] = sin[i * kMostPositions + t];
      }
    }
    angles = amx::angle_tiles(of_pair_cos, of_pair_sin, pairs);
    terms.resize(amx::kLanes * 2 * pairs);
    for (float& x : terms) x = static_cast<float>(rng.normal());
  }
  amx::Queries queries() {
    return {heads, bytes.data(), unit.data(), base.data(), terms.data(), pairs};
  }
  CodeBlocks blocks(size_t count) const { return {codes.data() + 1, stride, count, {}}; }
  Matrix<float> scores(size_t count) {
    Buffer<int8_t> expanded(amx::kExpandedBytes);
    Buffer<int8_t> turned(amx::angle_tiles_of(pairs) * 2 * amx::kTile + 1);
    Matrix<float> out(heads, (count + 1) / 2 * amx::kPair);
    amx::score_codes(keys, queries(), {block_angles.data(), 2 * pairs, angles.data()},
                     blocks(count), {expanded.data(), turned.data()}, out.view());
    return out;
  }
};

size_t place(size_t token) {
  return token / amx::kPair * amx::kPair + amx::place_of(token % amx::kPair);
}

class AmxCodes : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!amx::usable()) GTEST_SKIP() << "this machine has no AMX";
  }
};

TEST(AmxPlaces, AreAllDifferent) {
  std::vector<size_t> seen(amx::kPair, 0);
  for (size_t t = 0; t < amx::kPair; ++t) ++seen[amx::place_of(t)];
  EXPECT_EQ(std::ranges::count(seen, 1u), 128);
}

TEST_F(AmxCodes, ScoresEqualTheReference) {
  for (const size_t heads : {1u, 2u, 3u, 9u, 16u}) {
    for (const size_t slabs : {0u, 1u, 5u, 37u, 130u}) {
      for (const size_t pairs : {0u, 1u, 8u, 24u, 32u, 40u, 128u}) {
        Inputs inputs(heads, slabs, pairs);
        for (const size_t blocks : {1u, 2u, 5u, 8u}) {
          const Matrix<float> actual = inputs.scores(blocks);
          for (size_t h = 0; h < heads; ++h) {
            // A turned term's rounding, and half a 127th of it by that of its angle.
            double bound = 1e-6;
            for (size_t i = 0; i < pairs; ++i) {
              const float* term = &inputs.terms[h * 2 * pairs + i];
              bound += inputs.unit[h] * (128.0 + std::hypot(term[0], term[pairs]));
            }
            for (size_t t = 0; t < blocks * amx::kBlock; ++t) {
              const double expected =
                  amx::reference::score(inputs.keys, inputs.queries(), inputs.cos, inputs.sin,
                                        inputs.blocks(blocks), h, t);
              ASSERT_NEAR(actual.at(h, place(t)), expected, bound + 1e-6 * std::abs(expected))
                  << heads << " heads, " << slabs << " slabs, " << pairs << " pairs, token " << t;
            }
          }
        }
      }
    }
  }
}

// The rounded query, times the planes, against the latents times the codebooks.
TEST_F(AmxCodes, RoundedQueriesAreWithinHalfAUnit) {
  Inputs inputs(9, 60, 32);
  const Matrix<float> latents = inputs.latents.clone();
  for (size_t h = 0; h < 9; ++h) {
    for (size_t p = 0; p < inputs.keys.planes.size(); ++p) {
      for (size_t c = 0; c < kSlabColumns; ++c) {
        const CodePlanes::Plane& plane = inputs.keys.planes[p];
        const float exact = latents.at(h, plane.first_column + c) * plane.scale[c];
        EXPECT_NEAR(static_cast<float>(
                        amx::reference::query_value(inputs.keys, inputs.queries(), h, 4 * p + c)) *
                        inputs.unit[h],
                    exact, 0.51f * inputs.unit[h]);
        const int most = p < amx::kTilePlanes ? amx::kMostFirst : amx::kMostByte;
        EXPECT_LE(std::abs(exact), (static_cast<float>(most) + 0.01f) * inputs.unit[h]);
      }
    }
  }
}

// The largest sums that can be: every entry 127 and every query at its most.
TEST_F(AmxCodes, LargestSumsFit) {
  Inputs inputs(16, 1000, 128, 512);
  // Whole tiles, as columns that no plane has are multiplied too.
  inputs.keys.planes.resize(inputs.keys.planes.size() / amx::kTilePlanes * amx::kTilePlanes);
  ASSERT_GE(inputs.keys.planes.size(), 200u);
  for (int8_t& x : inputs.keys.entries.span()) x = 0;
  for (const CodePlanes::Plane& plane : inputs.keys.planes) {
    int8_t* first = inputs.keys.entries.data() + plane.begin * kSlabColumns * kCodebookEntries;
    std::fill_n(first, kSlabColumns * kCodebookEntries, int8_t{127});
  }
  for (int8_t& x : inputs.bytes.span()) x = 127;
  const Matrix<float> scores = inputs.scores(2);
  for (size_t t = 0; t < amx::kPair; ++t) {
    const double expected = amx::reference::score(inputs.keys, inputs.queries(), inputs.cos,
                                                  inputs.sin, inputs.blocks(2), 15, t);
    ASSERT_NEAR(scores.at(15, place(t)), expected, 1e-4 * std::abs(expected));
  }
}

TEST_F(AmxCodes, WeightsAreRoundedToTheLargestOfEachGroup) {
  for (const size_t heads : {1u, 4u, 9u, 16u}) {
    for (const size_t blocks : {2u, 4u, 6u, 8u}) {
      Matrix<float> scores = random_matrix(heads, blocks * amx::kBlock, heads);
      for (float& x : scores.span()) x = 4.0f * x - 70.0f;
      for (size_t h = 0; h < heads; ++h) {  // hidden tokens
        scores.at(h, 5) = -1e30f;
        scores.at(h, 6) = -HUGE_VALF;
      }
      Buffer<uint8_t> weights(blocks * amx::kTile);
      std::vector<float> tops(2 * amx::kLanes), sums(2 * amx::kLanes);
      amx::soften(scores.view(), weights.data(), tops.data(), sums.data());
      for (size_t h = 0; h < heads; ++h) {
        for (size_t first = 0; first < blocks; first += amx::kGroupBlocks) {
          const size_t end = std::min(blocks, first + amx::kGroupBlocks);
          const auto group =
              scores.row(h).subspan(first * amx::kBlock, (end - first) * amx::kBlock);
          const float top = *std::ranges::max_element(group);
          const size_t at = first / amx::kGroupBlocks * amx::kLanes + h;
          EXPECT_EQ(tops[at], top);
          double sum = 0.0;
          for (size_t t = first * amx::kBlock; t < end * amx::kBlock; ++t) {
            const double e = std::exp(double{scores.at(h, place(t))} - top);
            sum += e;
            EXPECT_NEAR(amx::reference::weight(weights.data(), t / amx::kBlock, t % amx::kBlock, h),
                        255.0 * e, 0.51);
          }
          EXPECT_NEAR(sums[at], sum, 1e-5 * sum);
        }
      }
    }
  }
}

TEST_F(AmxCodes, WeighedSumsEqualTheReference) {
  for (const size_t heads : {1u, 3u, 9u, 16u}) {
    for (const size_t slabs : {0u, 1u, 37u, 130u}) {
      for (const size_t blocks : {1u, 3u, 4u, 5u, 8u}) {
        Inputs inputs(heads, slabs, 0);
        Rng rng(3);
        Buffer<uint8_t> weights(8 * amx::kTile);
        for (uint8_t& x : weights.span()) x = static_cast<uint8_t>(rng.below(256));
        const Matrix<float> factor = random_matrix(2, amx::kLanes, 4);
        Matrix<float> sums(48, amx::kLanes), by_head(heads, 48);
        amx::weigh_codes(inputs.values, inputs.blocks(blocks), weights.data(), factor.data(), heads,
                         sums.data());
        amx::by_head(sums.data(), by_head.view());
        for (size_t h = 0; h < heads; ++h) {
          for (size_t c = 0; c < 48; ++c) {
            const double expected = amx::reference::weigh(inputs.values, inputs.blocks(blocks),
                                                          weights.data(), factor.data(), c, h);
            // Its terms are up to 255 * 127 * 64 * blocks units, some hundreds of a column.
            ASSERT_NEAR(by_head.at(h, c), expected, 2e-6 * std::abs(expected) + 4e-3);
          }
        }
      }
    }
  }
}

// Fine planes add up to the codebooks' entries within what rounding may add.
TEST_F(AmxCodes, FinePlanesHoldTheColumns) {
  for (const size_t count : {1u, 12u, 48u, 400u}) {
    const Inputs inputs(1, count, 0, 16);
    // By quadruple of columns: mean squares, and what two bytes of its largest sum leave.
    std::vector<double> error(4, 0.0), last(4, 0.0), floor(4, 0.0);
    for (size_t q = 0; q < 4; ++q) {
      for (const CodeSlab& slab : inputs.slabs) {
        if (slab.first_column != 4 * q) continue;
        last[q] = 0.0;
        double largest = 0.0;
        for (const auto& column : slab.codebook.entry) {
          for (const float x : column) {
            last[q] += double{x} * x / 64.0;
            largest = std::max(largest, std::abs(double{x}));
          }
        }
        floor[q] += largest * static_cast<double>(count) / (127.0 * 127.0);
      }
    }
    const Matrix<float> scale = random_matrix(1, 16, 6);
    for (size_t t = 0; t < amx::kBlock; ++t) {
      for (size_t c = 0; c < 16; ++c) {
        double exact = 0.0, planes = 0.0;
        for (size_t s = 0; s < count; ++s) {
          const CodeSlab& slab = inputs.slabs[s];
          if (c / 4 * 4 != slab.first_column) continue;
          const size_t code = reference::code_at(inputs.blocks(1).data + s * 32, t);
          exact += slab.codebook.entry[c % 4][code];
        }
        for (const CodePlanes::Plane& plane : inputs.values.planes) {
          if (c / 4 * 4 != plane.first_column) continue;
          const int sum = amx::reference::plane_column(inputs.values, plane, c % 4,
                                                       inputs.blocks(1).data, t, false);
          EXPECT_LE(std::abs(sum), 127);
          planes += double{plane.scale[c % 4]} / scale.at(0, c) * sum;
        }
        error[c / 4] += std::pow(exact - planes, 2) / (4.0 * amx::kBlock);
      }
    }
    for (size_t q = 0; q < 4; ++q) {
      EXPECT_LE(std::sqrt(error[q]), 0.15 * std::sqrt(last[q]) + floor[q]) << count << ", " << q;
    }
  }
}

}  // namespace
}  // namespace mkv
