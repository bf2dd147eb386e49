// Properties of caches of code slabs: prefixes, shrinking, one view for prefill and decode, bytes.
#include <gtest/gtest.h>

#include "base/half.h"
#include "nest/code_fixture.h"
#include "nest/kv_cache.h"
#include "ops/each_instruction_set.h"

namespace mkv {
namespace {

constexpr size_t kTokens = 230, kSlabs = 40;

struct Case {
  size_t group_size = 2, recent = 64;
  size_t window = kWholeContext;
};

NestConfig config_of(const Case& c) {
  NestConfig config;
  config.shape = {1, 2, 16};
  config.group_size = c.group_size;
  config.recent = c.recent;
  return config;
}

Matrix<float> feed(KvCache& cache, size_t tokens, size_t chunk, uint64_t seed = 1,
                   size_t threads = 2) {
  return feed_layer(cache, {.queries = 64, .keys = 32, .scale = 0.25f}, tokens, chunk, seed,
                    threads);
}

double largest_difference(const Matrix<float>& a, const Matrix<float>& b) {
  double worst = 0.0;
  for (size_t i = 0; i < a.span().size(); ++i) {
    worst = std::max<double>(worst, std::abs(a.span()[i] - b.span()[i]));
  }
  return worst;
}

double squared_difference(const Matrix<float>& a, const Matrix<float>& b) {
  double sum = 0.0;
  for (size_t i = 0; i < a.span().size(); ++i) {
    sum += std::pow(static_cast<double>(a.span()[i] - b.span()[i]), 2);
  }
  return sum;
}

// Reading a basis as 16 bits that hold it changes nothing.
TEST(CompactNest, AttentionIsTheSame) {
  NestConfig config = config_of({});
  Nest nest = make_code_nest(config, kSlabs, 5);
  for (size_t space = 0; space < nest.spaces(); ++space) {
    Basis& basis = nest.basis(nest.unflat(space));
    for (float& x : basis.decode.span()) x = f16_to_f32(f32_to_f16(x));
    for (float& x : basis.encode.span()) x = f16_to_f32(f32_to_f16(x));
  }
  Nest compact = nest.clone();
  compact.compact();
  EXPECT_TRUE(is_compact(compact.basis({0, 0, Side::key})));
  EXPECT_TRUE(compact.basis({0, 0, Side::key}).decode.span().empty());
  EXPECT_TRUE(compact.basis({0, 0, Side::key}).encode.span().empty());
  const Nest copy = compact.clone();
  for (const Arithmetic arithmetic : {Arithmetic::float32, Arithmetic::fast}) {
    for (const size_t chunk : {1u, 100u}) {
      const LayerTypes types = layers_alike(16);
      const KvOptions options{.arithmetic = arithmetic};
      KvCache first(nest, nest.full_ranks(), types, 512, options);
      KvCache second(copy, copy.full_ranks(), types, 512, options);
      EXPECT_EQ(largest_difference(feed(first, kTokens, chunk), feed(second, kTokens, chunk)), 0.0);
    }
  }
}

// Entries that f16 by itself would take for zeros, too.
TEST(CompactNest, SmallEntriesAreRoundedByA2048th) {
  for (const float size : {1e-9f, 1e-4f, 1.0f, 1e9f}) {
    Nest nest = make_code_nest(config_of({}), kSlabs, 5);
    Basis& basis = nest.basis({0, 0, Side::value});
    for (float& x : basis.encode.span()) x *= size;
    const Matrix<float> before = basis.encode.clone();
    nest.compact();
    for (size_t i = 0; i < before.span().size(); ++i) {
      const float x = before.span()[i];
      const float y = f16_to_f32(basis.half_encode.span()[i]) / basis.half_encode_factor;
      ASSERT_NEAR(x, y, std::abs(x) / 2048 + size * 1e-8f) << i;
    }
  }
}

// The same of the exact cache, whose runs of 512 tokens follow the first and the last one.
TEST(ExactDecode, LeavesOutWhatIsNegligible) {
  constexpr size_t kMany = 1700;
  const LayerTypes types = layers_alike(16);
  const auto run = [&](Arithmetic arithmetic, size_t chunk) {
    KvCache cache(config_of({}).shape, types, kMany, {.arithmetic = arithmetic});
    return feed_layer(cache, {.queries = 64, .keys = 32, .scale = 2.0f}, kMany, chunk, 1, 2);
  };
  const Matrix<float> expected = run(Arithmetic::float32, kMany);
  const double noise = squared_difference(run(Arithmetic::fast, 1), expected);
  const double power = squared_difference(expected, Matrix<float>(kMany, expected.cols()));
  EXPECT_LT(std::sqrt(noise / power), 5e-4);
  EXPECT_GT(std::sqrt(noise / power), 1e-6);  // something was left out
}

// Scores so far apart that many a part of the codes is nothing beside the exact tokens, for some
// heads and not for others.
TEST(IntegerDecode, LeavesOutWhatIsNegligible) {
  constexpr size_t kMany = 420;
  const LayerTypes types = layers_alike(16);
  const Nest nest = make_code_nest(config_of({}), kSlabs, 3);
  const auto run = [&](KvCache cache, size_t chunk) {
    return feed_layer(cache, {.queries = 64, .keys = 32, .scale = 2.0f}, kMany, chunk, 1, 2);
  };
  const Matrix<float> expected = run({nest, nest.full_ranks(), types, kMany}, kMany);
  const Matrix<float> truth = run({nest.config().shape, types, kMany}, kMany);
  for_each_instruction_set([&] {
    const KvOptions fast{.arithmetic = Arithmetic::fast};
    const Matrix<float> actual = run({nest, nest.full_ranks(), types, kMany, fast}, 1);
    const double noise = squared_difference(actual, expected);
    const double loss = squared_difference(truth, expected);
    EXPECT_LT(noise, 1e-3 * loss);
    RecordProperty("noise", std::to_string(noise / loss));
  });
}

// Each part of the codes is next to nothing beside the sinks, but there are many tokens.
TEST(IntegerDecode, KeepsManyTokensThatWeighLittleEach) {
  constexpr size_t kMany = 3000;
  const LayerTypes types = layers_alike(16);
  const NestConfig config = config_of({});
  const Nest nest = make_code_nest(config, kSlabs, 3);
  const auto run = [&](Arithmetic arithmetic, size_t chunk) {
    KvCache cache(nest, nest.full_ranks(), types, kMany, {.arithmetic = arithmetic});
    const auto change = [&](Matrix<float>& keys, Matrix<float>& values) {
      std::ranges::fill(keys.span(), 0.0f);
      std::ranges::fill(values.span(), 1.0f);
      for (size_t t = 0; t < config.sinks; ++t) {
        for (size_t head = 0; head < 2; ++head) keys.at(t, head * 16) = 32.0f;
        std::ranges::fill(values.row(t), 0.0f);
      }
    };
    return feed_layer(cache, {.queries = 64, .keys = 32, .scale = 0.25f}, kMany, chunk, 1, 2,
                      change);
  };
  const Matrix<float> expected = run(Arithmetic::float32, kMany);
  // 2^-6 may be left out, of values that codes make some 1.2 of.
  constexpr float kLeftOut = 1.3f / 64.0f;
  for_each_instruction_set([&] {
    const Matrix<float> actual = run(Arithmetic::fast, 1);
    for (size_t t = kMany / 2; t < kMany; ++t) {
      for (size_t c = 0; c < expected.cols(); ++c) {
        const float x = expected.at(t, c);
        ASSERT_NEAR(actual.at(t, c), x, 0.03f * std::abs(x) + kLeftOut) << t << " " << c;
      }
    }
  });
}

class CodeCache : public ::testing::TestWithParam<Case> {
 protected:
  LayerTypes types_ = layers_alike(16, GetParam().window);
  Nest nest_ = make_code_nest(config_of(GetParam()), kSlabs, 3);

  Ranks some_ranks() const {
    Ranks ranks = nest_.full_ranks();
    Rng rng(9);
    for (uint16_t& rank : ranks) rank = static_cast<uint16_t>(rng.below(kSlabs + 1));
    return ranks;
  }
};

TEST_P(CodeCache, DecodeEqualsPrefill) {
  KvCache all(nest_, some_ranks(), types_, kTokens), single(nest_, some_ranks(), types_, kTokens);
  EXPECT_LT(largest_difference(feed(all, kTokens, kTokens), feed(single, kTokens, 1)), 1e-4);
}

// Of a chunk the last token may attend alone, and the others are there for what follows.
TEST_P(CodeCache, TheLastTokenAloneSeesAsAmongAll) {
  KvCache all(nest_, some_ranks(), types_, kTokens), last(nest_, some_ranks(), types_, kTokens);
  constexpr size_t kChunk = 90;
  const Matrix<float> expected = feed(all, kTokens, kChunk);
  const Matrix<float> actual = feed_layer(
      last, {.queries = 64, .keys = 32, .scale = 0.25f, .last_only = true}, kTokens, kChunk, 1, 2);
  for (size_t end = kChunk; end < kTokens + kChunk; end += kChunk) {
    const size_t t = std::min(end, kTokens) - 1;
    for (size_t c = 0; c < expected.cols(); ++c) {
      ASSERT_NEAR(actual.at(t, c), expected.at(t, c), 1e-4) << t;
    }
  }
  EXPECT_EQ(all.bytes(), last.bytes());
}

// With a beam as well: each token is coded for itself.
TEST_P(CodeCache, DecodeEqualsPrefillWithABeam) {
  const KvOptions beam{.beam = 3};
  KvCache all(nest_, some_ranks(), types_, kTokens, beam);
  KvCache single(nest_, some_ranks(), types_, kTokens, beam);
  KvCache greedy(nest_, some_ranks(), types_, kTokens);
  const Matrix<float> expected = feed(all, kTokens, kTokens);
  EXPECT_LT(largest_difference(expected, feed(single, kTokens, 1)), 1e-4);
  EXPECT_GT(largest_difference(expected, feed(greedy, kTokens, kTokens)), 1e-3);
  KvCache copy = all.clone();
  EXPECT_EQ(copy.bytes(), greedy.bytes());
}

// Integer tables and weights against floats, as a part of what the codes themselves lose.
TEST_P(CodeCache, IntegerDecodeIsCloseToFloat) {
  const KvOptions fast{.arithmetic = Arithmetic::fast};
  KvCache floats(nest_, some_ranks(), types_, kTokens),
      exact(nest_.config().shape, types_, kTokens);
  const Matrix<float> expected = feed(floats, kTokens, 1), truth = feed(exact, kTokens, 1);
  for_each_instruction_set([&] {
    // A few tokens are read one by one, too.
    for (const size_t chunk : {1u, 20u}) {
      KvCache integers(nest_, some_ranks(), types_, kTokens, fast);
      const Matrix<float> actual = feed(integers, kTokens, chunk);
      const double noise = squared_difference(actual, expected);
      const double loss = squared_difference(truth, expected);
      EXPECT_LT(noise, 1e-3 * loss) << chunk;
    }
  });
}

// Exact beside their codes, in the way of each instruction set: a run may hold nothing else that is
// coded (the first block that leaves the window, one token of it with recent = 0).
TEST_P(CodeCache, LaterSinksAreExactWhateverDecodes) {
  NestConfig config = config_of(GetParam());
  config.later_sinks = 8;
  const Nest nest = make_code_nest(config, kSlabs, 3);
  const auto planted = [&](KvCache& cache, size_t chunk) {
    static constexpr size_t kTokensLikeTheFirst[] = {4, 5, 70, 133, 200};
    return feed_layer(cache, {.queries = 64, .keys = 32, .scale = 0.25f}, kTokens, chunk, 1, 2,
                      [](Matrix<float>& keys, Matrix<float>& values) {
                        plant_later_sinks(make_rotary(16), 16, kTokensLikeTheFirst, keys, values);
                      });
  };
  KvCache all(nest, some_ranks(), types_, kTokens), single(nest, some_ranks(), types_, kTokens);
  KvCache without(nest_, some_ranks(), types_, kTokens);
  const Matrix<float> expected = planted(all, kTokens);
  EXPECT_LT(largest_difference(expected, planted(single, 1)), 1e-4);
  EXPECT_GT(largest_difference(expected, planted(without, kTokens)), 1e-3);
  KvCache exact(nest_.config().shape, types_, kTokens);
  const Matrix<float> truth = planted(exact, kTokens);
  for_each_instruction_set([&] {
    KvCache integers(nest, some_ranks(), types_, kTokens, {.arithmetic = Arithmetic::fast});
    const Matrix<float> actual = planted(integers, 1);
    double noise = 0.0, loss = 0.0;
    for (size_t i = 0; i < truth.span().size(); ++i) {
      ASSERT_TRUE(std::isfinite(actual.span()[i]));
      noise += std::pow(static_cast<double>(actual.span()[i] - expected.span()[i]), 2);
      loss += std::pow(static_cast<double>(truth.span()[i] - expected.span()[i]), 2);
    }
    EXPECT_LT(noise, 1e-3 * loss);
  });
}

TEST_P(CodeCache, IntegerDecodeDoesNotDependOnTheNumberOfWorkers) {
  Matrix<float> first;
  for (const size_t workers : {1u, 2u, 3u}) {
    KvCache cache(nest_, some_ranks(), types_, kTokens, {.arithmetic = Arithmetic::fast});
    Matrix<float> out = feed(cache, kTokens, 1, 1, workers);
    if (workers == 1) {
      first = std::move(out);
    } else {
      EXPECT_EQ(largest_difference(out, first), 0.0);
    }
  }
}

TEST_P(CodeCache, ShrinkingAlsoCutsTheIntegerTables) {
  KvCache high(nest_, nest_.full_ranks(), types_, 2 * kTokens, {.arithmetic = Arithmetic::fast});
  KvCache low(nest_, some_ranks(), types_, 2 * kTokens, {.arithmetic = Arithmetic::fast});
  feed(high, kTokens, 50);
  feed(low, kTokens, 50);
  ASSERT_TRUE(high.shrink(some_ranks()));
  EXPECT_EQ(largest_difference(feed(high, 70, 1, 7), feed(low, 70, 1, 7)), 0.0);
}

TEST_P(CodeCache, ShrinkingEqualsHavingCodedAtTheLowerRung) {
  KvCache high(nest_, nest_.full_ranks(), types_, 2 * kTokens);
  KvCache low(nest_, some_ranks(), types_, 2 * kTokens);
  feed(high, kTokens, 50);
  feed(low, kTokens, 50);
  ASSERT_TRUE(high.shrink(some_ranks()));
  EXPECT_EQ(high.bytes(), low.bytes());
  EXPECT_EQ(largest_difference(feed(high, kTokens, 50, 7), feed(low, kTokens, 50, 7)), 0.0);
}

TEST_P(CodeCache, BytesMatchTheRanksExactly) {
  const Case& c = GetParam();
  KvCache cache(nest_, some_ranks(), types_, kTokens);
  feed(cache, kTokens, 64);
  // 4 sinks and 226 rows: 3 full blocks and 34 rows.
  size_t blocks = c.recent == 0 ? 4 : 4 - c.recent / kBlockTokens, sinks = 4;
  const size_t exact_blocks = c.recent / kBlockTokens;
  if (c.window == 150) {  // the next token sees rows 77 ... 226: not the first block, nor the sinks
    --blocks;
    sinks = 0;
  }
  size_t slabs = 0;
  for (const uint16_t rank : some_ranks()) slabs += rank;
  size_t expected = slabs * blocks * 32 + sinks * 2 * 32 * 2 + exact_blocks * 2 * 64 * 32 * 2;
  EXPECT_EQ(cache.bytes(), expected);
}

TEST_P(CodeCache, MoreSlabsAreCloserToExact) {
  // Codes of the keys' own distribution: each kept slab lowers the error of the reconstruction.
  KvCache exact(nest_.config().shape, types_, kTokens);
  KvCache full(nest_, nest_.full_ranks(), types_, kTokens);
  KvCache none(nest_, Ranks(nest_.spaces(), 0), types_, kTokens);
  const Matrix<float> truth = feed(exact, kTokens, kTokens);
  EXPECT_LT(largest_difference(feed(full, kTokens, kTokens), truth),
            largest_difference(feed(none, kTokens, kTokens), truth));
}

INSTANTIATE_TEST_SUITE_P(All, CodeCache,
                         ::testing::Values(Case{}, Case{.recent = 0}, Case{.recent = 128},
                                           Case{.group_size = 1},
                                           Case{.group_size = 1, .recent = 0}, Case{.window = 150},
                                           Case{.recent = 0, .window = 150}));

}  // namespace
}  // namespace mkv
