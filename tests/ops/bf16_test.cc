#include "ops/bf16.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/rng.h"
#include "ops/each_instruction_set.h"
#include "ops/ops_testing.h"
#include "ops/reference.h"

namespace mkv {
namespace {

constexpr double kHalfStep = 0x1p-8;  // of bf16, relative: 8 bits of mantissa, rounded to nearest
constexpr double kFloat = 0x1p-18;    // what sums and exponentials of float32 may be off

float widen(uint16_t x) { return std::bit_cast<float>(static_cast<uint32_t>(x) << 16); }

// Of any alignment that numbers of 16 or 32 bits have.
template <class T>
struct Row {
  explicit Row(size_t size) : storage(size + 1), span(storage.data() + 1, size) {}
  std::vector<T> storage;
  std::span<T> span;
};

Row<float> normal(Rng& rng, size_t size, double scale) {
  Row<float> row(size);
  for (float& x : row.span) x = static_cast<float>(scale * rng.normal());
  return row;
}
Row<uint16_t> normal_bf16(Rng& rng, size_t size, double scale) {
  Row<uint16_t> row(size);
  f32_to_bf16(normal(rng, size, scale).span, row.span);
  return row;
}

template <class Fn>
void sweep(const Fn& fn) {
  for_each_instruction_set([&] {
    Rng rng(11);
    for (const size_t size : testing::sizes()) {
      if (size == 0) continue;
      SCOPED_TRACE(size);
      fn(rng, size);
    }
  });
}

void expect_near(std::span<const uint16_t> got, std::span<const double> expected, double absolute) {
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_NEAR(widen(got[i]), expected[i], (kHalfStep + kFloat) * std::abs(expected[i]) + absolute)
        << i;
  }
}

TEST(Bf16, IsTheNearestAndTiesGoToEven) {
  sweep([](Rng& rng, size_t size) {
    Row<float> in = normal(rng, size, 100.0);
    in.span[0] = 0x1.01p0f;  // between 1 and 1 + 2^-7, whose last bit is odd
    Row<uint16_t> out(size);
    f32_to_bf16(in.span, out.span);
    ASSERT_EQ(widen(out.span[0]), 1.0f);
    std::vector<uint16_t> expected(size);
    reference::f32_to_bf16(in.span, expected);
    ASSERT_TRUE(std::ranges::equal(out.span, expected));
    for (size_t i = 0; i < size; ++i) {
      ASSERT_LE(std::abs(widen(out.span[i]) - in.span[i]), kHalfStep * std::abs(in.span[i]));
    }
  });
}

TEST(Bf16, ExponentialsOfARow) {
  sweep([](Rng& rng, size_t size) {
    Row<float> scores = normal(rng, size, 5.0);
    const size_t seen = 1 + rng.below(size);
    Row<uint16_t> p(size);
    const ExpRow got = exp_row(scores.span, seen, p.span);
    std::vector<double> expected(size);
    const ExpRow want = reference::exp_row(scores.span, seen, expected);
    ASSERT_EQ(got.largest, want.largest);
    ASSERT_NEAR(got.sum, want.sum, kFloat * want.sum);
    expect_near(p.span, expected, 0);
  });
}

TEST(Bf16, GradientsOfARowOfScores) {
  sweep([](Rng& rng, size_t size) {
    Row<float> scores = normal(rng, size, 3.0), d_p = normal(rng, size, 1.0);
    const size_t seen = 1 + rng.below(size);
    const ExpRowGradient row{
        .scores = scores.span, .d_p = d_p.span, .log_sum = 4.0f, .mean = 0.25f};
    Row<uint16_t> p(size), d(size);
    exp_row_backward(row, seen, p.span, d.span);
    std::vector<double> expected_p(size), expected_d(size);
    reference::exp_row_backward(row, seen, expected_p, expected_d);
    expect_near(p.span, expected_p, 0);
    for (double& x : expected_p) x *= kFloat;  // d_p - mean cancels
    for (size_t i = 0; i < size; ++i) {
      ASSERT_NEAR(widen(d.span[i]), expected_d[i],
                  (kHalfStep + kFloat) * std::abs(expected_d[i]) + expected_p[i]);
    }
  });
}

TEST(Bf16, SwigluAndItsGradient) {
  sweep([](Rng& rng, size_t size) {
    Row<uint16_t> gate = normal_bf16(rng, size, 4.0), up = normal_bf16(rng, size, 2.0),
                  d = normal_bf16(rng, size, 1.0), out(size), d_gate(size), d_up(size);
    gate.span[0] = 0xc2c8;  // -100: exp(100) has no float32
    std::vector<double> expected(size), expected_gate(size), expected_up(size);
    swiglu_bf16(gate.span, up.span, out.span);
    reference::swiglu_bf16(gate.span, up.span, expected);
    expect_near(out.span, expected, 1e-30);
    const SwigluGradient in{d.span, gate.span, up.span};
    swiglu_bf16_backward(in, d_gate.span, d_up.span);
    reference::swiglu_bf16_backward(in, expected_gate, expected_up);
    expect_near(d_gate.span, expected_gate, 1e-6);
    expect_near(d_up.span, expected_up, 1e-30);
  });
}

TEST(Bf16, LossOfLogits) {
  sweep([](Rng& rng, size_t size) {
    const Row<uint16_t> teacher = normal_bf16(rng, size, 3.0);
    const Row<uint16_t> student = normal_bf16(rng, size, 3.0);
    std::vector<float> scratch(2 * size);
    for (const bool taught : {true, false}) {
      const VocabularyRow row{.teacher = taught ? teacher.span : std::span<uint16_t>(),
                              .student = student.span,
                              .target = rng.below(size),
                              .kl_weight = 0.75f,
                              .cross_entropy_weight = 0.5f};
      Row<uint16_t> gradient(size);
      std::vector<double> expected(size);
      const VocabularyLoss got = vocabulary_loss(row, scratch, gradient.span);
      const VocabularyLoss want = reference::vocabulary_loss(row, expected);
      ASSERT_NEAR(got.kl, want.kl, 1e-5 * (1.0 + want.kl));
      ASSERT_NEAR(got.cross_entropy, want.cross_entropy, 1e-5 * (1.0 + want.cross_entropy));
      expect_near(gradient.span, expected, 1e-6);
    }
  });
}

}  // namespace
}  // namespace mkv
