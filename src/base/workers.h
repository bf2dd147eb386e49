// Workers: a fixed pool of threads for data-parallel loops.
//
// run(tasks, fn) calls fn(task, worker) once for each task in 0 ... tasks-1 and returns when all
// are done; the calling thread works too (it is worker 0). Each worker has a share of neighbouring
// tasks, from which it works upwards, and takes from the end of another's share when its own is
// done. So fn must not depend on which worker runs it: results are then the same for any number of
// threads. What is called may be a copy of fn.
// Owned and used by one thread at a time; calls do not nest. No allocation after construction, and
// no lock while jobs follow each other quickly. At most 2^32 - 1 tasks.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <type_traits>
#include <vector>

namespace mkv {

class Workers {
 public:
  // `count` threads in all, the caller's included; 0 means one for each processor.
  explicit Workers(size_t count = 0);
  ~Workers();
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  size_t count() const { return threads_.size() + 1; }

  // What a worker does first of so many tasks, and probably after one of them.
  std::optional<size_t> first_task(size_t tasks, size_t worker) const {
    const size_t first = share_begin(tasks, worker);
    return first < share_begin(tasks, worker + 1) ? std::optional(first) : std::nullopt;
  }
  std::optional<size_t> next_task(size_t tasks, size_t task) const {
    const size_t next = task + 1;
    const bool of_another = share_begin(tasks, next * count() / tasks) == next;
    return of_another ? std::nullopt : std::optional(next);
  }

  template <class Fn>
  void run(size_t tasks, const Fn& fn) {
    if (tasks == 0) return;
    if (tasks == 1 || threads_.empty()) {
      for (size_t task = 0; task < tasks; ++task) fn(task, size_t{0});
      return;
    }
    if constexpr (sizeof(Fn) <= sizeof(Job::fn) && alignof(Fn) <= alignof(Job) &&
                  std::is_trivially_copyable_v<Fn>) {
      Job job;
      std::memcpy(job.fn, &fn, sizeof(Fn));
      job.call = [](const std::byte* f, size_t task, size_t worker) {
        (*reinterpret_cast<const Fn*>(f))(task, worker);
      };
      run_job(job, tasks);
    } else {
      run(tasks, [&fn](size_t task, size_t worker) { fn(task, worker); });
    }
  }

  // Splits 0 ... size-1 into ranges of `grain` (the last may be shorter): fn(begin, end, worker).
  template <class Fn>
  void run_ranges(size_t size, size_t grain, const Fn& fn) {
    run((size + grain - 1) / grain, [&](size_t task, size_t worker) {
      const size_t begin = task * grain;
      fn(begin, begin + grain < size ? begin + grain : size, worker);
    });
  }

 private:
  static constexpr size_t kCacheLine = 64;
  struct Job {
    void (*call)(const std::byte* fn, size_t task, size_t worker);
    alignas(void*) std::byte fn[kCacheLine - 2 * sizeof(void*)];  // a copy of the function
  };
  // A worker's share of the tasks, on a cache line of its own (and its neighbour, which prefetchers
  // bring along): what moves between processors is what costs, so a worker learns of a job by this
  // line alone, and takes its own tasks from it without another's knowledge.
  struct alignas(2 * kCacheLine) Share {
    std::atomic<uint64_t> open{0};  // the tasks that nobody has taken: first, end
    Job job{};  // read only by who has taken one of its tasks, so it may change once all are done
  };

  size_t share_begin(size_t tasks, size_t worker) const {
    return (tasks * worker + count() - 1) / count();
  }
  void run_job(const Job& job, size_t tasks);
  size_t work(size_t worker);
  size_t take_from(Share& share, bool own, size_t worker);
  void wake_sleepers();
  void loop(size_t worker);
  void wait_for_job(const Share& share);

  std::vector<std::thread> threads_;
  std::unique_ptr<Share[]> shares_;                  // one for each worker
  size_t expected_ = 0;                              // what done_ is when all jobs are done
  alignas(kCacheLine) std::atomic<size_t> done_{0};  // tasks of all jobs, not by the caller
  alignas(kCacheLine) std::atomic<size_t> sleepers_{0};
  std::atomic<bool> stopping_{false};
  std::mutex mutex_;  // of sleeping and waking alone
  std::condition_variable wake_;
};

}  // namespace mkv
