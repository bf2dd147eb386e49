// The cache against an oracle that says, token by token, what each token may see and in which form.
#include "nest/kv_cache.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <tuple>

#include "base/half.h"
#include "nest/fixture.h"

namespace mkv {
namespace {

constexpr size_t kLayers = 2, kKvHeads = 4, kHeadDim = 16, kRepeats = 3;
constexpr size_t kWidth = kKvHeads * kHeadDim, kTokens = 300;

struct Case {
  bool coded = true;
  size_t group_size = 1, sinks = 4, recent = 128;
  KeyMean key_mean = KeyMean::position;
  size_t window = 0;  // of the second layer; 0: none
  size_t later_sinks = 0;
};

struct Inputs {
  Matrix<float> queries = random_matrix(kTokens, kWidth* kRepeats, 1);
  Matrix<float> keys = random_matrix(kTokens, kWidth, 2);
  Matrix<float> values = random_matrix(kTokens, kWidth, 3);
};

// In the first layer; the second looks like it if its angles are the same.
constexpr size_t kPlanted[] = {5, 70, 71, 130, 196, 290};
Inputs with_later_sinks(const LayerTypes& types) {
  Inputs in;
  plant_later_sinks(types.of(0).rotary, kHeadDim, kPlanted, in.keys, in.values);
  return in;
}

float round_f16(float x) { return f16_to_f32(f32_to_f16(x)); }

// x after coding and decoding: double arithmetic, latents rounded to f16.
std::vector<double> coded_form(const Nest& nest, GroupId id, size_t rank, size_t position,
                               const float* x, const Rotary& rotary) {
  const size_t dims = nest.dims();
  const Basis& basis = nest.basis(id);
  std::vector<double> mean(dims, 0.0);
  const KeyMean kind = id.side == Side::value ? KeyMean::plain : nest.config().key_mean;
  if (kind == KeyMean::plain) std::copy(basis.mean.begin(), basis.mean.end(), mean.begin());
  if (kind == KeyMean::position) {
    for (size_t h = 0; h < nest.config().group_size; ++h) {
      for (size_t i = 0; i < kHeadDim / 2; ++i) {
        const double angle = static_cast<double>(position) * rotary.inverse_frequency()[i];
        const size_t a = h * kHeadDim + i, b = a + kHeadDim / 2;
        mean[a] = basis.mean[a] * std::cos(angle) - basis.mean[b] * std::sin(angle);
        mean[b] = basis.mean[b] * std::cos(angle) + basis.mean[a] * std::sin(angle);
      }
    }
  }
  std::vector<double> out = mean;
  for (size_t c = 0; c < rank; ++c) {
    double z = 0.0;
    for (size_t i = 0; i < dims; ++i) {
      z += (static_cast<double>(round_f16(x[i])) - mean[i]) * basis.encode.at(c, i);
    }
    z = round_f16(static_cast<float>(z));
    for (size_t i = 0; i < dims; ++i) out[i] += z * basis.decode.at(i, c);
  }
  return out;
}

LayerTypes make_types(const Case& c) {
  return c.window == 0 ? layers_alike(kHeadDim) : sliding_layers(kHeadDim, kLayers, c.window);
}

// What token `now` sees of `position`: coded or exact (nest/kv_cache.h).
bool seen_coded(const Case& c, size_t now, size_t position) {
  if (!c.coded || position < c.sinks) return false;
  const auto planted = std::span(kPlanted).first(std::min(c.later_sinks, std::size(kPlanted)));
  if (std::ranges::find(planted, position) != planted.end()) return false;
  if (c.recent == 0) return true;
  const size_t block = (position - c.sinks) / kBlockTokens;
  return block + c.recent / kBlockTokens <= (now - c.sinks) / kBlockTokens;
}

Matrix<float> oracle(const Case& c, const Nest& nest, const Ranks& ranks, const LayerTypes& types,
                     const Inputs& in, size_t layer) {
  Matrix<float> out(kTokens, kWidth * kRepeats);
  const Rotary& rotary = types.of(layer).rotary;
  const size_t window = c.window != 0 && layer == 1 ? c.window : kTokens;
  const size_t dims = c.group_size * kHeadDim;
  for (size_t g = 0; g < kKvHeads / c.group_size; ++g) {
    const GroupId key_id{layer, g, Side::key}, value_id{layer, g, Side::value};
    std::vector<std::vector<double>> keys, values;
    for (size_t t = 0; t < kTokens; ++t) {
      keys.push_back(coded_form(nest, key_id, ranks[nest.flat(key_id)], t,
                                in.keys.row(t).data() + g * dims, rotary));
      values.push_back(coded_form(nest, value_id, ranks[nest.flat(value_id)], t,
                                  in.values.row(t).data() + g * dims, rotary));
    }
    for (size_t h = 0; h < c.group_size * kRepeats; ++h) {
      const size_t head = g * c.group_size * kRepeats + h, kv_head = head / kRepeats;
      const size_t offset = h / kRepeats * kHeadDim;
      for (size_t now = 0; now < kTokens; ++now) {
        std::vector<double> scores(now + 1), sum(kHeadDim, 0.0);
        double total = 0.0;
        for (size_t t = now + 1 > window ? now + 1 - window : 0; t <= now; ++t) {
          for (size_t i = 0; i < kHeadDim; ++i) {
            const double k = seen_coded(c, now, t)
                                 ? keys[t][offset + i]
                                 : round_f16(in.keys.at(t, kv_head * kHeadDim + i));
            scores[t] += 0.25 * in.queries.at(now, head * kHeadDim + i) * k;
          }
          const double weight = std::exp(scores[t]);
          total += weight;
          for (size_t i = 0; i < kHeadDim; ++i) {
            sum[i] += weight * (seen_coded(c, now, t)
                                    ? values[t][offset + i]
                                    : round_f16(in.values.at(t, kv_head * kHeadDim + i)));
          }
        }
        for (size_t i = 0; i < kHeadDim; ++i) {
          out.at(now, head * kHeadDim + i) = static_cast<float>(sum[i] / total);
        }
      }
    }
  }
  return out;
}

Nest make_nest(const Case& c) {
  NestConfig config;
  config.shape = {kLayers, kKvHeads, kHeadDim};
  config.group_size = c.group_size;
  config.sinks = c.sinks;
  config.recent = c.recent;
  config.key_mean = c.key_mean;
  config.later_sinks = c.later_sinks;
  Nest nest = std::move(Nest::create(config)).value();
  fill_random_bases(nest, 11);
  return nest;
}

Ranks ragged_ranks(const Nest& nest) {
  Rng rng(5);
  Ranks ranks = nest.full_ranks();
  for (uint16_t& rank : ranks) rank = static_cast<uint16_t>(rng.below(nest.dims() + 1));
  ranks[0] = 0;  // the extremes are among them
  ranks[1] = static_cast<uint16_t>(nest.dims());
  return ranks;
}

// Feeds the tokens in chunks of the given sizes, the last size repeated, through both layers.
Matrix<float> feed(KvCache& cache, const Inputs& in, const std::vector<size_t>& chunks,
                   size_t layer, Workers& workers) {
  Matrix<float> out(kTokens, kWidth * kRepeats);
  AttentionScratch scratch;
  for (size_t t = 0, i = 0; t < kTokens; ++i) {
    const size_t n = std::min(kTokens - t, chunks[std::min(i, chunks.size() - 1)]);
    for (size_t l = 0; l < kLayers; ++l) {
      Matrix<float> ignored(n, kWidth * kRepeats);
      const AttentionInput input{in.queries.view().rows_from(t, n), in.keys.view().rows_from(t, n),
                                 in.values.view().rows_from(t, n), 0.25f};
      cache.attend(l, input, l == layer ? out.view().rows_from(t, n) : ignored.view(), scratch,
                   workers);
    }
    cache.commit(n);
    t += n;
  }
  return out;
}

double largest_difference(const Matrix<float>& a, const Matrix<float>& b) {
  double worst = 0.0;
  for (size_t i = 0; i < a.span().size(); ++i) {
    worst = std::max<double>(worst, std::abs(a.span()[i] - b.span()[i]));
  }
  return worst;
}

class CacheOracle : public ::testing::TestWithParam<Case> {};

TEST_P(CacheOracle, PrefillAndDecodeSeeWhatTheyShould) {
  const Case& c = GetParam();
  const LayerTypes types = make_types(c);
  const Nest nest = make_nest(c);
  const Ranks ranks = ragged_ranks(nest);
  const Inputs in = c.later_sinks == 0 ? Inputs() : with_later_sinks(types);
  Workers two(2);
  for (size_t layer = 0; layer < kLayers; ++layer) {
    const Matrix<float> expected = oracle(c, nest, ranks, types, in, layer);
    for (const std::vector<size_t>& chunks :
         {std::vector<size_t>{kTokens}, {1}, {3, 1, 1, 97, 1, 64, 2}, {128, 1}}) {
      KvCache cache = c.coded ? KvCache(nest, ranks, types, kTokens)
                              : KvCache(nest.config().shape, types, kTokens);
      const Matrix<float> out = feed(cache, in, chunks, layer, two);
      EXPECT_LT(largest_difference(out, expected), 2e-3) << "first chunk " << chunks[0];
      EXPECT_EQ(cache.length(), kTokens);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, CacheOracle,
    ::testing::Values(Case{.coded = false, .sinks = 0}, Case{}, Case{.recent = 0},
                      Case{.recent = 64, .key_mean = KeyMean::plain},
                      Case{.recent = 0, .key_mean = KeyMean::none}, Case{.group_size = 2},
                      Case{.group_size = 4, .sinks = 0, .recent = 0},
                      Case{.group_size = 4, .sinks = 7, .recent = 64},
                      // windows longer and shorter than what is exact, than a
                      // block, and than the sinks; at its edges and between
                      Case{.coded = false, .sinks = 0, .window = 64},
                      Case{.coded = false, .sinks = 0, .window = 97}, Case{.window = 200},
                      Case{.window = 100}, Case{.recent = 64, .window = 128},
                      Case{.recent = 64, .window = 129}, Case{.recent = 64, .window = 17},
                      Case{.recent = 0, .window = 130}, Case{.recent = 0, .window = 64},
                      Case{.group_size = 2, .sinks = 7, .recent = 0, .window = 5},
                      Case{.sinks = 7, .recent = 64, .window = 1},
                      // all planted tokens, and some of them
                      Case{.later_sinks = 8}, Case{.recent = 0, .later_sinks = 8},
                      Case{.group_size = 2, .recent = 64, .later_sinks = 3},
                      Case{.group_size = 4, .recent = 0, .later_sinks = 1}));

TEST(KvCache, ResultsDoNotDependOnTheNumberOfWorkers) {
  const LayerTypes types = sliding_layers(kHeadDim, kLayers, 150);
  const Nest nest = make_nest({.recent = 64});
  const Inputs in;
  Workers one(1), two(2), three(3);
  for (const std::vector<size_t>& chunks : {std::vector<size_t>{150}, {1}}) {
    Matrix<float> first;
    for (Workers* workers : {&one, &two, &three}) {
      KvCache cache(nest, ragged_ranks(nest), types, kTokens);
      Matrix<float> out = feed(cache, in, chunks, 1, *workers);
      if (workers == &one)
        first = std::move(out);
      else
        EXPECT_EQ(largest_difference(out, first), 0.0);
    }
  }
}

TEST(KvCache, Float32KeepsExactTokensAsTheyAre) {
  const LayerTypes types = layers_alike(kHeadDim);
  const Inputs in;
  Workers two(2);
  KvCache half({kLayers, kKvHeads, kHeadDim}, types, kTokens);
  KvCache wide({kLayers, kKvHeads, kHeadDim}, types, kTokens, {.exact = DType::f32});
  KvCache single({kLayers, kKvHeads, kHeadDim}, types, kTokens, {.exact = DType::f32});
  const Matrix<float> rounded = feed(half, in, {kTokens}, 0, two);
  const Matrix<float> out = feed(wide, in, {kTokens}, 0, two);
  EXPECT_EQ(wide.bytes(), 2 * half.bytes());
  EXPECT_LT(largest_difference(out, feed(single, in, {1}, 0, two)), 1e-5);
  EXPECT_GT(largest_difference(out, rounded), 1e-5);  // rounding shows
  EXPECT_LT(largest_difference(out, rounded), 3e-3);
}

TEST(KvCache, BytesMatchTheRanksExactly) {
  const LayerTypes types = layers_alike(kHeadDim);
  const Nest nest = make_nest({.group_size = 2, .sinks = 4, .recent = 64});
  const Ranks ranks = ragged_ranks(nest);
  KvCache cache(nest, ranks, types, kTokens);
  Workers one(1);
  feed(cache, Inputs(), {77}, 0, one);
  // 300 tokens: 4 sinks, 296 rows = 4 full blocks coded, 40 rows in the exact block.
  size_t slabs = 0;
  for (const uint16_t rank : ranks) slabs += rank;
  const size_t coded = slabs * 4 * 64 * 2, sinks = kLayers * 2 * 4 * kWidth * 2;
  const size_t recent = kLayers * 2 * 64 * kWidth * 2;
  EXPECT_EQ(cache.bytes(), coded + sinks + recent);
}

// What a sliding window has left behind is freed: of both layers the first keeps everything.
TEST(KvCache, BytesOfSlidingLayersAreThoseOfTheirWindows) {
  const LayerTypes types = sliding_layers(kHeadDim, kLayers, 100);
  const Nest nest = make_nest({.group_size = 2, .sinks = 4, .recent = 64});
  const Ranks ranks = ragged_ranks(nest);
  Workers one(1);
  constexpr size_t kExactBlock = 2 * 64 * kWidth * 2, kSinks = 2 * 4 * kWidth * 2;
  for (const std::vector<size_t>& chunks : {std::vector<size_t>{kTokens}, {77}, {1}}) {
    KvCache cache(nest, ranks, types, kTokens);
    const size_t empty = cache.bytes();
    EXPECT_EQ(empty, kLayers * kSinks);
    feed(cache, Inputs(), chunks, 0, one);
    // 296 rows after the sinks: 4 full blocks coded, 40 rows exact. Token 300 sees rows 197 ... 296
    // of the second layer, so its blocks are the last coded one and the exact one.
    size_t bytes = 2 * kExactBlock + kSinks;
    for (size_t space = 0; space < nest.spaces(); ++space) {
      bytes += (nest.unflat(space).layer == 0 ? 4 : 1) * ranks[space] * 64 * 2;
    }
    EXPECT_EQ(cache.bytes(), bytes);
    EXPECT_EQ(cache.coded(), 256u);
    KvCache copy = cache.clone();
    EXPECT_EQ(copy.bytes(), bytes);
    ASSERT_TRUE(copy.shrink(Ranks(nest.spaces(), 0)));
    EXPECT_EQ(copy.bytes(), 2 * kExactBlock + kSinks);
    cache.clear();
    EXPECT_EQ(cache.bytes(), empty);
    KvCache exact(nest.config().shape, types, kTokens);
    feed(exact, Inputs(), chunks, 0, one);
    EXPECT_EQ(exact.bytes(), (5 + 2) * kExactBlock);  // rows 201 ... 300 of 5 blocks
  }
}

TEST(KvCache, ShrinkingEqualsHavingCodedAtTheLowerRanks) {
  const LayerTypes types = sliding_layers(kHeadDim, kLayers, 150);
  const Nest nest = make_nest({.group_size = 2, .recent = 64});
  const Inputs in;
  Workers two(2);
  KvCache high(nest, nest.full_ranks(), types, kTokens + 8);
  KvCache low(nest, ragged_ranks(nest), types, kTokens + 8);
  feed(high, in, {100}, 0, two);
  feed(low, in, {100}, 0, two);
  EXPECT_GT(high.bytes(), low.bytes());
  ASSERT_TRUE(high.shrink(low.ranks()));
  EXPECT_EQ(high.bytes(), low.bytes());
  for (size_t n : {1, 8}) {
    AttentionScratch scratch;
    Matrix<float> a(n, kWidth * kRepeats), b(n, kWidth * kRepeats);
    const AttentionInput input{in.queries.view().rows_from(9, n), in.keys.view().rows_from(9, n),
                               in.values.view().rows_from(9, n), 0.25f};
    for (size_t layer = 0; layer < kLayers; ++layer) {
      high.attend(layer, input, a.view(), scratch, two);
      low.attend(layer, input, b.view(), scratch, two);
      EXPECT_EQ(largest_difference(a, b), 0.0);
    }
    high.clear(), low.clear();
  }
  EXPECT_FALSE(high.shrink(nest.full_ranks()));
  EXPECT_FALSE(high.shrink(Ranks(3, 0)));
}

TEST(KvCache, ClearStartsAnew) {
  const LayerTypes types = sliding_layers(kHeadDim, kLayers, 50);
  const Nest nest = make_nest({.recent = 64});
  const Inputs in;
  Workers one(1);
  KvCache cache(nest, ragged_ranks(nest), types, kTokens);
  const Matrix<float> first = feed(cache, in, {90, 1}, 1, one);
  cache.clear();
  EXPECT_EQ(cache.length(), 0u);
  const Matrix<float> second = feed(cache, in, {90, 1}, 1, one);
  EXPECT_EQ(largest_difference(first, second), 0.0);
}

// Of a layer that sees the whole context and one with a window, in which the planted tokens do not
// look like the first: its angles are others.
TEST(LaterSinks, AreCountedFreedCopiedAndForgotten) {
  const LayerTypes types = sliding_layers(kHeadDim, kLayers, 100);
  const Nest nest = make_nest({.recent = 64, .later_sinks = 4});
  const Nest plain = make_nest({.recent = 64});
  const Inputs in = with_later_sinks(types);
  Workers one(1);
  for (const std::vector<size_t>& chunks : {std::vector<size_t>{kTokens}, {77}, {1}}) {
    KvCache cache(nest, nest.full_ranks(), types, kTokens);
    KvCache without(plain, nest.full_ranks(), types, kTokens);
    const Matrix<float> out = feed(cache, in, chunks, 0, one);
    feed(without, in, chunks, 0, one);
    EXPECT_EQ(cache.bytes(), without.bytes() + 4 * 2 * kWidth * 2);
    KvCache copy = cache.clone();
    EXPECT_EQ(copy.bytes(), cache.bytes());
    ASSERT_TRUE(copy.shrink(Ranks(nest.spaces(), 0)));
    ASSERT_TRUE(without.shrink(Ranks(nest.spaces(), 0)));
    EXPECT_EQ(copy.bytes(), without.bytes() + 4 * 2 * kWidth * 2);
    cache.clear();
    EXPECT_EQ(largest_difference(feed(cache, in, chunks, 0, one), out), 0.0);
  }
}

// A window takes what looks like its first token, as many as there are, and frees what it leaves.
TEST(LaterSinks, OfASlidingWindowAreTheSameOneByOneAndAtOnce) {
  const LayerTypes types = layers_alike(kHeadDim, 140);
  const Nest nest = make_nest({.recent = 64, .later_sinks = 1});
  const Inputs in = with_later_sinks(types);
  Workers one(1);
  KvCache single(nest, Ranks(nest.spaces(), 3), types, kTokens);
  const Matrix<float> expected = feed(single, in, {1}, 1, one);
  for (const std::vector<size_t>& chunks : {std::vector<size_t>{kTokens}, {77}, {3, 1, 97}}) {
    KvCache cache(nest, Ranks(nest.spaces(), 3), types, kTokens);
    EXPECT_LT(largest_difference(feed(cache, in, chunks, 1, one), expected), 1e-4);
    EXPECT_EQ(cache.bytes(), single.bytes());
  }
  // Token 300 sees rows 157 ... 296, of which 192 ... 255 are coded and 196 is a planted token's.
  const Nest plain = make_nest({.recent = 64});
  KvCache without(plain, Ranks(nest.spaces(), 3), types, kTokens);
  feed(without, in, {1}, 1, one);
  EXPECT_EQ(single.bytes(), without.bytes() + kLayers * 2 * kWidth * 2);
}

}  // namespace
}  // namespace mkv
