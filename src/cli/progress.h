// The progress of long work on stderr: a bar that redraws itself on a terminal, and a line now and
// then anywhere else.
#pragma once

#include <chrono>
#include <string>

#include "base/progress.h"

namespace mkv::cli {

class ProgressBar {
 public:
  // Draws nothing at all when `quiet`.
  explicit ProgressBar(bool quiet = false);
  ~ProgressBar() { finish(); }
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  // Valid as long as the bar is.
  ProgressSink sink() {
    return [this](const Progress& progress) { update(progress); };
  }
  void update(const Progress& progress);
  // Ends the line, so that what is printed next stands on its own.
  void finish();

 private:
  using Clock = std::chrono::steady_clock;

  bool quiet_, terminal_;
  bool drawn_ = false;  // the terminal's current line holds the bar
  std::string stage_;
  Clock::time_point stage_start_, last_drawn_;
  size_t stage_first_ = 0;  // `done` at the stage's start: a continued run begins in the middle
};

// "statistics  [#####.....]  50 %  1:05 left  KL 0.0151"; the bar only when `width` > 0.
// `done_before`: what was done when `elapsed_seconds` began.
std::string progress_line(const Progress& progress, size_t done_before, double elapsed_seconds,
                          size_t width);

}  // namespace mkv::cli
