#include "nest/angle_kernels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "nest/angle_reference.h"
#include "nest/fixture.h"
#include "ops/each_instruction_set.h"

namespace mkv {
namespace {

std::vector<double> rope(size_t pairs, double theta) {
  std::vector<double> frequency;
  for (size_t i = 0; i < pairs; ++i) {
    frequency.push_back(std::pow(theta, -static_cast<double>(i) / static_cast<double>(pairs)));
  }
  return frequency;
}

// Terms of some heads from a position on, in 16 bits, and what one of them is.
struct Terms {
  Matrix<float> a, b;
  std::vector<int16_t> words;
  std::vector<float> unit;
};
Terms terms_from(std::span<const double> frequency, const MeanAngles& angles, size_t heads,
                 double position) {
  const size_t pairs = frequency.size();
  Terms terms{random_matrix(heads, pairs, 1), random_matrix(heads, pairs, 2), {}, {}};
  Matrix<float> scaled(heads, 2 * pairs);
  for (size_t h = 0; h < heads; ++h) {
    const float factor = mean_terms_factor(angles, terms.a.row(h), terms.b.row(h));
    const std::span<float> x = scaled.row(h).first(pairs), y = scaled.row(h).subspan(pairs);
    for (size_t i = 0; i < pairs; ++i) {
      x[i] = factor * terms.a.at(h, i);
      y[i] = factor * terms.b.at(h, i);
    }
    turn_mean_terms(x, y, angles.middle.span().first(pairs), angles.middle.span().subspan(pairs));
    terms.unit.push_back(1.0f / (factor * kAngleOne));
  }
  std::vector<float> cos, sin;
  for (const double w : frequency) {
    cos.push_back(static_cast<float>(std::cos(w * position)));
    sin.push_back(static_cast<float>(std::sin(w * position)));
  }
  const size_t size = heads * 2 * padded_pairs(pairs);
  std::vector<int16_t> expected(size, 77);
  terms.words.assign(size, 77);
  turn_and_round_mean_terms(scaled.view(), cos, sin, terms.words.data());
  reference::turn_and_round_mean_terms(scaled.view(), cos, sin, expected.data());
  for (size_t i = 0; i < size; ++i) {  // a half may be rounded either way
    EXPECT_NEAR(terms.words[i], expected[i], 1);
  }
  return terms;
}

// The scores of some blocks from one that begins at `start` equal the references, and the
// sinusoids up to what rounding may do.
void expect_sinusoids(std::span<const double> frequency, size_t heads, size_t blocks) {
  const double start = 320;
  const size_t pairs = frequency.size();
  const MeanAngles angles = make_mean_angles(frequency);
  const Terms terms = terms_from(frequency, angles, heads, start);
  const size_t of_block = heads * 2 * angles.scored();
  std::vector<int16_t> turned(blocks * of_block, 77), expected_turned(blocks * of_block, 77);
  turn_to_blocks(angles, terms.words.data(), heads, blocks, turned.data());
  reference::turn_to_blocks(angles, terms.words.data(), heads, blocks, expected_turned.data());
  EXPECT_EQ(turned, expected_turned);
  for (size_t block = 0; block < blocks; ++block) {
    const int16_t* words = turned.data() + block * of_block;
    Matrix<float> expected(heads, 64), actual = random_matrix(heads, 64, 3);
    reference::score_angles(angles, words, terms.unit, expected.view());
    score_angles(angles, words, terms.unit, actual.view());
    for (size_t h = 0; h < heads; ++h) {
      // Half a unit of each factor, before and after a block's turn; T_8 of what is slow.
      double bound = 1e-5 + (angles.smooth() ? 8.0 * terms.unit[h] * kAngleOne : 0.0);
      for (size_t i = 0; i < pairs; ++i) {
        bound += (1.0 + 0.5 * 1.42) * terms.unit[h] * kAngleOne;
        bound +=
            (2.0 / kAngleOne + 6e-5) * (std::abs(terms.a.at(h, i)) + std::abs(terms.b.at(h, i)));
      }
      for (size_t t = 0; t < 64; ++t) {
        EXPECT_FLOAT_EQ(actual.at(h, t), expected.at(h, t));
        double exact = 0.0;
        for (size_t i = 0; i < pairs; ++i) {
          const double angle = frequency[i] * (start + static_cast<double>(block * 64 + t));
          exact += terms.a.at(h, i) * std::cos(angle) + terms.b.at(h, i) * std::sin(angle);
        }
        EXPECT_NEAR(actual.at(h, t), exact, bound);
      }
    }
  }
}

TEST(AngleKernels, ScoresEqualTheReferenceAndTheSinusoids) {
  for_each_instruction_set([&] {
    for (const size_t pairs : {1u, 8u, 17u, 32u, 64u}) {
      Rng rng(pairs);
      std::vector<double> any(pairs);
      for (double& w : any) w = rng.uniform();
      for (const size_t heads : {1u, 2u, 3u, 9u}) {
        expect_sinusoids(any, heads, 2);
        for (const double theta : {1e2, 1e4, 5e5}) expect_sinusoids(rope(pairs, theta), heads, 8);
      }
      for (size_t blocks = 1; blocks < 8; ++blocks) expect_sinusoids(rope(pairs, 1e5), 4, blocks);
    }
  });
}

// The models that there are: what is scored is a half of the pairs or less.
TEST(AngleKernels, SlowPairsAreAPolynomial) {
  const auto scored = [](size_t pairs, double theta) {
    return make_mean_angles(rope(pairs, theta)).scored();
  };
  EXPECT_EQ(scored(32, 1e5), 12u);
  EXPECT_EQ(scored(32, 1e4), 20u);
  EXPECT_EQ(scored(64, 5e5), 20u);
  EXPECT_EQ(scored(12, 1e5), 16u);  // too few to be worth it: padded
  EXPECT_FALSE(make_mean_angles(rope(12, 1e5)).smooth());
  EXPECT_EQ(make_mean_angles({}).scored(), 0u);
}

// What an angle's rounding leaves is the most that a single slow pair may be off by.
TEST(AngleKernels, TheFastestSlowPairIsExactToSixteenBits) {
  std::vector<double> frequency(32, 0.0);
  for (size_t i = 0; i < 8; ++i) frequency[i] = 1.0;
  frequency[8] = 1.8 / 32.0;
  const MeanAngles angles = make_mean_angles(frequency);
  ASSERT_EQ(angles.fast, 8u);
  std::vector<int16_t> terms(2 * 32, 0), turned(2 * angles.scored());
  for (const size_t side : {0u, 1u}) {
    std::ranges::fill(terms, int16_t{0});
    terms[side * 32 + 8] = 20000;
    turn_to_blocks(angles, terms.data(), 1, 1, turned.data());
    Matrix<float> scores(1, 64);
    score_angles(angles, turned.data(), std::vector<float>{1.0f / (20000.0f * kAngleOne)},
                 scores.view());
    for (size_t t = 0; t < 64; ++t) {
      const double angle = frequency[8] * (static_cast<double>(t) - kMiddle);
      EXPECT_NEAR(scores.at(0, t), side == 0 ? std::cos(angle) : std::sin(angle), 2e-4);
    }
  }
}

TEST(AngleKernels, NoMeanIsNoScore) {
  const std::vector<float> zero(4, 0.0f);
  EXPECT_EQ(mean_terms_factor(make_mean_angles(rope(4, 1e4)), zero, zero), 0.0f);
}

// The largest sums that can be: every pair turned onto the largest angle.
TEST(AngleKernels, LargestTermsFit) {
  for_each_instruction_set([&] {
    for (const size_t pairs : {1u, 4u, 32u, 128u}) {
      for (const double phase : {0.0, 1.0, 1.8 / 32.0}) {
        const std::vector<double> frequency(pairs, phase);
        const MeanAngles angles = make_mean_angles(frequency);
        const std::vector<float> a(pairs, 3.0f), b(pairs, -4.0f), cos(pairs, 0.6f),
            sin(pairs, -0.8f);
        const float factor = mean_terms_factor(angles, a, b);
        Matrix<float> scaled(1, 2 * pairs);
        for (size_t i = 0; i < pairs; ++i) {
          scaled.at(0, i) = 3.0f * factor;
          scaled.at(0, pairs + i) = -4.0f * factor;
        }
        std::vector<int16_t> terms(2 * padded_pairs(pairs)), turned(8 * 2 * angles.scored());
        turn_and_round_mean_terms(scaled.view(), cos, sin, terms.data());
        turn_to_blocks(angles, terms.data(), 1, 8, turned.data());
        const std::vector<float> unit{1.0f / (factor * kAngleOne)};
        for (size_t block = 0; block < 8; ++block) {
          Matrix<float> scores(1, 64);
          score_angles(angles, turned.data() + block * 2 * angles.scored(), unit, scores.view());
          for (size_t t = 0; t < 64; ++t) {
            const double angle = phase * (double(block * 64 + t) - kMiddle);
            EXPECT_NEAR(scores.at(0, t), 5.0 * double(pairs) * std::cos(angle),
                        0.01 * double(pairs));
          }
        }
      }
    }
  });
}

}  // namespace
}  // namespace mkv
