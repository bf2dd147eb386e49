#include "nest/angle_kernels.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "nest/fixture.h"
#include "ops/each_instruction_set.h"

namespace mkv {
namespace {

TEST(AngleKernels, ScoresEqualTheReferenceAndTheSinusoids) {
  for_each_instruction_set([] {
    for (const size_t pairs : {1u, 8u, 32u, 64u}) {
      for (const size_t heads : {1u, 2u, 3u, 9u}) {
        const size_t blocks = 3;
        Rng rng(pairs);
        std::vector<float> phase(pairs);
        for (float& w : phase) w = static_cast<float>(rng.uniform());
        std::vector<int16_t> angles(blocks * pairs * 64 * 2);
        for (size_t t = 0; t < blocks * 64; ++t) {
          for (size_t i = 0; i < pairs; ++i) {
            int16_t* to = angles.data() + ((t / 64 * pairs + i) * 64 + t % 64) * 2;
            to[0] = static_cast<int16_t>(std::lrint(kAngleOne * std::cos(phase[i] * float(t))));
            to[1] = static_cast<int16_t>(std::lrint(kAngleOne * std::sin(phase[i] * float(t))));
          }
        }
        const Matrix<float> a = random_matrix(heads, pairs, 1), b = random_matrix(heads, pairs, 2);
        std::vector<int16_t> terms(heads * pairs * 2);
        std::vector<float> unit(heads);
        for (size_t h = 0; h < heads; ++h) {
          unit[h] = round_mean_terms(a.row(h), b.row(h), terms.data() + h * pairs * 2);
        }
        Matrix<float> expected(heads, blocks * 64), actual = random_matrix(heads, blocks * 64, 3);
        reference::score_angles(terms.data(), unit, angles.data(), pairs, expected.view());
        score_angles(terms.data(), unit, angles.data(), pairs, actual.view());
        for (size_t h = 0; h < heads; ++h) {
          double bound = 1e-6;  // half a unit of each factor
          for (size_t i = 0; i < pairs; ++i) {
            bound += 0.5 * 1.42 * unit[h] * kAngleOne;
            bound += 0.5 / kAngleOne * (std::abs(a.at(h, i)) + std::abs(b.at(h, i)));
          }
          for (size_t t = 0; t < blocks * 64; ++t) {
            EXPECT_FLOAT_EQ(actual.at(h, t), expected.at(h, t));
            double exact = 0.0;
            for (size_t i = 0; i < pairs; ++i) {
              exact += a.at(h, i) * std::cos(phase[i] * float(t)) +
                       b.at(h, i) * std::sin(phase[i] * float(t));
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
  std::vector<int16_t> terms(8, int16_t{1});
  EXPECT_EQ(round_mean_terms(zero, zero, terms.data()), 0.0f);
  for (const int16_t term : terms) EXPECT_EQ(term, 0);
}

}  // namespace
}  // namespace mkv
