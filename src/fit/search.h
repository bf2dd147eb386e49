// The paper's greedy search for what to cut next (arXiv:2410.14731 §3.4, Algorithm 1): from full
// rank, again and again lower the latent space whose cut changes the model's output least. The
// order of the cuts is the nest's ladder.
//
// Algorithm 1 measures every space before every cut. By default we are lazy instead: a space's last
// measured cost stays its estimate, and only the space that looks cheapest is measured again, until
// the cheapest is one that was measured since the last cut. Costs grow as more is cut, so that old
// estimates are too low and the choice is nearly always the same, for some hundredth of the work;
// `exhaustive` is the algorithm to the letter.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <vector>

#include "base/progress.h"
#include "base/result.h"
#include "base/workers.h"
#include "fit/calibration.h"
#include "fit/cut_evaluator.h"
#include "model/model.h"
#include "nest/nest.h"

namespace mkv {

struct SearchOptions {
  size_t step = 8;  // slabs a rung; divides the slabs of every space
  // What a cut takes of what its space has left, in whole steps and at least one; the cheapest is
  // the cheapest by the slab. 0: always one step, as in the paper. Large cuts of full spaces and
  // small ones of nearly empty ones need few measurements and still tell small sizes apart.
  double cut_share = 0;
  SearchObjective objective = SearchObjective::kl;
  bool exhaustive = false;
  // Cuts of different spaces taken before anything is measured again: faster and less exact.
  size_t cuts_per_round = 1;
  // Share of all slabs at which the search ends. What is below is cut round-robin, the fullest
  // space first: the output is too far gone there for a greedy choice to mean anything.
  double floor = 0.10;
  std::filesystem::path checkpoint;  // empty: none. One of the same search is continued
  size_t checkpoint_cuts = 100;      // written after so many cuts ...
  double checkpoint_seconds = 30;    // ... or so many seconds, whichever is first
  size_t stop_after_cuts = 0;        // ends early, with a checkpoint and no ladder; 0 = never
  ProgressSink progress;
};

struct SearchReport {
  Ladder ladder;             // of all cuts; empty when stopped early
  size_t searched_cuts = 0;  // the leading cuts of the ladder that were measured
  // The objective after each of them; within a round of several cuts an estimate, exact at its end.
  std::vector<double> values;
  size_t evaluations = 0;
  double seconds = 0;  // resumed runs count together
};

// Deterministic for any number of workers, and whether or not it was interrupted and continued from
// its checkpoint. The caller puts the ladder into the nest.
Result<SearchReport> search_ladder(const Model& model, const Nest& nest,
                                   std::span<const std::vector<TokenId>> sequences,
                                   const SearchOptions& options, Workers& workers);

}  // namespace mkv
