#include "base/workers.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <memory>
#include <numeric>
#include <optional>
#include <thread>
#include <vector>

namespace mkv {
namespace {

class WorkersTest : public ::testing::TestWithParam<size_t> {};

TEST_P(WorkersTest, RunsEachTaskOnce) {
  Workers workers(GetParam());
  EXPECT_EQ(workers.count(), GetParam());
  for (const size_t tasks : {0u, 1u, 2u, 7u, 1000u}) {
    std::vector<int> runs(tasks, 0);
    std::atomic<size_t> bad_workers{0};
    workers.run(tasks, [&](size_t task, size_t worker) {
      ++runs[task];
      if (worker >= GetParam()) ++bad_workers;
    });
    EXPECT_EQ(runs, std::vector<int>(tasks, 1));
    EXPECT_EQ(bad_workers, 0u);
  }
}

TEST_P(WorkersTest, SumsByRanges) {
  Workers workers(GetParam());
  constexpr size_t kSize = 10'007, kGrain = 64;
  std::vector<size_t> sums(GetParam(), 0);
  workers.run_ranges(kSize, kGrain, [&](size_t begin, size_t end, size_t worker) {
    EXPECT_LE(end - begin, kGrain);
    for (size_t i = begin; i < end; ++i) sums[worker] += i;
  });
  size_t sum = 0;
  for (const size_t part : sums) sum += part;
  EXPECT_EQ(sum, kSize * (kSize - 1) / 2);
  workers.run_ranges(0, kGrain, [](size_t, size_t, size_t) { ADD_FAILURE(); });
}

TEST_P(WorkersTest, ManyTinyJobs) {
  Workers workers(GetParam());
  std::vector<size_t> counts(GetParam() * 16, 0);  // plain: run() must order the accesses itself
  size_t total = 0;
  // With more threads than processors each job takes the scheduler several rounds.
  const size_t jobs = 2000 / (GetParam() * GetParam());
  for (size_t job = 0; job < jobs; ++job) {
    const size_t tasks = 2 + job % 5;
    workers.run(tasks, [&](size_t, size_t worker) { ++counts[worker * 16]; });
    total += tasks;
  }
  size_t sum = 0;
  for (const size_t count : counts) sum += count;
  EXPECT_EQ(sum, total);
}

TEST_P(WorkersTest, WakesAfterAPause) {
  Workers workers(GetParam());
  for (int pause = 0; pause < 5; ++pause) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));  // longer than they spin
    std::atomic<size_t> runs{0};
    workers.run(64, [&](size_t, size_t) { ++runs; });
    EXPECT_EQ(runs, 64u);
  }
}

TEST(Workers, StopsWithoutAJob) {
  for (size_t count = 0; count < 6; ++count) EXPECT_GE(Workers(count).count(), 1u);
}

// A slow worker's tasks are taken by the others, from the end of its share.
TEST_P(WorkersTest, HelpsWhoIsSlow) {
  Workers workers(GetParam());
  if (GetParam() == 1) return;
  constexpr size_t kTasks = 64;
  const size_t last = *workers.first_task(kTasks, 1) - 1;  // of the caller's share
  std::atomic<bool> helped{false};
  workers.run(kTasks, [&](size_t task, size_t worker) {
    if (task == last && worker != 0) helped = true;
    for (int ms = 0; task == 0 && !helped && ms < 10'000; ++ms) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  });
  EXPECT_TRUE(helped);
}

// What a function captures may be larger than a cache line, or not copyable.
TEST_P(WorkersTest, RunsFunctionsOfAnySize) {
  Workers workers(GetParam());
  std::vector<size_t> seen(100, 0);
  std::array<size_t, 40> numbers;
  std::iota(numbers.begin(), numbers.end(), size_t{1});
  workers.run(seen.size(),
              [numbers, &seen](size_t task, size_t) { seen[task] = numbers[task % 40]; });
  const auto owned = std::make_unique<size_t>(7);
  size_t* at = seen.data();
  workers.run(40, [at, &owned](size_t task, size_t) { at[task] += *owned; });
  for (size_t i = 0; i < seen.size(); ++i) EXPECT_EQ(seen[i], i % 40 + 1 + (i < 40 ? 7 : 0));
}

// From each worker's first task, the next ones lead to all tasks once.
TEST_P(WorkersTest, KnowsWhatEachDoesNext) {
  const Workers workers(GetParam());
  for (const size_t tasks : {0u, 1u, 2u, 5u, 16u, 17u, 1000u}) {
    std::vector<int> met(tasks, 0);
    for (size_t w = 0; w < workers.count(); ++w) {
      std::optional<size_t> task = workers.first_task(tasks, w);
      for (; task; task = workers.next_task(tasks, *task)) ++met.at(*task);
    }
    EXPECT_EQ(met, std::vector<int>(tasks, 1)) << tasks;
  }
}

INSTANTIATE_TEST_SUITE_P(Threads, WorkersTest, ::testing::Values(1, 2, 4, 16));

TEST(Workers, DefaultIsOnePerProcessor) {
  const size_t processors = std::max(1u, std::thread::hardware_concurrency());
  EXPECT_EQ(Workers().count(), processors);
}

}  // namespace
}  // namespace mkv
