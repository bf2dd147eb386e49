#include "base/workers.h"

#include <algorithm>
#include <chrono>

namespace mkv {
namespace {

// Decode runs hundreds of short jobs a token: a worker spins this long for the next one before it
// sleeps, so that a wake-up through the kernel (tens of microseconds) is rare.
constexpr auto kSpinTime = std::chrono::microseconds(200);

inline void cpu_pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

Workers::Workers(size_t count) {
  if (count == 0) count = std::max<size_t>(1, std::thread::hardware_concurrency());
  for (size_t worker = 1; worker < count; ++worker) {
    threads_.emplace_back([this, worker] { loop(worker); });
  }
}

Workers::~Workers() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    ++generation_;
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void Workers::run_job(const Job& job) {
  job_ = job;
  next_task_.store(0, std::memory_order_relaxed);
  busy_.store(threads_.size(), std::memory_order_relaxed);
  {
    const std::lock_guard lock(mutex_);  // pairs with the sleeping workers' wait
    generation_.fetch_add(1, std::memory_order_release);
  }
  wake_.notify_all();
  take_tasks(0);
  for (size_t spins = 0; busy_.load(std::memory_order_acquire) != 0; ++spins) {
    if (spins % 1024 == 1023) std::this_thread::yield();  // more threads than processors
    cpu_pause();
  }
}

void Workers::take_tasks(size_t worker) {
  for (;;) {
    const size_t task = next_task_.fetch_add(1, std::memory_order_relaxed);
    if (task >= job_.tasks) return;
    job_.call(job_.fn, task, worker);
  }
}

void Workers::loop(size_t worker) {
  size_t seen = 0;
  for (;;) {
    const auto start = std::chrono::steady_clock::now();
    while (generation_.load(std::memory_order_acquire) == seen) {
      if (std::chrono::steady_clock::now() - start > kSpinTime) {
        std::unique_lock lock(mutex_);
        wake_.wait(lock, [&] { return generation_.load(std::memory_order_acquire) != seen; });
        break;
      }
      cpu_pause();
    }
    ++seen;
    if (stopping_) return;
    take_tasks(worker);
    busy_.fetch_sub(1, std::memory_order_release);
  }
}

}  // namespace mkv
