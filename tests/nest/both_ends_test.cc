#include "nest/both_ends.h"

#include <gtest/gtest.h>

#include <atomic>
#include <vector>

#include "base/rng.h"
#include "base/workers.h"

namespace mkv {
namespace {

TEST(BothEnds, EachTaskOnceWhateverTheOrder) {
  for (const size_t workers : {1u, 2u, 3u, 8u}) {
    for (const size_t tasks : {1u, 2u, 7u, 40u}) {
      Rng rng(workers * 100 + tasks);
      for (int repetition = 0; repetition < 20; ++repetition) {
        BothEnds order(tasks, workers);
        std::vector<int> taken(tasks);
        for (size_t i = 0; i < tasks; ++i) {
          const auto [task, next] = order.take(rng.below(workers));
          ASSERT_LT(task, tasks);
          ++taken[task];
          ASSERT_LT(next.value_or(0), tasks);
        }
        EXPECT_EQ(taken, std::vector<int>(tasks, 1));
      }
    }
  }
}

TEST(BothEnds, TwoWorkersKnowWhatTheyDoNext) {
  BothEnds order(9, 2);
  std::optional<size_t> expected[2] = {order.first(0), order.first(1)};
  EXPECT_EQ(expected[0], 0u);
  EXPECT_EQ(expected[1], 8u);
  for (const size_t worker : {0u, 0u, 1u, 0u, 1u, 1u, 0u, 0u, 0u}) {
    const auto [task, next] = order.take(worker);
    EXPECT_EQ(task, expected[worker]);
    expected[worker] = next;
  }
}

TEST(BothEnds, NothingIsNextAfterTheLast) {
  BothEnds order(2, 1);
  EXPECT_EQ(order.take(0).next, 1u);
  EXPECT_EQ(order.take(0).next, std::nullopt);
  EXPECT_EQ(BothEnds(0, 2).first(0), std::nullopt);
  EXPECT_EQ(BothEnds(1, 4).first(2), std::nullopt);
}

TEST(BothEnds, OfThreadsAtOnce) {
  Workers workers(3);
  constexpr size_t kTasks = 5000;
  BothEnds order(kTasks, workers.count());
  std::vector<std::atomic<int>> taken(kTasks);
  workers.run(kTasks, [&](size_t, size_t worker) { ++taken[order.take(worker).task]; });
  for (const auto& count : taken) ASSERT_EQ(count, 1);
}

}  // namespace
}  // namespace mkv
