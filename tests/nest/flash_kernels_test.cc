#include "nest/flash_kernels.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "base/half.h"
#include "nest/code_fixture.h"
#include "ops/each_instruction_set.h"

namespace mkv {
namespace {

// As the kernels in use see a number: words are close enough to the number itself.
float rounded(float x) { return has_vnni() ? bf16_to_f32(f32_to_bf16(x)) : x; }

// Tokens of the last of three blocks, of which each sees the last `window` up to itself.
void expect_softmax_of_rounded_values(const flash::Kernels& of_blocks, size_t dim, size_t tokens,
                                      size_t window, double bound) {
  const size_t repeats = 3, rows = tokens * repeats, blocks = 3, before = (blocks - 1) * 64;
  const Matrix<float> queries = random_matrix(rows, dim, 1);
  const Matrix<float> keys = random_matrix(dim, blocks * 64, 2);
  const Matrix<float> values = random_matrix(dim, blocks * 64, 3);
  const flash::Kernels& flash = *flash::kernels(dim);
  const size_t room = (rows + flash::kGroupRows - 1) / flash::kGroupRows * flash::kGroupRows;
  const size_t packed = flash::packed_size(dim);
  Buffer<uint16_t> q(room * dim), k(blocks * packed), v(k.size());
  Matrix<float> sums(room, dim), out(rows, dim);
  std::vector<float> tops(room, -HUGE_VALF), totals(room), steps(room);
  flash::Tile tile{.queries = q.data(),
                   .rows = rows,
                   .repeats = repeats,
                   .head_dim = dim,
                   .sums = sums.data(),
                   .tops = tops.data(),
                   .totals = totals.data(),
                   .steps = steps.data()};
  for (size_t r = 0; r < rows; ++r) flash.pack_query(queries.row(r), 0.25f, tile, r);
  for (size_t b = 0; b < blocks; ++b) {
    of_blocks.pack_keys({keys.data() + b * 64, dim, 64, blocks * 64}, k.data() + b * packed);
    of_blocks.pack_values({values.data() + b * 64, dim, 64, blocks * 64}, v.data() + b * packed);
  }
  for (size_t b = 0; b < blocks; ++b) {
    const bool last = b + 1 == blocks;
    tile.first = last ? 1u : 64u;
    tile.step = last ? 1u : 0u;
    tile.hidden = static_cast<ptrdiff_t>(before + 1 - b * 64) - static_cast<ptrdiff_t>(window);
    of_blocks.attend_block(tile, k.data() + b * packed, v.data() + b * packed);
  }
  for (size_t r = 0; r < rows; ++r) {
    flash.finish(tile, r, out.row(r));
    std::vector<double> expected(dim);
    double total = 0.0;
    const size_t end = before + r / repeats + 1;
    for (size_t t = end > window ? end - window : 0; t < end; ++t) {
      double score = 0.0;
      for (size_t c = 0; c < dim; ++c) {
        score += static_cast<double>(rounded(0.25f * queries.at(r, c))) *
                 static_cast<double>(rounded(keys.at(c, t)));
      }
      total += std::exp(score);
      for (size_t c = 0; c < dim; ++c) {
        expected[c] += std::exp(score) * static_cast<double>(rounded(values.at(c, t)));
      }
    }
    for (size_t c = 0; c < dim; ++c) {
      EXPECT_NEAR(out.at(r, c), expected[c] / total, bound) << r << " " << c;
    }
  }
}

TEST(FlashKernels, BlocksEqualTheSoftmaxOfRoundedValues) {
  size_t sets = 0;
  for_each_instruction_set([&sets] {
    if (flash::kernels(64) == nullptr) return;
    ++sets;
    for (const size_t dim : {64u, 128u}) {
      for (const size_t tokens : {1u, 5u, 64u}) {
        for (const size_t window : {200u, 100u, 64u, 20u, 1u}) {
          SCOPED_TRACE(testing::Message() << dim << " " << tokens << " " << window);
          // Weights are rounded too: with bf16 2^-9 each, of values of some units.
          const double bound = has_vnni() ? 6e-3 : 4e-3;
          const flash::Kernels *exact = flash::kernels(dim),
                               *of_codes = flash::kernels_of_codes(dim);
          expect_softmax_of_rounded_values(*exact, dim, tokens, window, bound);
          if (of_codes == exact) continue;
          // Bytes: 1/254 of a column's largest value, as much of 16 tokens' weights and dither.
          expect_softmax_of_rounded_values(*of_codes, dim, tokens, window, 4.5e-2);
        }
      }
    }
  });
  if (sets == 0) GTEST_SKIP() << "no instruction set of this machine has such kernels";
}

// Equal weights, all of which are rounded one way, times values that are all the largest: neither
// their sums nor their share of the whole may be off.
TEST(FlashKernels, EqualWeightsOfTheLargestValuesKeepTheirSum) {
  for_each_instruction_set([] {
    if (flash::kernels(64) == nullptr) return;
    const size_t dim = 64, packed = flash::packed_size(dim);
    for (const flash::Kernels* of_blocks : {flash::kernels(dim), flash::kernels_of_codes(dim)}) {
      const std::vector<float> query(dim, 0.0f);
      // Of bytes, a sixteenth of a unit of which a weight has seven or more.
      const float bound = of_blocks == flash::kernels(dim) ? 1e-3f : 3.0f / 16.0f / 7.0f;
      for (size_t seen = 1; seen <= 64; ++seen) {
        SCOPED_TRACE(seen);
        Buffer<uint16_t> q(flash::kGroupRows * dim), k(2 * packed), v(2 * packed);
        Matrix<float> sums(flash::kGroupRows, dim), out(1, dim);
        std::vector<float> top(flash::kGroupRows, -HUGE_VALF), total(top.size()), step(top.size());
        flash::Tile tile{.queries = q.data(),
                         .rows = 1,
                         .head_dim = dim,
                         .sums = sums.data(),
                         .tops = top.data(),
                         .totals = total.data(),
                         .steps = step.data()};
        flash::kernels(dim)->pack_query(query, 1.0f, tile, 0);
        // A block of 64 tokens of 3, and one of -3 of which the row sees some.
        for (const float value : {3.0f, -3.0f}) {
          Matrix<float> columns(dim, 64);
          std::ranges::fill(columns.span(), value);
          const size_t at = value > 0.0f ? 0 : packed;
          of_blocks->pack_keys(columns.view(), k.data() + at);
          of_blocks->pack_values(columns.view(), v.data() + at);
          tile.first = value > 0.0f ? 64 : seen;
          of_blocks->attend_block(tile, k.data() + at, v.data() + at);
        }
        flash::kernels(dim)->finish(tile, 0, out.row(0));
        const auto count = static_cast<float>(seen);
        for (const float x : out.row(0)) {
          ASSERT_NEAR(x, 3.0f * (64.0f - count) / (64.0f + count), bound);
        }
      }
    }
  });
}

// A nest with heads of 64: the whole prefill, sinks, codes and the window; and the exact cache.
TEST(FlashKernels, PrefillIsCloseToFloatAndTheSameForAnyNumberOfWorkers) {
  const size_t tokens = 333;
  NestConfig config;
  config.shape = {1, 2, 64};
  config.group_size = 2;
  config.recent = 64;
  const Nest nest = make_code_nest(config, 60, 3);
  const auto run = [&](bool coded, const LayerTypes& types, Arithmetic arithmetic, size_t threads,
                       size_t chunk) {
    const KvOptions options{.arithmetic = arithmetic};
    KvCache cache = coded ? KvCache(nest, nest.full_ranks(), types, tokens, options)
                          : KvCache(config.shape, types, tokens, options);
    return feed_layer(cache, {.queries = 384, .keys = 128, .scale = 0.125f}, tokens, chunk, 1,
                      threads);
  };
  const auto expect_close = [&](bool coded, const LayerTypes& types, size_t chunk, double bound) {
    const Matrix<float> expected = run(coded, types, Arithmetic::float32, 2, chunk);
    const Matrix<float> one = run(coded, types, Arithmetic::fast, 1, chunk),
                        two = run(coded, types, Arithmetic::fast, 2, chunk);
    double noise = 0.0, power = 0.0;
    for (size_t i = 0; i < one.span().size(); ++i) {
      EXPECT_EQ(one.span()[i], two.span()[i]);
      noise += std::pow(one.span()[i] - expected.span()[i], 2);
      power += std::pow(expected.span()[i], 2);
    }
    EXPECT_LT(std::sqrt(noise / power), bound) << (coded ? "coded" : "exact");
  };
  size_t sets = 0;
  for_each_instruction_set([&] {
    if (flash::kernels(64) == nullptr) return;
    ++sets;
    // Values of codes may be bytes: a column of 64 random ones has a largest of some 2.7 times
    // their size, so rounding alone is 0.6 %.
    const bool bytes = flash::kernels_of_codes(64) != flash::kernels(64);
    for (const LayerTypes& types : {layers_alike(64), layers_alike(64, 150), layers_alike(64, 3)}) {
      for (const size_t chunk : {tokens, size_t{100}}) {
        expect_close(true, types, chunk, bytes ? 1.2e-2 : 5e-3);
        expect_close(false, types, chunk, 5e-3);
      }
    }
  });
  if (sets == 0) GTEST_SKIP() << "no instruction set of this machine has such kernels";
}

TEST(FlashKernels, LoweredInstructionSetsHaveNone) {
  for (const std::string_view set : instruction_sets()) {
    ASSERT_TRUE(set_instruction_set(set));
    EXPECT_EQ(flash::kernels(64) != nullptr, set.starts_with("avx")) << set;
  }
  ASSERT_TRUE(set_instruction_set("auto"));
  EXPECT_EQ(flash::kernels(80), nullptr);
}

}  // namespace
}  // namespace mkv
