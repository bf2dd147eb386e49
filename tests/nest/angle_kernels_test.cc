#include "nest/angle_kernels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "nest/fixture.h"
#include "ops/each_instruction_set.h"

namespace mkv {
namespace {

// Cosines and sines of a position.
struct Angles {
  std::vector<float> cos, sin;
};
Angles angles_at(std::span<const float> phase, double position) {
  Angles angles;
  for (const float w : phase) {
    angles.cos.push_back(static_cast<float>(std::cos(double(w) * position)));
    angles.sin.push_back(static_cast<float>(std::sin(double(w) * position)));
  }
  return angles;
}

Buffer<int16_t> block_angles(std::span<const float> phase) {
  Matrix<float> cos(kHalfTokens, phase.size()), sin(kHalfTokens, phase.size());
  for (size_t t = 0; t < kHalfTokens; ++t) {
    const Angles angles = angles_at(phase, double(t) + 0.5);
    std::ranges::copy(angles.cos, cos.row(t).begin());
    std::ranges::copy(angles.sin, sin.row(t).begin());
  }
  return half_block_angles(cos.view(), sin.view());
}

TEST(AngleKernels, ScoresEqualTheReferenceAndTheSinusoids) {
  const float start = 320;  // the block's first position
  for_each_instruction_set([&] {
    for (const size_t pairs : {1u, 8u, 17u, 32u, 64u}) {
      for (const size_t heads : {1u, 2u, 3u, 9u}) {
        Rng rng(pairs);
        std::vector<float> phase(pairs), unit(heads);
        for (float& w : phase) w = static_cast<float>(rng.uniform());
        const Angles first = angles_at(phase, start), middle = angles_at(phase, kMiddle);
        const Buffer<int16_t> angles = block_angles(phase);
        const size_t size = 2 * even_pairs(pairs);
        const Matrix<float> a = random_matrix(heads, pairs, 1), b = random_matrix(heads, pairs, 2);
        std::vector<int16_t> terms(heads * size, 77), expected_terms(heads * size, 77);
        Matrix<float> middle_terms(heads, 2 * pairs);
        for (size_t h = 0; h < heads; ++h) {
          const float factor = mean_terms_factor(a.row(h), b.row(h));
          std::vector<float> x(a.row(h).begin(), a.row(h).end()),
              y(b.row(h).begin(), b.row(h).end());
          for (size_t i = 0; i < pairs; ++i) x[i] *= factor, y[i] *= factor;
          unit[h] = 1.0f / (factor * kAngleOne);
          turn_mean_terms(x, y, middle.cos, middle.sin);
          std::ranges::copy(x, middle_terms.row(h).begin());
          std::ranges::copy(y, middle_terms.row(h).begin() + static_cast<ptrdiff_t>(pairs));
        }
        const View<const float> of_heads = middle_terms.view();
        turn_and_round_mean_terms(of_heads, first.cos, first.sin, terms.data());
        reference::turn_and_round_mean_terms(of_heads, first.cos, first.sin, expected_terms.data());
        for (size_t i = 0; i < terms.size(); ++i) {  // a half may be rounded either way
          EXPECT_NEAR(terms[i], expected_terms[i], 1);
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
    std::vector<int16_t> terms(2 * even_pairs(pairs));
    std::vector<float> both(x);
    both.insert(both.end(), y.begin(), y.end());
    turn_and_round_mean_terms({both.data(), 1, both.size()}, cos, sin, terms.data());
    Matrix<float> scores(1, 64);
    const std::vector<float> unit{1.0f / (factor * kAngleOne)}, phase(pairs, 0.0f);
    score_angles(terms.data(), unit, block_angles(phase).data(), pairs, scores.view());
    for (const float score : scores.span()) {
      EXPECT_NEAR(score, 5.0 * double(pairs), 0.01 * double(pairs));
    }
  }
}

}  // namespace
}  // namespace mkv
