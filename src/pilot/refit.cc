#include "pilot/refit.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "base/stopwatch.h"

namespace mkv {

void Refit::ask(size_t request, size_t since) {
  if (!options_.make || state_ != State::idle) return;
  // What was served before the change is not what the nest is for.
  while (texts_.size() > since) {
    held_ -= texts_.front().size();
    texts_.pop_front();
  }
  records_.emplace_back();
  records_.back().asked = request;
  state_ = State::gathering;
}

void Refit::remember(std::span<const TokenId> text) {
  if (!options_.make || text.empty()) return;
  texts_.emplace_back(text.begin(), text.end());
  held_ += text.size();
  while (held_ > options_.tokens && texts_.size() > 1) {
    held_ -= texts_.front().size();
    texts_.pop_front();
  }
}

void Refit::step(size_t request) {
  // Full: not one more text of the latest's length would fit.
  if (state_ == State::gathering && !texts_.empty() &&
      held_ + texts_.back().size() > options_.tokens) {
    start(request);
  } else if (state_ == State::making && request >= *records_.back().made + options_.requests) {
    receive(request);
  }
}

void Refit::start(size_t request) {
  records_.back().made = request;
  records_.back().tokens = held_;
  std::vector<std::vector<TokenId>> texts(texts_.begin(), texts_.end());
  making_ =
      std::async(std::launch::async, [make = options_.make, texts = std::move(texts)]() mutable {
        const Stopwatch watch;
        Result<Nest> nest = make(std::move(texts));
        return Made{std::move(nest), watch.seconds()};
      });
  state_ = State::making;
}

void Refit::receive(size_t request) {
  Made made = making_.get();
  RefitRecord& record = records_.back();
  record.seconds = made.seconds;
  auto levels = made.nest ? autopilot_levels(*made.nest) : made.nest.error();
  if (!levels) {
    record.failed = levels.error().message;
    state_ = State::idle;
    return;
  }
  levels_ = *std::move(levels);
  candidate_ = *std::move(made.nest);
  record.tried = request;
  compared_ = 0;
  state_ = State::trial;
}

bool Refit::observe(size_t request, double kl_before, double kl_after) {
  RefitRecord& record = records_.back();
  const auto before = static_cast<double>(compared_++), count = static_cast<double>(compared_);
  record.kl_before = (record.kl_before * before + kl_before) / count;
  record.kl_after = (record.kl_after * before + kl_after) / count;
  if (compared_ < options_.trial) return false;
  record.decided = request;
  record.kept = record.kl_after < record.kl_before;
  state_ = State::idle;
  if (!record.kept) candidate_.reset();
  return record.kept;
}

std::vector<RefitRecord> Refit::finish() {
  if (making_.valid()) records_.back().seconds = making_.get().seconds;
  state_ = State::idle;
  return records_;
}

}  // namespace mkv
