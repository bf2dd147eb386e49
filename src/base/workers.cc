#include "base/workers.h"

#include <algorithm>
#include <chrono>

#include "base/check.h"

namespace mkv {
namespace {

// Decode runs hundreds of short jobs a token: a worker spins this long for the next one before it
// sleeps, so that a wake-up through the kernel (tens of microseconds) is rare.
constexpr auto kSpinTime = std::chrono::microseconds(200);

// Pauses between two looks at the clock, or before the processor is offered to others.
constexpr size_t kPauses = 64, kPausesBeforeYield = 1024;
// A job's number is above the count of its open tasks.
constexpr int kNumberShift = 32;
constexpr uint64_t kCountMask = (uint64_t{1} << kNumberShift) - 1;
// A worker takes its share of the open tasks, divided by this: long runs of neighbours first,
// single tasks at the end. Neighbours read memory that follows, and each taking moves cache lines
// between processors: decoding gains a quarter over tasks taken one by one.
constexpr uint64_t kShares = 2;

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
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void Workers::run_job(const Job& job) {
  MKV_CHECK(job.tasks <= kCountMask);
  job_ = job;
  done_.store(0, std::memory_order_relaxed);
  const uint64_t number = (open_.load(std::memory_order_relaxed) >> kNumberShift) + 1;
  // Sequentially consistent, as is a sleeper's announcement: it sees the tasks or we see it.
  open_.store(number << kNumberShift | job.tasks);
  if (sleepers_.load() != 0) {
    const std::lock_guard lock(mutex_);
    wake_.notify_all();
  }
  while (take_tasks(0)) {
  }
  for (size_t pauses = 1; done_.load(std::memory_order_acquire) != job.tasks; ++pauses) {
    if (pauses % kPausesBeforeYield == 0)
      std::this_thread::yield();  // more threads than processors
    cpu_pause();
  }
}

bool Workers::take_tasks(size_t worker) {
  uint64_t open = open_.load(std::memory_order_acquire), left = 0, taken = 0;
  do {
    left = open & kCountMask;
    if (left == 0) return false;
    taken = std::max<uint64_t>(1, left / (kShares * count()));
  } while (!open_.compare_exchange_weak(open, open - taken, std::memory_order_acq_rel));
  const size_t first = job_.tasks - left;
  for (size_t task = first; task < first + taken; ++task) job_.call(job_.fn, task, worker);
  done_.fetch_add(taken, std::memory_order_release);
  return true;
}

void Workers::loop(size_t worker) {
  while (!stopping_.load(std::memory_order_relaxed)) {
    if (!take_tasks(worker)) wait_for_job();
  }
}

// Until there is a task, or the end.
void Workers::wait_for_job() {
  const auto has_job = [this] { return (open_.load() & kCountMask) != 0 || stopping_.load(); };
  const auto start = std::chrono::steady_clock::now();
  do {
    for (size_t i = 0; i < kPauses; ++i) {
      if (has_job()) return;
      cpu_pause();
    }
  } while (std::chrono::steady_clock::now() - start < kSpinTime);
  std::unique_lock lock(mutex_);
  ++sleepers_;
  wake_.wait(lock, has_job);
  --sleepers_;
}

}  // namespace mkv
