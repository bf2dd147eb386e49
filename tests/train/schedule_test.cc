#include "train/schedule.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

namespace mkv {
namespace {

Nest small_nest() {
  NestConfig config;
  config.shape = {.layers = 2, .kv_heads = 2, .head_dim = 16};
  config.recent = 0;
  Nest nest = std::move(Nest::create(config)).value();
  EXPECT_TRUE(nest.set_ladder(uniform_ladder(nest, 2)));
  return nest;
}

double share(const Nest& nest, const Ranks& ranks) {
  return nest.coded_bits_per_value(ranks) / nest.coded_bits_per_value(nest.full_ranks());
}

PrefixSampler sampler_of(const Nest& nest, PrefixSchedule schedule, uint64_t seed = 1) {
  auto made = PrefixSampler::create(nest, {.schedule = schedule, .floor = 0.25, .seed = seed},
                                    {8, 32}, 100);
  EXPECT_TRUE(made) << (made ? "" : made.error().message);
  return std::move(made).value();
}

class Schedules : public ::testing::TestWithParam<PrefixSchedule> {};

TEST_P(Schedules, DrawWholeStepsBetweenFloorAndFull) {
  const Nest nest = small_nest();
  const PrefixSampler sampler = sampler_of(nest, GetParam());
  double least = 1, most = 0;
  for (size_t step = 0; step < 100; ++step) {
    for (size_t window = 0; window < 3; ++window) {
      const Ranks ranks = sampler.sample(step, window);
      ASSERT_EQ(ranks.size(), nest.spaces());
      for (const uint16_t rank : ranks) {
        EXPECT_EQ(rank % 2, 0);
        EXPECT_LE(rank, 16);
        EXPECT_GT(rank, 0);
      }
      least = std::min(least, share(nest, ranks));
      most = std::max(most, share(nest, ranks));
    }
  }
  EXPECT_LT(least, 0.6);
  EXPECT_GE(least, 0.125);  // automatic goes past its lowest budget by half a budget's distance
  EXPECT_GT(most, 0.7);
  EXPECT_LE(most, 1.0);
}

TEST_P(Schedules, DependOnSeedStepAndWindowAlone) {
  const Nest nest = small_nest();
  const PrefixSampler a = sampler_of(nest, GetParam()), b = sampler_of(nest, GetParam());
  EXPECT_EQ(a.sample(7, 1), b.sample(7, 1));
  const PrefixSampler other = sampler_of(nest, GetParam(), 2);
  size_t equal = 0;
  for (size_t step = 0; step < 50; ++step) equal += a.sample(step, 0) == other.sample(step, 0);
  EXPECT_LT(equal, 45u);
}

INSTANTIATE_TEST_SUITE_P(All, Schedules,
                         ::testing::Values(PrefixSchedule::independent, PrefixSchedule::sandwich,
                                           PrefixSchedule::ladder, PrefixSchedule::curriculum,
                                           PrefixSchedule::automatic, PrefixSchedule::scattered));

TEST(PrefixSampler, AlongTheLadderSpacesShrinkTogether) {
  const Nest nest = small_nest();
  const PrefixSampler sampler = sampler_of(nest, PrefixSchedule::ladder);
  for (size_t step = 0; step < 50; ++step) {
    const Ranks ranks = sampler.sample(step, 0);
    EXPECT_LE(*std::ranges::max_element(ranks) - *std::ranges::min_element(ranks), 2);
  }
}

TEST(PrefixSampler, ScatteredTakesTurnsWithTheLadder) {
  const Nest nest = small_nest();
  const PrefixSampler sampler = sampler_of(nest, PrefixSchedule::scattered);
  int widest = 0;
  for (size_t step = 0; step < 50; ++step) {
    const auto spread = [&](size_t window) {
      const Ranks ranks = sampler.sample(step, window);
      return *std::ranges::max_element(ranks) - *std::ranges::min_element(ranks);
    };
    EXPECT_LE(spread(step % 2), 2);
    EXPECT_LE(spread(1 - step % 2),
              10);  // a quarter of 16 to either side of two neighbouring rungs
    widest = std::max(widest, spread(1 - step % 2));
  }
  EXPECT_GE(widest, 6);
}

TEST(PrefixSampler, CurriculumBeginsNearFullSize) {
  const Nest nest = small_nest();
  const PrefixSampler sampler = sampler_of(nest, PrefixSchedule::curriculum);
  for (size_t window = 0; window < 20; ++window) {
    EXPECT_GT(share(nest, sampler.sample(0, window)), 0.9);
  }
}

TEST(PrefixSampler, AutomaticFollowsWhatStillFalls) {
  const Nest nest = small_nest();
  PrefixSampler sampler = sampler_of(nest, PrefixSchedule::automatic);
  EXPECT_THAT(sampler.weights(), ::testing::ElementsAre(0.5, 0.5));
  sampler.observe(std::vector<double>{1.0, 2.0});
  sampler.observe(std::vector<double>{1.0, 1.0});
  EXPECT_THAT(sampler.weights(), ::testing::ElementsAre(0.125, 0.875));
  PrefixSampler restored = sampler_of(nest, PrefixSchedule::automatic);
  restored.restore(sampler.weights(), {sampler.last_seen().begin(), sampler.last_seen().end()});
  EXPECT_EQ(restored.sample(3, 0), sampler.sample(3, 0));
}

TEST(PrefixSampler, RefusesWhatItCannotDraw) {
  const Nest nest = small_nest();
  for (const double floor : {0.0, 1.0, -1.0}) {
    const auto made = PrefixSampler::create(nest, {.floor = floor}, {8}, 10);
    ASSERT_FALSE(made);
    EXPECT_THAT(made.error().message, ::testing::HasSubstr("floor"));
  }
  const auto none = PrefixSampler::create(nest, {.schedule = PrefixSchedule::automatic}, {}, 10);
  ASSERT_FALSE(none);
  EXPECT_THAT(none.error().message, ::testing::HasSubstr("budgets"));
}

}  // namespace
}  // namespace mkv
