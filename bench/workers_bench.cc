// What moves between processors: a cache line there and back, and a job handed out.
#include <benchmark/benchmark.h>

#include <atomic>

#include "base/workers.h"

namespace mkv {
namespace {

// Two workers answer each other. Cores that share a cache take less than those that do not, and a
// virtual machine's processors may be the one now and the other in a minute.
void round_trip(benchmark::State& state) {
  constexpr int kTimes = 1000;
  struct alignas(128) Line {
    std::atomic<int> at{0};
  };
  Workers workers(2);
  for (auto _ : state) {
    Line asked, answered;
    workers.run(2, [&](size_t task, size_t) {
      for (int i = 1; i <= kTimes; ++i) {
        if (task == 0) asked.at.store(i, std::memory_order_release);
        const std::atomic<int>& other = task == 0 ? answered.at : asked.at;
        while (other.load(std::memory_order_acquire) != i) {
        }
        if (task == 1) answered.at.store(i, std::memory_order_release);
      }
    });
  }
  state.SetItemsProcessed(state.iterations() * kTimes);
}
BENCHMARK(round_trip)->Name("workers/round_trip")->UseRealTime()->Unit(benchmark::kMicrosecond);

// A job of tasks of a quarter of a microsecond; decoding has hundreds of jobs a token.
void hand_out(benchmark::State& state) {
  Workers workers(static_cast<size_t>(state.range(0)));
  const auto tasks = static_cast<size_t>(state.range(1));
  for (auto _ : state) {
    workers.run(tasks, [](size_t task, size_t) {
      for (size_t i = 0; i < 1000; ++i) benchmark::DoNotOptimize(task += i);
    });
  }
}
BENCHMARK(hand_out)
    ->Name("workers/hand_out")
    ->ArgNames({"workers", "tasks"})
    ->Args({1, 16})
    ->Args({2, 16})
    ->Args({1, 64})
    ->Args({2, 64})
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace mkv
