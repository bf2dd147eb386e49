#include "cli/progress.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace mkv::cli {
namespace {

constexpr std::chrono::milliseconds kRedraw{100};
constexpr std::chrono::seconds kPlainLine{15};
constexpr size_t kBarWidth = 24;

std::string clock_text(double seconds) {
  const auto total = std::llround(seconds);
  char text[32];
  if (total < 3600) {
    std::snprintf(text, sizeof text, "%lld:%02lld", total / 60, total % 60);
  } else {
    std::snprintf(text, sizeof text, "%lld:%02lld:%02lld", total / 3600, total / 60 % 60,
                  total % 60);
  }
  return text;
}

}  // namespace

std::string progress_line(const Progress& progress, size_t done_before, double elapsed_seconds,
                          size_t width) {
  std::string line(progress.stage);
  if (progress.total > 0) {
    const size_t done = std::min(progress.done, progress.total);
    const double part = static_cast<double>(done) / static_cast<double>(progress.total);
    if (width > 0) {
      const auto filled = static_cast<size_t>(part * static_cast<double>(width));
      line += "  [" + std::string(filled, '#') + std::string(width - filled, '.') + "]";
    }
    line += "  " + std::to_string(static_cast<int>(part * 100)) + " %";
    if (done == progress.total) {
      line += "  " + clock_text(elapsed_seconds);
    } else if (done > done_before && elapsed_seconds >= 1) {
      const double each = elapsed_seconds / static_cast<double>(done - done_before);
      line += "  " + clock_text(each * static_cast<double>(progress.total - done)) + " left";
    }
  }
  if (!progress.detail.empty()) line.append("  ").append(progress.detail);
  return line;
}

ProgressBar::ProgressBar(bool quiet) : quiet_(quiet), terminal_(isatty(STDERR_FILENO) == 1) {}

void ProgressBar::update(const Progress& progress) {
  if (quiet_) return;
  const auto now = Clock::now();
  const bool new_stage = progress.stage != stage_;
  const bool complete = progress.total > 0 && progress.done >= progress.total;
  if (new_stage) {
    if (!complete) finish();
    stage_ = progress.stage;
    stage_start_ = now;
    stage_first_ = progress.done;
  }
  const auto wait = terminal_ ? std::chrono::milliseconds(kRedraw) : kPlainLine;
  if (!new_stage && !complete && now - last_drawn_ < wait) return;
  last_drawn_ = now;
  const double elapsed = std::chrono::duration<double>(now - stage_start_).count();
  const std::string line =
      progress_line(progress, stage_first_, elapsed, terminal_ ? kBarWidth : 0);
  if (terminal_) {
    std::fprintf(stderr, "\r%s\x1b[K", line.c_str());
    std::fflush(stderr);
    drawn_ = true;
    if (complete) finish();
  } else {
    std::fprintf(stderr, "%s\n", line.c_str());
  }
}

void ProgressBar::finish() {
  if (drawn_) std::fputc('\n', stderr);
  drawn_ = false;
}

}  // namespace mkv::cli
