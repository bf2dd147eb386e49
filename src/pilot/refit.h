// A new nest for text that has changed: made in the background of text that was served lately, and
// kept only if it is better on the requests that follow.
//
//   alarm -> gathering (until the buffer is full of text since the change)
//         -> making    (on a thread of its own; requests go on)
//         -> trial     (requests are measured with both nests)
//         -> kept or dropped; the next alarm may begin another
//
// Steps are counted in requests, not in seconds, so that a flight is the same on every machine.
#pragma once

#include <cstddef>
#include <deque>
#include <functional>
#include <future>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "nest/nest.h"
#include "pilot/autopilot.h"
#include "text/tokenizer.h"

namespace mkv {

struct RefitOptions {
  // A nest with measurements, of texts that were served. Called on a thread of its own, so it
  // brings its own Workers.
  std::function<Result<Nest>(std::vector<std::vector<TokenId>> texts)> make;
  size_t tokens = 16384;  // that the buffer holds: what a refit looks at
  size_t requests =
      40;            // served while the nest is made; where it is not ready then, it is waited for
  size_t trial = 8;  // requests that are measured with both nests
};

// What became of one, in indices of requests.
struct RefitRecord {
  size_t asked = 0;               // the alarm
  std::optional<size_t> made;     // the first request that was served while the nest was being made
  std::optional<size_t> tried;    // the first that was measured with both
  std::optional<size_t> decided;  // the last of them
  size_t tokens = 0;              // of text
  double seconds = 0;             // that making it took
  double kl_before = 0, kl_after = 0;  // mean of the trial: old nest, new nest at no more bits
  bool kept = false;
  std::string failed;  // why there is no nest
};

// Belongs to one thread; only RefitOptions::make is called on another.
class Refit {
 public:
  explicit Refit(const RefitOptions& options) : options_(options) {}

  // An alarm at a request: text changed `since` requests ago. Without effect while one is under
  // way.
  void ask(size_t request, size_t since);
  // Once a request, before it is served: begins and ends the work of the background. The nest is to
  // be tried from now on when trial() is true.
  void step(size_t request);
  // The text of a request that was served.
  void remember(std::span<const TokenId> text);

  bool trial() const { return state_ == State::trial; }
  const Nest& candidate() const { return *candidate_; }
  // KL of a request with the old nest and the new one; true: the trial is over and the new nest is
  // better, to be taken from here.
  bool observe(size_t request, double kl_before, double kl_after);
  Nest take() { return *std::exchange(candidate_, std::nullopt); }
  const std::vector<AutopilotLevel>& levels() const { return levels_; }  // of the candidate

  // Of all that were asked for; waits for the background.
  std::vector<RefitRecord> finish();

 private:
  enum class State : uint8_t { idle, gathering, making, trial };
  struct Made {
    Result<Nest> nest;
    double seconds = 0;
  };

  void start(size_t request);
  void receive(size_t request);

  RefitOptions options_;
  State state_ = State::idle;
  std::deque<std::vector<TokenId>> texts_;  // the latest, of at most options_.tokens
  size_t held_ = 0;                         // tokens in texts_
  std::future<Made> making_;
  std::optional<Nest> candidate_;
  std::vector<AutopilotLevel> levels_;
  size_t compared_ = 0;  // requests of the trial
  std::vector<RefitRecord> records_;
};

}  // namespace mkv
