// Partials: the softmaxes of runs of tokens, of one token's attention, that are merged in the end
// by log-sum-exp (flash decoding).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>

#include "base/prefetch.h"
#include "base/view.h"
#include "nest/arena.h"
#include "nest/block_kernels.h"
#include "nest/kv_state.h"

namespace mkv {

// One of a run and query head.
struct Partial {
  float* values;        // weighted sum [dims], not set where nothing counts
  float& coded_weight;  // of what has the position mean
  float& top;           // the largest score
  float& sum;           // of exp(score - top)
};

class Partials {
 public:
  void take_scratch(Arena& arena, size_t runs, size_t heads, size_t dims) {
    runs_ = runs;
    heads_ = heads;
    dims_ = dims;
    // One worker's lines are no other's.
    stride_ = whole_lines(dims);
    sums_stride_ = whole_lines(heads * kSums);
    values_ = arena.take<float>(runs * heads * stride_);
    sums_ = arena.take<float>(runs * sums_stride_);
    least_ = arena.take<float>(heads);
  }
  // From one head's values to the next one's.
  size_t stride() const { return stride_; }
  size_t runs() const { return runs_; }

  Partial at(size_t run, size_t head) const {
    float* sums = sums_ + run * sums_stride_ + head * kSums;
    return {values_ + (run * heads_ + head) * stride_, sums[0], sums[1], sums[2]};
  }

  // What weigh_runs reads of some heads.
  void prefetch_sums(size_t head, size_t heads) const {
    for (size_t run = 0; run < runs_; ++run) {
      prefetch(&at(run, head).coded_weight, heads * kSums * sizeof(float));
    }
  }

  void leave_nothing_out() { std::fill_n(least_, heads_, -HUGE_VALF); }
  // Of what early runs add up to: below which one of `parts` parts of codes is left out. Together
  // they are below 2^-6 of it, however many they are and however little each of their tokens
  // weighs.
  static float negligible_share(size_t parts) {
    return std::min(0x1p-10f, 0x1p-6f / static_cast<float>(parts));
  }
  // A part of a run is left out for a head for which it, or its largest weight, is less than
  // `share` of what the early runs, run_of(0 ... count - 1), add up to, most of the sum.
  template <class RunOf>
  void find_least(size_t head, float share, size_t count, const RunOf& run_of) {
    float top = -HUGE_VALF, sum = 0.0f;
    for (size_t i = 0; i < count; ++i) top = std::max(top, at(run_of(i), head).top);
    for (size_t i = 0; i < count; ++i) {
      const Partial part = at(run_of(i), head);
      sum += std::exp(part.top - top) * part.sum;
    }
    if (sum > 0.0f) least_[head] = top + std::log(share * sum);
  }
  // The logarithm of that, and it as a multiple of e^top.
  float least(size_t head) const { return least_[head]; }
  float least_sum(size_t head, float top) const { return std::exp(least_[head] - top); }

  // Whether a part of a run counts: one that weighs enough, and has a token that is seen.
  static bool counts(float largest) { return largest > -HUGE_VALF; }

  // Begins a head's partial with the top of what counts, of the largest score of each part, which
  // becomes -infinity where a part does not. It is too little if e^margin times as much still is.
  Partial begin(size_t run, size_t head, std::span<float> largest, float margin) const {
    const Partial part = at(run, head);
    part.coded_weight = part.sum = 0.0f;
    part.top = -HUGE_VALF;
    for (float& of_part : largest) {
      if (of_part + margin < least_[head]) of_part = -HUGE_VALF;
      part.top = std::max(part.top, of_part);
    }
    if (counts(part.top)) std::fill_n(part.values, dims_, 0.0f);
    return part;
  }
  // The same of some heads, largest [row of the scores][part]; scores of what counts become
  // weights, and the partials have their sums.
  void start(size_t run, size_t first_head, View<float> scores, size_t part_tokens,
             float* largest) const {
    for (size_t h = 0; h < scores.rows; ++h) {
      const std::span<float> row = scores.row(h);
      const auto tokens_from = [&](size_t t) { return std::min(part_tokens, row.size() - t); };
      float* of_head = largest;
      for (size_t t = 0; t < row.size(); t += part_tokens) {
        *largest++ = max_of(row.subspan(t, tokens_from(t)));
      }
      const Partial part = begin(run, first_head + h, {of_head, largest}, 0.0f);
      for (size_t t = 0; t < row.size(); t += part_tokens, ++of_head) {
        if (!counts(*of_head)) continue;
        const size_t tokens = tokens_from(t);
        part.sum += exp_and_sum(row.subspan(t, tokens), part.top);
      }
    }
  }

  struct Whole {
    float sum = 0.0f, coded_weight = 0.0f;
  };
  // What each run's values of a head are to be multiplied by, 0 for what need not be read, and the
  // whole of the others.
  Whole weigh_runs(size_t head, std::span<float> factors) const {
    float top = -HUGE_VALF;
    for (size_t r = 0; r < runs_; ++r) top = std::max(top, at(r, head).top);
    Whole whole;
    for (size_t r = 0; r < runs_; ++r) {
      const Partial part = at(r, head);
      factors[r] = part.sum > 0.0f ? std::exp(part.top - top) : 0.0f;
      whole.sum += factors[r] * part.sum;
      whole.coded_weight += factors[r] * part.coded_weight;
    }
    return whole;
  }

 private:
  static constexpr size_t kSums = 3;  // floats of a partial beside its values
  static size_t whole_lines(size_t floats) {
    constexpr size_t kLine = Buffer<float>::kAlignment / sizeof(float);
    return (floats + kLine - 1) / kLine * kLine;
  }

  size_t runs_ = 0, heads_ = 0, dims_ = 0;
  size_t stride_ = 0;        // from one head's values to the next one's
  size_t sums_stride_ = 0;   // from one run's sums to the next one's
  float* values_ = nullptr;  // [run][head][dims]
  float* sums_ = nullptr;    // [run][head][kSums]
  float* least_ = nullptr;   // [head]: of what is heavy
};

}  // namespace mkv
