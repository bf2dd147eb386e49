#include "nest/flash_kernels.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "base/half.h"
#include "nest/code_fixture.h"
#include "nest/flash_reference.h"
#include "ops/each_instruction_set.h"

namespace mkv {
namespace {

// As the kernels in use see a number: words are close enough to the number itself.
float rounded(float x) { return has_amx() ? bf16_to_f32(f32_to_bf16(x)) : x; }

// A head's rows of queries and its blocks, packed for kernels of exact blocks or of codes.
class PackedHead {
 public:
  PackedHead(bool codes, const Matrix<float>& queries, size_t repeats, float scale, size_t blocks)
      : dim_(queries.cols()),
        codes_(codes ? flash::code_kernels(dim_) : nullptr),
        packed_(codes_ != nullptr ? flash::packed_code_size(dim_) : flash::packed_size(dim_)),
        order_(dim_),
        room_((queries.rows() + flash::kGroupRows - 1) / flash::kGroupRows * flash::kGroupRows),
        q_(room_ * flash::packed_query_size(dim_)),
        k_(blocks * packed_),
        v_(blocks * packed_),
        sums_(room_, dim_),
        tops_(room_, -HUGE_VALF),
        totals_(room_),
        steps_(room_) {
    tile = {.queries = q_.data(),
            .rows = queries.rows(),
            .repeats = repeats,
            .head_dim = dim_,
            .sums = sums_.data(),
            .tops = tops_.data(),
            .totals = totals_.data(),
            .steps = steps_.data()};
    flash::order_columns(queries.view(), order_);
    for (size_t r = 0; r < queries.rows(); ++r) {
      if (codes_ != nullptr) {
        codes_->pack_query(queries.row(r), scale, order_.data(), tile, r);
      } else {
        flash::kernels(dim_)->pack_query(queries.row(r), scale, tile, r);
      }
    }
  }

  // Columns [dim][64].
  void pack(size_t block, View<const float> keys, View<const float> values) {
    uint16_t *k = k_.data() + block * packed_, *v = v_.data() + block * packed_;
    if (codes_ != nullptr) {
      codes_->pack_keys(keys, order_.data(), k);
      codes_->pack_values(values, v);
    } else {
      flash::kernels(dim_)->pack_keys(keys, k);
      flash::kernels(dim_)->pack_values(values, v);
    }
  }
  void attend(size_t block) {
    const auto attend_block =
        codes_ != nullptr ? codes_->attend_block : flash::kernels(dim_)->attend_block;
    attend_block(tile, k_.data() + block * packed_, v_.data() + block * packed_);
  }
  // Makes a row's sums 1, as of tokens of a score of 40.
  void has_seen_much(size_t row) {
    tile.tops[row] = 40.0f;
    tile.totals[row] = 1.0f;
    for (size_t c = 0; c < dim_; ++c) {
      // AMX has the rows of a group beside each other.
      const size_t group = row / flash::kGroupRows * flash::kGroupRows, in_group = row - group;
      const size_t at = (group * dim_) + c * flash::kGroupRows + in_group;
      tile.sums[has_amx() ? at : row * dim_ + c] = 1.0f;
    }
  }
  void finish(size_t row, std::span<float> out) { flash::kernels(dim_)->finish(tile, row, out); }
  // A query or a key as the kernels see it.
  std::vector<float> seen(std::span<const float> x, bool query) const {
    if (codes_ != nullptr) {
      return flash::rounded_as_code(x, order_, query ? codes_->queries : codes_->keys);
    }
    std::vector<float> out(x.begin(), x.end());
    for (float& y : out) y = rounded(y);
    return out;
  }

  flash::Tile tile;

 private:
  size_t dim_;
  const flash::CodeKernels* codes_;
  size_t packed_;
  std::vector<uint16_t> order_;
  size_t room_;
  Buffer<uint16_t> q_, k_, v_;
  Matrix<float> sums_;
  std::vector<float> tops_, totals_, steps_;
};

// Tokens of the last of three blocks, of which each sees the last `window` up to itself.
void expect_softmax_of_rounded_values(bool codes, size_t dim, size_t tokens, size_t window,
                                      double bound) {
  const size_t repeats = 3, rows = tokens * repeats, blocks = 3, before = (blocks - 1) * 64;
  const Matrix<float> queries = random_matrix(rows, dim, 1);
  const Matrix<float> keys = random_matrix(dim, blocks * 64, 2);
  const Matrix<float> values = random_matrix(dim, blocks * 64, 3);
  PackedHead head(codes, queries, repeats, 0.25f, blocks);
  for (size_t b = 0; b < blocks; ++b) {
    head.pack(b, {keys.data() + b * 64, dim, 64, blocks * 64},
              {values.data() + b * 64, dim, 64, blocks * 64});
  }
  for (size_t b = 0; b < blocks; ++b) {
    const bool last = b + 1 == blocks;
    head.tile.first = last ? 1u : 64u;
    head.tile.step = last ? 1u : 0u;
    head.tile.hidden = static_cast<ptrdiff_t>(before + 1 - b * 64) - static_cast<ptrdiff_t>(window);
    head.attend(b);
  }
  std::vector<std::vector<float>> seen;
  for (size_t t = 0; t < blocks * 64; ++t) {
    std::vector<float> key(dim);
    for (size_t c = 0; c < dim; ++c) key[c] = keys.at(c, t);
    seen.push_back(head.seen(key, false));
  }
  std::vector<float> out(dim);
  for (size_t r = 0; r < rows; ++r) {
    head.finish(r, out);
    const std::vector<float> query = head.seen(queries.row(r), true);
    std::vector<double> expected(dim);
    double total = 0.0;
    const size_t end = before + r / repeats + 1;
    for (size_t t = end > window ? end - window : 0; t < end; ++t) {
      double score = 0.0;
      for (size_t c = 0; c < dim; ++c) {
        score += static_cast<double>(query[c]) * static_cast<double>(seen[t][c]);
      }
      score *= 0.25;
      total += std::exp(score);
      for (size_t c = 0; c < dim; ++c) {
        expected[c] += std::exp(score) * static_cast<double>(rounded(values.at(c, t)));
      }
    }
    for (size_t c = 0; c < dim; ++c) {
      EXPECT_NEAR(out[c], expected[c] / total, bound) << r << " " << c;
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
          SCOPED_TRACE(::testing::Message() << dim << " " << tokens << " " << window);
          // Weights are rounded too: with bf16 2^-9 each, of values of some units.
          const double bound = has_amx() ? 6e-3 : 4e-3;
          expect_softmax_of_rounded_values(false, dim, tokens, window, bound);
          if (flash::code_kernels(dim) == nullptr) continue;
          // Bytes: 1/254 of a column's largest value; of weights as much or, with AVX2, of 16
          // tokens' together, and dither.
          expect_softmax_of_rounded_values(true, dim, tokens, window, has_vnni() ? 3e-2 : 4.5e-2);
        }
      }
    }
  });
  if (sets == 0) GTEST_SKIP() << "no instruction set of this machine has such kernels";
}

// Scores of codes add up in words: neither the largest that their norms allow, of either sign, nor
// ones that are all nearly the same, nor none at all may leave them.
TEST(FlashKernels, ScoresOfCodesStayInTheirWords) {
  size_t sets = 0;
  for_each_instruction_set([&sets] {
    if (flash::code_kernels(64) == nullptr) return;
    ++sets;
    for (const size_t dim : {64u, 128u, 256u}) {
      // Which columns are not zero: all, one of the bytes, one top column, both, all the bytes.
      const auto pattern = [dim](size_t kind, size_t c) {
        const bool last = c + 1 == dim, first = c == 0;
        return kind == 0 || (kind == 1 && last) || (kind == 2 && first) ||
               (kind == 3 && (first || last)) || (kind == 4 && c >= flash::top_columns(dim));
      };
      for (size_t kind = 0; kind < 5; ++kind) {
        for (const float size : {1e-30f, 1e-3f, 0.5f, 20.0f, 1e15f}) {
          SCOPED_TRACE(::testing::Message() << dim << " " << kind << " " << size);
          Matrix<float> queries(2, dim), keys(dim, 64), values(dim, 64);
          for (size_t c = 0; c < dim; ++c) {
            const float sign = c % 3 == 0 ? -1.0f : 1.0f;
            // The second query makes the first quarter the top columns.
            queries.at(0, c) = pattern(kind, c) ? size * sign : 0.0f;
            queries.at(1, c) = c < flash::top_columns(dim) ? 4.0f * size : 0.0f;
            for (size_t t = 0; t < 64; ++t) {
              keys.at(c, t) = pattern(kind, c) ? (t % 2 == 0 ? sign : -sign) : 0.0f;
              values.at(c, t) = t % 2 == 0 ? 1.0f : -1.0f;
            }
          }
          PackedHead head(true, queries, 1, 1.0f, 1);
          head.pack(0, keys.view(), values.view());
          head.attend(0);
          std::vector<float> out(dim);
          head.finish(0, out);
          const size_t of_kind[] = {dim, 1, 1, 2, dim - flash::top_columns(dim)};
          const double score = static_cast<double>(size) * static_cast<double>(of_kind[kind]);
          for (const float x : out) ASSERT_NEAR(x, std::tanh(score), 2e-2);
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
    const size_t dim = 64;
    for (const bool codes : {false, true}) {
      // Of bytes with AVX2, a sixteenth of a unit of which a weight has seven or more.
      const bool coarse = codes && flash::code_kernels(dim) != nullptr && !has_vnni();
      const float bound = coarse ? 3.0f / 16.0f / 7.0f : 1e-3f;
      for (size_t seen = 1; seen <= 64; ++seen) {
        SCOPED_TRACE(seen);
        PackedHead head(codes, Matrix<float>(1, dim), 1, 1.0f, 2);
        // A block of 64 tokens of 3, and one of -3 of which the row sees some.
        for (const size_t block : {0u, 1u}) {
          Matrix<float> columns(dim, 64);
          std::ranges::fill(columns.span(), block == 0 ? 3.0f : -3.0f);
          head.pack(block, columns.view(), columns.view());
          head.tile.first = block == 0 ? 64 : seen;
          head.attend(block);
        }
        std::vector<float> out(dim);
        head.finish(0, out);
        const auto count = static_cast<float>(seen);
        for (const float x : out) {
          ASSERT_NEAR(x, 3.0f * (64.0f - count) / (64.0f + count), bound);
        }
      }
    }
  });
}

// Rows that have seen so much that a block is nothing to them stay as they are, but for those that
// fill up a group; the others get what they would get without such rows.
TEST(FlashKernels, RowsLeaveOutBlocksOfNegligibleWeight) {
  size_t sets = 0;
  for_each_instruction_set([&sets] {
    if (flash::kernels(64) == nullptr) return;
    ++sets;
    const size_t dim = 64, rows = 150, repeats = 3;
    const Matrix<float> queries = random_matrix(rows, dim, 1), keys = random_matrix(dim, 64, 2);
    const Matrix<float> values = random_matrix(dim, 64, 3);
    const auto is_light = [](size_t row) { return row % 5 < 2; };
    for (const bool codes : {false, true}) {
      PackedHead some(codes, queries, repeats, 0.25f, 1), none(codes, queries, repeats, 0.25f, 1);
      for (PackedHead* head : {&some, &none}) head->pack(0, keys.view(), values.view());
      // Scores are some 2 in size, so 40 powers of 2 are more than 15 above all of them.
      for (size_t r = 0; r < rows; ++r) {
        if (is_light(r)) some.has_seen_much(r);
      }
      for (PackedHead* head : {&some, &none}) head->attend(0);
      size_t left_out = 0;
      std::vector<float> out(dim), expected(dim);
      for (size_t r = 0; r < rows; ++r) {
        some.finish(r, out);
        none.finish(r, expected);
        if (!is_light(r)) {
          EXPECT_EQ(out, expected) << r;
          continue;
        }
        for (const float x : out) EXPECT_NEAR(x, 1.0f, 0x1p-13f);
        left_out += some.tile.totals[r] == 1.0f && out == std::vector(dim, 1.0f);
      }
      // Those of AMX compute them all.
      if (has_amx()) continue;
      EXPECT_GE(left_out, rows / 5 * 2 - rows / 48 * 5) << codes;
    }
  });
  if (sets == 0) GTEST_SKIP() << "no instruction set of this machine has such kernels";
}

// The more tokens, the less each may weigh that is left out.
TEST(FlashKernels, ManyTokensLeaveOutLess) {
  EXPECT_EQ(negligible_power(1), 15);
  EXPECT_EQ(negligible_power(2048), 15);
  EXPECT_EQ(negligible_power(2049), 16);
  for (const size_t tokens : {100u, 5000u, 8192u, 100'000u, 1u << 20}) {
    EXPECT_LE(std::ldexp(static_cast<double>(tokens), -negligible_power(tokens)), 0x1p-4);
  }
  size_t sets = 0;
  for_each_instruction_set([&sets] {
    if (flash::kernels(64) == nullptr || has_amx()) return;
    ++sets;
    const size_t dim = 64, rows = 12;
    Matrix<float> queries(rows, dim), keys(dim, 64), values(dim, 64);
    std::ranges::fill(queries.span(), 0.0f);
    std::ranges::fill(keys.span(), 0.0f);
    std::ranges::fill(values.span(), 1.0f);
    for (const bool codes : {false, true}) {
      for (const int power : {15, 20}) {
        PackedHead head(codes, queries, 3, 0.25f, 1);
        head.pack(0, keys.view(), values.view());
        head.tile.negligible = power;
        for (size_t r = 0; r < rows; ++r) {
          head.tile.tops[r] = 17.0f;  // as a power of 2
          head.tile.totals[r] = 1.0f;
          std::fill_n(head.tile.sums + r * dim, dim, 0.0f);
        }
        head.attend(0);
        std::vector<float> out(dim);
        head.finish(0, out);
        const float expected = power == 15 ? 0.0f : 64.0f / (64.0f + 0x1p17f);
        for (const float x : out) EXPECT_NEAR(x, expected, 1e-5f) << codes << power;
      }
    }
  });
  if (sets == 0) GTEST_SKIP() << "no instruction set of this machine has such kernels";
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
    const bool bytes = flash::code_kernels(64) != nullptr;
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
