#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "ops/ops.h"
#include "ops/ops_testing.h"
#include "ops/reference.h"
#include "ops/rotary.h"

namespace mkv {
namespace {

using testing::Misaligned;

constexpr double kEps = 0x1p-24;
constexpr float kInf = std::numeric_limits<float>::infinity();

std::vector<float> copy(std::span<const float> s) { return {s.begin(), s.end()}; }

double magnitude(std::span<const float> a, std::span<const float> b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += std::abs(static_cast<double>(a[i]) * b[i]);
  return sum;
}

// fn(rng, size) for every instruction set and size.
template <class Fn>
void sweep(const Fn& fn) {
  for_each_instruction_set([&] {
    Rng rng(7);
    for (const size_t size : testing::sizes()) {
      SCOPED_TRACE(size);
      fn(rng, size);
    }
  });
}

void expect_near(std::span<const float> got, std::span<const float> expected, double relative,
                 double absolute = 0) {
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_NEAR(got[i], expected[i], relative * std::abs(expected[i]) + absolute) << i;
  }
}

TEST(VectorKernels, Dot) {
  sweep([](Rng& rng, size_t size) {
    Misaligned a(rng, size), b(rng, size);
    ASSERT_NEAR(dot(a.span(), b.span()), reference::dot(a.span(), b.span()),
                16 * kEps * magnitude(a.span(), b.span()));
  });
}

TEST(VectorKernels, IndexOfLargest) {
  sweep([](Rng& rng, size_t size) {
    Misaligned x(rng, size);
    const auto expect_equal = [&] {
      ASSERT_EQ(index_of_largest(x.span()), reference::index_of_largest(x.span()));
    };
    expect_equal();
    for (int twice = 0; twice < 3; ++twice) {  // the first of equals, wherever they are
      for (int i = 0; i < 2 && size > 0; ++i)
        x.span()[rng.below(size)] = 100.0f + static_cast<float>(twice);
      expect_equal();
    }
    for (float& value : x.span()) value = rng.below(2) == 0 ? std::nanf("") : value;
    expect_equal();
    for (float& value : x.span()) value = rng.below(2) == 0 ? std::nanf("") : -kInf;
    ASSERT_EQ(index_of_largest(x.span()), size);
    for (float& value : x.span()) value = kInf;
    ASSERT_EQ(index_of_largest(x.span()), 0u);
  });
  Rng rng(8);  // larger than what is looked into at once
  for_each_instruction_set([&] {
    for (const size_t size : {1023u, 1024u, 1025u, 5000u}) {
      Misaligned x(rng, size);
      ASSERT_EQ(index_of_largest(x.span()), reference::index_of_largest(x.span()));
      x.span()[size - 1] = 100.0f;
      ASSERT_EQ(index_of_largest(x.span()), size - 1);
    }
  });
}

TEST(VectorKernels, Axpy) {
  sweep([](Rng& rng, size_t size) {
    Misaligned x(rng, size), y(rng, size);
    std::vector<float> expected = copy(y.span());
    reference::axpy(0.7f, x.span(), expected);
    axpy(0.7f, x.span(), y.span());
    expect_near(y.span(), expected, 0, 2 * kEps * 8);
  });
}

TEST(VectorKernels, RmsNorm) {
  sweep([](Rng& rng, size_t size) {
    Misaligned x(rng, size), weight(rng, size), out(rng, size);
    std::vector<float> expected(size);
    reference::rms_norm(x.span(), weight.span(), 1e-5f, expected);
    rms_norm(x.span(), weight.span(), 1e-5f, out.span());
    expect_near(out.span(), expected, 16 * kEps);
    rms_norm(x.span(), weight.span(), 1e-5f, x.span());  // in place
    ASSERT_EQ(copy(x.span()), copy(out.span()));
  });
}

TEST(VectorKernels, Swiglu) {
  sweep([](Rng& rng, size_t size) {
    Misaligned gate(rng, size), up(rng, size);
    for (size_t i = 0; i < size; i += 3) gate.span()[i] *= 40.0f;
    if (size > 9) {
      gate.span()[1] = 1e30f;
      gate.span()[4] = -1e30f;
    }
    std::vector<float> expected = copy(gate.span());
    reference::swiglu(expected, up.span());
    swiglu(gate.span(), up.span());
    expect_near(gate.span(), expected, 16 * kEps, 1e-33);
  });
}

TEST(VectorKernels, Geglu) {
  sweep([](Rng& rng, size_t size) {
    Misaligned gate(rng, size), up(rng, size);
    for (size_t i = 0; i < size; i += 3) gate.span()[i] *= 4.0f;
    if (size > 9) {
      gate.span()[1] = 1e30f;
      gate.span()[4] = -1e30f;
    }
    std::vector<float> expected = copy(gate.span());
    reference::geglu(expected, up.span());
    geglu(gate.span(), up.span());
    // The rounding of exp()'s argument, at most 88 in size, is a relative error of exp().
    expect_near(gate.span(), expected, (3 * 88 + 16) * kEps, 1e-33);
  });
}

TEST(VectorKernels, Softmax) {
  sweep([](Rng& rng, size_t size) {
    Misaligned x(rng, size);
    for (size_t i = 1; i < size; i += 5) x.span()[i] = -kInf;
    for (size_t i = 2; i < size; i += 7) x.span()[i] *= 100.0f;
    std::vector<float> expected = copy(x.span());
    reference::softmax(expected, 0.35f);
    softmax(x.span(), 0.35f);
    // The rounding of x - max, at most 88 before exp() is 0, is a relative error of exp().
    expect_near(x.span(), expected, (88 + 16) * kEps, 1e-37);
    for (size_t i = 1; i < size; i += 5) ASSERT_EQ(x.span()[i], 0.0f);
  });
}

TEST(VectorKernels, SoftmaxOfNothing) {
  sweep([](Rng&, size_t size) {
    std::vector<float> x(size, -kInf);
    softmax(x, 0.5f);
    ASSERT_EQ(x, std::vector<float>(size, 0.0f));
  });
}

TEST(VectorKernels, NanShows) {
  sweep([](Rng& rng, size_t size) {
    if (size == 0) return;
    std::vector<float> x = testing::normals(rng, size);
    x[rng.below(size)] = std::numeric_limits<float>::quiet_NaN();
    ASSERT_TRUE(std::isnan(log_sum_exp(x)));
    std::vector<float> gate = x;
    swiglu(gate, testing::normals(rng, size));
    ASSERT_TRUE(std::isnan(dot(gate, gate)));
    gate = x;
    geglu(gate, testing::normals(rng, size));
    ASSERT_TRUE(std::isnan(dot(gate, gate)));
    softmax(x, 1.0f);
    for (const float v : x) ASSERT_TRUE(std::isnan(v));
  });
}

TEST(VectorKernels, LogSumExp) {
  sweep([](Rng& rng, size_t size) {
    Misaligned x(rng, size);
    for (float& v : x.span()) v = v * 30.0f + 500.0f;
    for (size_t i = 1; i < size; i += 5) x.span()[i] = -kInf;
    const double expected = reference::log_sum_exp(x.span());
    if (size == 0) {
      ASSERT_EQ(log_sum_exp(x.span()), -kInf);
    } else {
      ASSERT_NEAR(log_sum_exp(x.span()), expected, 4 * kEps * std::abs(expected));
    }
  });
  ASSERT_EQ(log_sum_exp(std::vector<float>(19, -kInf)), -kInf);
}

TEST(VectorKernels, LogSumExpOfManyLogits) {
  Rng rng(3);
  const std::vector<float> x = testing::normals(rng, 128256, 3.0);
  ASSERT_NEAR(log_sum_exp(x), reference::log_sum_exp(x), 2e-6);
}

TEST(VectorKernels, EveryHalfRoundTrips) {
  for_each_instruction_set([] {
    std::vector<uint16_t> halves;
    for (size_t i = 0; i < 65536; ++i) {
      if ((i & 0x7fff) <= 0x7c00) halves.push_back(static_cast<uint16_t>(i));
    }
    std::vector<float> got(halves.size()), expected(halves.size());
    f16_to_f32(halves, got);
    reference::f16_to_f32(halves, expected);
    ASSERT_EQ(std::memcmp(got.data(), expected.data(), got.size() * sizeof(float)), 0);
    std::vector<uint16_t> back(halves.size());
    f32_to_f16(got, back);
    ASSERT_EQ(back, halves);
  });
}

TEST(VectorKernels, F32ToF16RoundsToNearestEven) {
  sweep([](Rng& rng, size_t size) {
    std::vector<float> x(size);
    for (float& v : x) v = static_cast<float>(rng.normal() * std::exp2(40 * rng.uniform() - 25));
    if (size > 3) {
      x[0] = kInf;
      x[1] = -65520.0f;        // rounds to infinity
      x[2] = 1.0f + 0x1p-11f;  // halfway, to even
    }
    std::vector<uint16_t> got(size), expected(size);
    f32_to_f16(x, got);
    reference::f32_to_f16(x, expected);
    ASSERT_EQ(got, expected);
  });
}

TEST(VectorKernels, Rope) {
  sweep([](Rng& rng, size_t half) {
    Misaligned head(rng, 2 * half + 3), cos(rng, half), sin(rng, half);
    std::vector<float> expected = copy(head.span());
    reference::rope(expected, cos.span(), sin.span());
    rope(head.span(), cos.span(), sin.span());
    expect_near(head.span(), expected, 0, 64 * kEps);
    for (size_t i = 2 * half; i < 2 * half + 3; ++i) ASSERT_EQ(head.span()[i], expected[i]);
  });
}

TEST(Rotary, Angles) {
  const Rotary rotary({1.0, 0.25, 1e-4});
  ASSERT_EQ(rotary.pairs(), 3u);
  std::vector<float> cos(3), sin(3), back_cos(3), back_sin(3);
  rotary.angles(100000, cos, sin);
  rotary.angles(-100000, back_cos, back_sin);
  for (size_t i = 0; i < 3; ++i) {
    const double angle = 100000 * rotary.inverse_frequency()[i];
    EXPECT_EQ(cos[i], static_cast<float>(std::cos(angle)));
    EXPECT_EQ(sin[i], static_cast<float>(std::sin(angle)));
    EXPECT_EQ(back_cos[i], cos[i]);
    EXPECT_EQ(back_sin[i], -sin[i]);
  }
}

TEST(Rotary, TurnsBack) {
  Rng rng(9);
  std::vector<double> frequencies(32);
  for (size_t i = 0; i < 32; ++i) frequencies[i] = std::pow(10000.0, -static_cast<double>(i) / 32);
  const Rotary rotary(frequencies);
  const std::vector<float> head = testing::normals(rng, 64);
  std::vector<float> turned = head, cos(32), sin(32);
  rotary.angles(12345, cos, sin);
  rope(turned, cos, sin);
  rotary.angles(-12345, cos, sin);
  rope(turned, cos, sin);
  expect_near(turned, head, 0, 32 * kEps);
}

TEST(InstructionSet, NamesAndErrors) {
  const auto names = instruction_sets();
  ASSERT_FALSE(names.empty());
  EXPECT_EQ(instruction_set(), names.front());
  const auto bad = set_instruction_set("avx9000");
  ASSERT_FALSE(bad.has_value());
  EXPECT_EQ(bad.error().code, ErrorCode::invalid_argument);
  for (const std::string_view name : names) {
    EXPECT_NE(bad.error().message.find(name), std::string::npos) << bad.error().message;
  }
  EXPECT_EQ(instruction_set(), names.front());
}

}  // namespace
}  // namespace mkv
