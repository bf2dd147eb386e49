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
// A share's first task is above its end.
constexpr int kFirstShift = 32;
constexpr uint64_t kEndMask = (uint64_t{1} << kFirstShift) - 1;

inline uint64_t share_of(uint64_t first, uint64_t end) { return first << kFirstShift | end; }

inline void cpu_pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

Workers::Workers(size_t count) {
  if (count == 0) count = std::max<size_t>(1, std::thread::hardware_concurrency());
  shares_ = std::make_unique<Share[]>(count);
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

void Workers::run_job(const Job& job, size_t tasks) {
  MKV_CHECK(tasks <= kEndMask);
  const auto first_of = [&](size_t w) { return share_begin(tasks, w); };
  // The caller's share comes first: who is done with its own has to find it. Its first task is
  // taken by not handing it out, which does not wait for these stores.
  shares_[0].job = job;
  shares_[0].open.store(share_of(1, first_of(1)), std::memory_order_release);
  for (size_t w = 1; w < count(); ++w) {
    if (first_of(w) == first_of(w + 1)) continue;
    shares_[w].job = job;
    shares_[w].open.store(share_of(first_of(w), first_of(w + 1)), std::memory_order_release);
  }
  const bool woken = sleepers_.load(std::memory_order_relaxed) != 0;
  if (woken) wake_sleepers();
  job.call(job.fn, 0, 0);
  // Who went to sleep meanwhile has seen the tasks, or is seen here; or, by the mutex, above.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (!woken && sleepers_.load() != 0) wake_sleepers();
  expected_ += tasks - 1 - work(0);
  for (size_t pauses = 1; done_.load(std::memory_order_acquire) != expected_; ++pauses) {
    if (pauses % kPausesBeforeYield == 0)
      std::this_thread::yield();  // more threads than processors
    cpu_pause();
  }
}

void Workers::wake_sleepers() {
  const std::lock_guard lock(mutex_);
  wake_.notify_all();
}

// Does tasks until all are taken, and tells how many.
size_t Workers::work(size_t worker) {
  size_t done = 0;
  while (const size_t taken = take_from(shares_[worker], true, worker)) done += taken;
  for (size_t i = 1; i < count(); ++i) {
    Share& share = shares_[(worker + i) % count()];
    while (const size_t taken = take_from(share, false, worker)) done += taken;
  }
  return done;
}

// Takes tasks of a share and does them: the first one of its own, the last half of another's.
size_t Workers::take_from(Share& share, bool own, size_t worker) {
  uint64_t open = share.open.load(std::memory_order_acquire);
  for (;;) {
    const uint64_t first = open >> kFirstShift, end = open & kEndMask, left = end - first;
    if (left == 0) return 0;
    const uint64_t taken = own ? 1 : (left + 1) / 2;
    const uint64_t rest = own ? share_of(first + taken, end) : share_of(first, end - taken);
    if (!share.open.compare_exchange_weak(open, rest, std::memory_order_acq_rel,
                                          std::memory_order_acquire)) {
      continue;
    }
    const uint64_t begin = own ? first : end - taken;
    for (size_t task = begin; task < begin + taken; ++task) {
      share.job.call(share.job.fn, task, worker);
    }
    return taken;
  }
}

void Workers::loop(size_t worker) {
  while (!stopping_.load(std::memory_order_relaxed)) {
    wait_for_job(shares_[worker]);
    if (const size_t done = work(worker)) done_.fetch_add(done, std::memory_order_release);
  }
}

// Until there is a task in the share, or the end.
void Workers::wait_for_job(const Share& share) {
  const auto has_job = [&] {
    const uint64_t open = share.open.load();
    return open >> kFirstShift != (open & kEndMask) || stopping_.load();
  };
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
