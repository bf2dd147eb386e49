// BothEnds: which task a worker does next, where neighbouring tasks read neighbouring memory.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <optional>

namespace mkv {

// Hands out tasks from both ends: every second worker goes up from the first, the others down from
// the last. So a worker can ask the memory in time for what it does next, while the tasks of a slow
// one are left to the others.
class BothEnds {
 public:
  BothEnds(size_t tasks, size_t workers) : tasks_(tasks) {
    sides_[0].workers = (workers + 1) / 2;
    sides_[1].workers = workers / 2;
  }

  struct Taken {
    size_t task = 0;
    std::optional<size_t> next;  // probably
  };
  // Once for each task.
  Taken take(size_t worker) {
    Side& side = sides_[worker % 2];
    const size_t place = side.taken.fetch_add(1, std::memory_order_relaxed);
    return {at(worker, place), next(worker, place)};
  }
  // What a worker probably takes first.
  std::optional<size_t> first(size_t worker) const {
    const size_t place = worker / 2;
    return place < tasks_ ? std::optional(at(worker, place)) : std::nullopt;
  }

 private:
  struct alignas(64) Side {
    std::atomic<size_t> taken = 0;
    size_t workers = 0;  // that take from it
  };
  size_t at(size_t worker, size_t place) const {
    return worker % 2 == 0 ? place : tasks_ - 1 - place;
  }
  std::optional<size_t> next(size_t worker, size_t place) const {
    const size_t later = place + sides_[worker % 2].workers;
    return later < tasks_ ? std::optional(at(worker, later)) : std::nullopt;
  }

  const size_t tasks_;
  Side sides_[2];
};

}  // namespace mkv
