#include "nest/angle_kernels.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "nest/fixture.h"
#include "ops/each_instruction_set.h"

namespace mkv {
namespace {

// Angles of the 64 tokens of a block, as integers.
std::vector<int16_t> block_angles(std::span<const float> phase) {
  std::vector<int16_t> angles;
  for (const float w : phase) {
    for (size_t t = 0; t < 64; ++t) {
      angles.push_back(static_cast<int16_t>(std::lrint(kAngleOne * std::cos(w * float(t)))));
      angles.push_back(static_cast<int16_t>(std::lrint(kAngleOne * std::sin(w * float(t)))));
    }
  }
  return angles;
}

TEST(AngleKernels, ScoresEqualTheReferenceAndTheSinusoids) {
  const float start = 320;  // the block's first position
  for_each_instruction_set([&] {
    for (const size_t pairs : {1u, 8u, 17u, 32u, 64u}) {
      for (const size_t heads : {1u, 2u, 3u, 9u}) {
        Rng rng(pairs);
        std::vector<float> phase(pairs), cos(pairs), sin(pairs), unit(heads);
        for (size_t i = 0; i < pairs; ++i) {
          phase[i] = static_cast<float>(rng.uniform());
          cos[i] = std::cos(phase[i] * start);
          sin[i] = std::sin(phase[i] * start);
        }
        const std::vector<int16_t> angles = block_angles(phase);
        const Matrix<float> a = random_matrix(heads, pairs, 1), b = random_matrix(heads, pairs, 2);
        std::vector<int16_t> terms(heads * pairs * 2), expected_terms(pairs * 2);
        for (size_t h = 0; h < heads; ++h) {
          const float factor = mean_terms_factor(a.row(h), b.row(h));
          std::vector<float> x(a.row(h).begin(), a.row(h).end()),
              y(b.row(h).begin(), b.row(h).end());
          for (size_t i = 0; i < pairs; ++i) x[i] *= factor, y[i] *= factor;
          unit[h] = 1.0f / (factor * kAngleOne);
          turn_mean_terms(x, y, cos, sin, terms.data() + h * pairs * 2);
          reference::turn_mean_terms(x, y, cos, sin, expected_terms.data());
          for (size_t i = 0; i < 2 * pairs; ++i) {  // a half may be rounded either way
            EXPECT_NEAR(terms[h * pairs * 2 + i], expected_terms[i], 1);
          }
        }
        Matrix<float> expected(heads, 64), actual = random_matrix(heads, 64, 3);
        reference::score_angles(terms.data(), unit, angles.data(), pairs, expected.view());
        score_angles(terms.data(), unit, angles.data(), pairs, actual.view());
        for (size_t h = 0; h < heads; ++h) {
          double bound = 1e-5;  // half a unit of each factor; the angles of the start are floats
          for (size_t i = 0; i < pairs; ++i) {
            bound += 0.5 * 1.42 * unit[h] * kAngleOne;
            bound += (0.5 / kAngleOne + 6e-5) * (std::abs(a.at(h, i)) + std::abs(b.at(h, i)));
          }
          for (size_t t = 0; t < 64; ++t) {
            EXPECT_FLOAT_EQ(actual.at(h, t), expected.at(h, t));
            double exact = 0.0;
            for (size_t i = 0; i < pairs; ++i) {
              const double angle = double(phase[i]) * (double(start) + double(t));
              exact += a.at(h, i) * std::cos(angle) + b.at(h, i) * std::sin(angle);
            }
            EXPECT_NEAR(actual.at(h, t), exact, bound);
          }
        }
      }
    }
  });
}

TEST(AngleKernels, NoMeanIsNoScore) {
  const std::vector<float> zero(4, 0.0f);
  EXPECT_EQ(mean_terms_factor(zero, zero), 0.0f);
}

// The largest sums that can be: every pair turned onto the largest angle.
TEST(AngleKernels, LargestTermsFit) {
  for (const size_t pairs : {1u, 4u, 128u}) {
    const std::vector<float> a(pairs, 3.0f), b(pairs, -4.0f), cos(pairs, 0.6f), sin(pairs, -0.8f);
    const float factor = mean_terms_factor(a, b);
    std::vector<float> x(a), y(b);
    for (size_t i = 0; i < pairs; ++i) x[i] *= factor, y[i] *= factor;
    std::vector<int16_t> terms(2 * pairs);
    turn_mean_terms(x, y, cos, sin, terms.data());
    Matrix<float> scores(1, 64);
    const std::vector<float> unit{1.0f / (factor * kAngleOne)}, phase(pairs, 0.0f);
    score_angles(terms.data(), unit, block_angles(phase).data(), pairs, scores.view());
    EXPECT_NEAR(scores.at(0, 0), 5.0 * double(pairs), 0.01 * double(pairs));
  }
}

}  // namespace
}  // namespace mkv
