// The controller over streams of made-up divergences: log-normal around what each level costs.
#include "pilot/autopilot.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <span>

#include "eval/divergence.h"
#include "eval/identity_nest.h"
#include "pilot/stream.h"

namespace mkv {
namespace {

// 4 bits to 0.5 in steps of 0.5; one bit is a factor of 2 in KL.
std::vector<AutopilotLevel> some_levels() {
  std::vector<AutopilotLevel> levels;
  for (size_t i = 0; i < 8; ++i) {
    const double bits = 4 - 0.5 * static_cast<double>(i);
    levels.push_back({i * 100, bits, 0.02 * std::exp2(-bits + 1)});
  }
  return levels;
}

struct Trace {
  double kl = 0;    // mean of all requests
  double bits = 0;  // the same
  size_t moves = 0, drifts = 0, refits = 0;
  size_t first_drift = 0;  // request
};

// `factor` of a request says how much worse than the nest's own text it is.
Trace fly(Autopilot& autopilot, size_t requests, uint64_t seed,
          const std::function<double(size_t)>& factor) {
  Rng rng(seed);
  Trace trace;
  for (size_t i = 0; i < requests; ++i) {
    const double spread = 0.4;
    const double kl =
        autopilot.level().kl * factor(i) * std::exp(spread * rng.normal() - spread * spread / 2);
    trace.kl += kl / static_cast<double>(requests);
    trace.bits += autopilot.level().bits_per_value / static_cast<double>(requests);
    if (!autopilot.wants_shadow()) continue;
    const AutopilotDecision decision = autopilot.observe(kl);
    trace.moves += decision.move != AutopilotMove::stay;
    trace.refits += decision.refit;
    if (decision.drift && trace.drifts++ == 0) trace.first_drift = i;
  }
  return trace;
}

Autopilot make(AutopilotOptions options = {}) {
  return must(Autopilot::create(some_levels(), options));
}

TEST(Autopilot, BeginsWhereTheNestsOwnMeasurementsAllow) {
  EXPECT_EQ(make().level().bits_per_value,
            2.5);  // KL 0.0071; 2 bits cost 0.01, which has no margin
  EXPECT_EQ(make({.tolerance = 1e-6}).level().bits_per_value, 4);
  EXPECT_EQ(make({.tolerance = 1}).level().bits_per_value, 0.5);
}

TEST(Autopilot, HoldsTheToleranceWhateverTheText) {
  for (const double factor : {0.3, 0.8, 1.0, 1.5, 2.5}) {
    for (uint64_t seed = 1; seed <= 5; ++seed) {
      Autopilot autopilot = make({.seed = seed});
      fly(autopilot, 200, seed, [&](size_t) { return factor; });  // finds its place
      const Trace trace = fly(autopilot, 1000, seed + 100, [&](size_t) { return factor; });
      EXPECT_LT(trace.kl, 0.0105) << factor << " " << seed;
      // Not by keeping everything: within about a bit of what an oracle would use.
      const double oracle = std::min(4.0, std::log2(0.02 * 2 * factor / 0.01));
      EXPECT_LT(trace.bits, std::max(0.5, oracle) + 1.0) << factor << " " << seed;
    }
  }
}

TEST(Autopilot, DoesNotFlutterOnSteadyText) {
  size_t moves = 0, drifts = 0;
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    Autopilot autopilot = make({.seed = seed});
    const Trace trace = fly(autopilot, 2000, seed, [](size_t) { return 1.1; });
    moves += trace.moves;
    drifts += trace.drifts;
  }
  EXPECT_LT(moves, 60u);  // of 4,000 shadowed requests
  EXPECT_LE(drifts, 4u);
}

TEST(Autopilot, NoticesWorseTextAndRecommendsARefit) {
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    Autopilot autopilot = make({.seed = seed});
    const auto factor = [](size_t i) { return i < 400 ? 1.0 : 3.0; };
    const Trace trace = fly(autopilot, 800, seed, factor);
    ASSERT_GE(trace.drifts, 1u) << seed;
    EXPECT_GE(trace.first_drift, 400u) << seed;
    EXPECT_LT(trace.first_drift, 480u) << seed;  // 16 shadowed requests at a fifth
    EXPECT_GE(trace.refits, 1u) << seed;
    EXPECT_GE(autopilot.level().bits_per_value, 3.5) << seed;
    const Trace after = fly(autopilot, 500, seed + 50, [](size_t) { return 3.0; });
    EXPECT_LT(after.kl, 0.0105) << seed;
  }
}

TEST(Autopilot, SavesWhenTextGetsEasier) {
  size_t refits = 0;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    Autopilot autopilot = make();
    const Trace trace = fly(autopilot, 1200, seed, [](size_t i) { return i < 400 ? 1.0 : 0.25; });
    EXPECT_GE(trace.drifts, 1u) << seed;
    EXPECT_LE(autopilot.level().bits_per_value, 1.0) << seed;
    refits += trace.refits;
  }
  EXPECT_LE(refits, 1u);  // the odd false alarm
}

TEST(Autopilot, ShadowsItsShare) {
  Autopilot autopilot = make({.shadow_share = 0.1});
  size_t shadowed = 0, longest = 0, gap = 0;
  for (size_t i = 0; i < 10000; ++i) {
    ++gap;
    if (!autopilot.wants_shadow()) continue;
    longest = std::max(longest, gap);
    gap = 0;
    ++shadowed;
    autopilot.observe(autopilot.level().kl);
  }
  EXPECT_NEAR(static_cast<double>(shadowed), 1000, 100);
  EXPECT_LT(longest, 20u);  // one of every ten, wherever in them
}

TEST(Autopilot, ShadowsEverythingWhileInDoubt) {
  Autopilot autopilot = make({.shadow_share = 0.05});
  for (size_t i = 0; i < 6; ++i) {  // nothing is known yet
    EXPECT_TRUE(autopilot.wants_shadow());
    autopilot.observe(autopilot.level().kl);
  }
  const auto serve = [&](double factor) {
    const bool shadowed = autopilot.wants_shadow();
    if (shadowed) autopilot.observe(factor * autopilot.level().kl);
    return shadowed;
  };
  size_t shadowed = 0;
  for (size_t i = 0; i < 1000; ++i) shadowed += serve(1);
  EXPECT_NEAR(static_cast<double>(shadowed), 50, 3);
  while (!serve(3)) {
  }  // the first bad one
  EXPECT_TRUE(serve(3));
  EXPECT_TRUE(serve(0.5));  // was it nothing?
  while (serve(0.5)) {
  }
  shadowed = 0;
  for (size_t i = 0; i < 200; ++i) shadowed += serve(1);
  EXPECT_LT(shadowed, 20u);
}

// Means of 20 requests around a change to texts that cost 2.4 times as much, as in docs/results.md.
TEST(Autopilot, ReactsLongBeforeTheAlarm) {
  double worst_mean = 0;
  for (uint64_t seed = 1; seed <= 50; ++seed) {
    Autopilot autopilot = make({.seed = seed});
    Rng rng(seed + 1000);
    std::vector<double> kls;
    double most = 0;
    for (size_t i = 0; i < 460; ++i) {
      const double factor = (i < 400 ? 1.0 : 2.4) * std::exp(0.4 * rng.normal() - 0.08);
      kls.push_back(autopilot.level().kl * factor);
      if (autopilot.wants_shadow()) autopilot.observe(kls.back());
      if (i >= 400) most = std::max(most, average(std::span(kls).last(20)).mean);
    }
    worst_mean += most / 50;
  }
  EXPECT_LT(worst_mean, 0.0115);  // 0.017 where only the alarm and the slow mean move it
}

TEST(Autopilot, RefusesWhatMakesNoSense) {
  const auto refused = [](std::vector<AutopilotLevel> levels, AutopilotOptions options = {}) {
    return !Autopilot::create(std::move(levels), options);
  };
  EXPECT_TRUE(refused({}));
  EXPECT_TRUE(refused({{0, 4, 0}, {1, 3, 0.1}}));
  EXPECT_TRUE(refused({{0, 4, 0.2}, {1, 3, 0.1}}));
  EXPECT_TRUE(refused(some_levels(), {.tolerance = 0}));
  EXPECT_TRUE(refused(some_levels(), {.shadow_share = 0}));
  EXPECT_TRUE(refused(some_levels(), {.margin = 1}));
  EXPECT_TRUE(refused(some_levels(), {.window = 1}));
  EXPECT_FALSE(refused(some_levels()));
}

TEST(AutopilotLevels, AreTheNestsMeasurementsAsFarAsTheyGrow) {
  const Model model = tiny_model();
  Nest nest = identity_nest(model, 0);
  EXPECT_FALSE(autopilot_levels(nest));
  nest.measurements() = {{20, 2, 0.02, 0}, {0, 4, 0.01, 0}, {30, 1, 0.015, 0}, {40, 0.5, 0.1, 0}};
  const std::vector<AutopilotLevel> levels = must(autopilot_levels(nest));
  ASSERT_EQ(levels.size(), 3u);
  EXPECT_EQ(levels[0].rung, 0u);
  EXPECT_EQ(levels[1].rung, 20u);
  EXPECT_EQ(levels[2].rung, 40u);
}

TEST(Stream, ServesEachRequestAtTheAutopilotsLevel) {
  const Model model = tiny_model();
  const Nest nest = identity_nest(model, 0);
  Workers workers(2);
  const auto part = [&](const char* name, uint64_t seed) {
    const WindowOptions cut{.context = 64, .limit = 0};
    return StreamPart{
        name, must(cut_windows(model.tokenizer().special(),
                               random_tokens(64 * 20, model.config().vocab_size, seed), cut))};
  };
  const size_t cuts = nest.ladder().cuts.size();
  Autopilot autopilot =
      must(Autopilot::create({{0, 16, 1e-9}, {cuts / 4, 12, 0.5}, {cuts / 2, 8, 1}},
                             {.tolerance = 1e9, .shadow_share = 0.5}));
  size_t told = 0;
  EvalOptions options;
  options.progress = [&](const Progress& progress) { told += progress.total == 40; };
  const StreamReport report = must(
      run_stream(model, nest, {part("a", 1), part("b", 2)}, autopilot, {options, {}}, workers));
  ASSERT_EQ(report.requests.size(), 40u);
  EXPECT_EQ(told, 40u);
  EXPECT_EQ(report.requests[19].part, 0u);
  EXPECT_EQ(report.requests[20].part, 1u);
  size_t shadowed = 0;
  for (const StreamRequest& request : report.requests) {
    EXPECT_EQ(request.level.rung, cuts / 2);
    EXPECT_GT(request.kl, 0);
    shadowed += request.shadowed;
  }
  EXPECT_GT(shadowed, 8u);
  EXPECT_LT(shadowed, 32u);
  EXPECT_DOUBLE_EQ(report.bits_per_value, 8);

  EXPECT_FALSE(run_stream(model, nest, {}, autopilot, {options, {}}, workers));
  Autopilot astray = must(Autopilot::create({{cuts + 1, 1, 1}}, {}));
  EXPECT_FALSE(run_stream(model, nest, {part("a", 1)}, astray, {options, {}}, workers));
}

}  // namespace
}  // namespace mkv
