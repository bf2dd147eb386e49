#include "fit/search.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "eval/tiny_model.h"
#include "fit/pca.h"

namespace mkv {
namespace {

using ::testing::HasSubstr;

// A small nest for a golden model: 8 spaces of 16 columns in 2 layers.
class LadderSearchTest : public ::testing::Test {
 protected:
  LadderSearchTest() : model_(tiny_model()), workers_(2), nest_(fit()) {
    for (uint64_t seed : {1u, 2u}) {
      sequences_.push_back(random_tokens(96, model_.config().vocab_size, seed));
    }
    options_.step = 4;
    folder_ = std::filesystem::path(::testing::TempDir()) /
              ::testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  ~LadderSearchTest() override { std::filesystem::remove_all(folder_); }

  Nest fit() {
    FitOptions options;
    options.recent = 0;
    Sequences sequences;
    for (uint64_t seed = 10; seed < 18; ++seed) {
      sequences.push_back(random_tokens(128, model_.config().vocab_size, seed));
    }
    return must(fit_nest(model_, sequences, options, {}, workers_));
  }
  SearchReport search(const SearchOptions& options) {
    return must(search_ladder(model_, nest_, sequences_, options, workers_));
  }
  CutEvaluator evaluator(SearchObjective objective) {
    return must(CutEvaluator::create(model_, nest_, sequences_, objective, workers_));
  }
  Ranks with_cut(Ranks ranks, size_t space) const {
    ranks[space] = static_cast<uint16_t>(ranks[space] - options_.step);
    return ranks;
  }

  Model model_;
  Workers workers_;
  Nest nest_;
  Sequences sequences_;
  SearchOptions options_;
  std::filesystem::path folder_;
};

TEST_F(LadderSearchTest, ReusedPrefixesChangeNothing) {
  for (const SearchObjective objective : {SearchObjective::kl, SearchObjective::hidden_error}) {
    CutEvaluator reusing = evaluator(objective), fresh = evaluator(objective);
    Ranks ranks = nest_.full_ranks();
    ASSERT_GE(must(reusing.start(ranks)), 0.0);
    for (const size_t space : {6u, 1u, 6u, 4u, 7u, 0u}) {
      for (const size_t other : {2u, 5u}) {  // measured and not taken
        const double value =
            must(reusing.measure(with_cut(ranks, other), nest_.unflat(other).layer));
        EXPECT_EQ(value, must(fresh.start(with_cut(ranks, other))));
      }
      ranks = with_cut(ranks, space);
      EXPECT_EQ(must(reusing.advance(ranks, nest_.unflat(space).layer)), must(fresh.start(ranks)));
    }
  }
}

TEST_F(LadderSearchTest, LadderIsCompleteAndTheFloorHolds) {
  for (const bool exhaustive : {false, true}) {
    options_.exhaustive = exhaustive;
    options_.floor = 0.25;
    const SearchReport got = search(options_);
    EXPECT_EQ(got.searched_cuts, 24u);  // of 32: three quarters
    EXPECT_EQ(got.values.size(), 24u);
    EXPECT_EQ(got.ladder.cuts.size(), 32u);
    Nest nest = nest_.clone();
    ASSERT_TRUE(nest.set_ladder(got.ladder));  // each space cut exactly to nothing
    for (const uint16_t rank : nest.ranks_at(nest.ladder().rungs() - 1)) EXPECT_EQ(rank, 0);
    EXPECT_GT(got.values.back(), got.values.front());
    EXPECT_GT(got.evaluations, 24u);
    // Below the floor the fullest space is cut first: no space is two cuts ahead of another.
    const Ranks below = nest.ranks_at(28);
    const Ranks at_floor = nest.ranks_at(24);
    for (size_t space = 0; space < below.size(); ++space) {
      if (below[space] < at_floor[space]) {
        EXPECT_GE(below[space] + options_.step, *std::ranges::max_element(below));
      }
    }
  }
}

// Algorithm 1 to the letter: every cut is the one of least objective among all.
TEST_F(LadderSearchTest, ExhaustiveIsTheGreedyOfThePaper) {
  options_.exhaustive = true;
  options_.floor = 0.7;
  const SearchReport got = search(options_);
  CutEvaluator direct = evaluator(SearchObjective::kl);
  Ranks ranks = nest_.full_ranks();
  for (size_t i = 0; i < got.searched_cuts; ++i) {
    size_t best = 0;
    double least = INFINITY;
    for (size_t space = 0; space < nest_.spaces(); ++space) {
      if (ranks[space] == 0) continue;
      const double value = must(direct.start(with_cut(ranks, space)));
      if (value < least) {
        least = value;
        best = space;
      }
    }
    EXPECT_EQ(got.ladder.cuts[i], best) << "cut " << i;
    EXPECT_EQ(got.values[i], least);
    ranks = with_cut(ranks, got.ladder.cuts[i]);
  }
}

TEST_F(LadderSearchTest, LazyMeasuresLessAndIsNearlyAsGood) {
  options_.floor = 0.5;
  const SearchReport lazy = search(options_);
  options_.exhaustive = true;
  const SearchReport exhaustive = search(options_);
  EXPECT_LT(lazy.evaluations, exhaustive.evaluations);
  EXPECT_LT(lazy.values.back(), 1.3 * exhaustive.values.back());
}

TEST_F(LadderSearchTest, InterruptedAndContinuedIsTheSame) {
  for (const size_t cuts_per_round : {1u, 3u}) {
    options_.cuts_per_round = cuts_per_round;
    options_.checkpoint.clear();
    options_.stop_after_cuts = 0;
    const SearchReport whole = search(options_);
    options_.checkpoint = folder_ / ("search" + std::to_string(cuts_per_round) + ".json");
    for (const size_t stop : {1u, 5u, 17u}) {
      options_.stop_after_cuts = stop;
      const SearchReport part = search(options_);
      EXPECT_TRUE(part.ladder.cuts.empty());
      EXPECT_GE(part.searched_cuts, stop);
      EXPECT_LT(part.searched_cuts, stop + cuts_per_round);
    }
    options_.stop_after_cuts = 0;
    const SearchReport rest = search(options_);
    EXPECT_EQ(rest.ladder.cuts, whole.ladder.cuts);
    EXPECT_EQ(rest.values, whole.values);
    EXPECT_EQ(search(options_).ladder.cuts, whole.ladder.cuts);  // a finished one is only read
  }
}

// Killed between two checkpoints in the middle of a round: here every measurement is checkpointed,
// and the run is cut off by an error at an arbitrary one.
TEST_F(LadderSearchTest, AnyCheckpointContinuesToTheSame) {
  const SearchReport whole = search(options_);
  options_.checkpoint = folder_ / "search.json";
  options_.checkpoint_seconds = 0.0;
  std::vector<std::string> checkpoints;
  options_.progress = [&](const Progress&) {
    std::ifstream file(options_.checkpoint);
    std::stringstream text;
    text << file.rdbuf();
    if (!text.str().empty()) checkpoints.push_back(text.str());
  };
  EXPECT_EQ(search(options_).ladder.cuts, whole.ladder.cuts);
  options_.progress = {};
  ASSERT_GT(checkpoints.size(), 20u);
  for (size_t i = 0; i < checkpoints.size(); i += 23) {
    std::ofstream(options_.checkpoint) << checkpoints[i];
    const SearchReport rest = search(options_);
    EXPECT_EQ(rest.ladder.cuts, whole.ladder.cuts) << "checkpoint " << i;
    EXPECT_EQ(rest.values, whole.values) << "checkpoint " << i;
  }
}

TEST_F(LadderSearchTest, WorkersDoNotMatter) {
  const SearchReport two = search(options_);
  Workers one(1);
  const SearchReport got = must(search_ladder(model_, nest_, sequences_, options_, one));
  EXPECT_EQ(got.ladder.cuts, two.ladder.cuts);
  EXPECT_EQ(got.values, two.values);
  EXPECT_EQ(got.evaluations, two.evaluations);
}

TEST_F(LadderSearchTest, RoundsOfSeveralCutsTakeDifferentSpaces) {
  options_.cuts_per_round = 4;
  options_.objective = SearchObjective::hidden_error;
  const SearchReport got = search(options_);
  for (size_t i = 0; i + 4 <= got.searched_cuts; i += 4) {
    for (size_t a = i; a < i + 4; ++a) {
      for (size_t b = i; b < a; ++b) EXPECT_NE(got.ladder.cuts[a], got.ladder.cuts[b]);
    }
  }
  EXPECT_TRUE(nest_.set_ladder(got.ladder));
}

// A cut of a share takes it in whole steps, and the cheapest by the slab comes first.
TEST_F(LadderSearchTest, CutsOfAShareAreTheCheapestByTheSlab) {
  options_.step = 1;
  options_.cut_share = 0.25;
  options_.exhaustive = true;
  options_.floor = 0.5;
  const SearchReport got = search(options_);
  EXPECT_GE(got.searched_cuts, 64u);  // of 128; the last cut may go below the floor
  EXPECT_LT(got.searched_cuts, 64u + 4);
  ASSERT_EQ(got.values.size(), got.searched_cuts);
  CutEvaluator direct = evaluator(SearchObjective::kl);
  Ranks ranks = nest_.full_ranks();
  double value = must(direct.start(ranks));
  for (size_t i = 0; i < got.searched_cuts;) {
    size_t best = 0;
    double least = INFINITY;
    const auto cut = [&](size_t space) {
      Ranks out = ranks;
      out[space] = static_cast<uint16_t>(
          ranks[space] - std::max<long>(1, std::lround(0.25 * static_cast<double>(ranks[space]))));
      return out;
    };
    for (size_t space = 0; space < nest_.spaces(); ++space) {
      if (ranks[space] == 0) continue;
      const double steps = ranks[space] - cut(space)[space];
      const double each = (must(direct.start(cut(space))) - value) / steps;
      if (each < least) {
        least = each;
        best = space;
      }
    }
    const Ranks next = cut(best);
    for (size_t rank = next[best]; rank < ranks[best]; ++rank, ++i) {
      ASSERT_LT(i, got.searched_cuts);
      EXPECT_EQ(got.ladder.cuts[i], best) << "cut " << i;
    }
    ranks = next;
    value = must(direct.start(ranks));
    EXPECT_EQ(got.values[i - 1], value);
  }
  EXPECT_TRUE(nest_.set_ladder(got.ladder));
}

TEST_F(LadderSearchTest, CutsOfAShareContinueToTheSame) {
  options_.step = 2;
  options_.cut_share = 0.3;
  options_.cuts_per_round = 3;
  const SearchReport whole = search(options_);
  options_.checkpoint = folder_ / "search.json";
  for (const size_t stop : {1u, 9u, 30u}) {
    options_.stop_after_cuts = stop;
    EXPECT_GE(search(options_).searched_cuts, stop);
  }
  options_.stop_after_cuts = 0;
  const SearchReport rest = search(options_);
  EXPECT_EQ(rest.ladder.cuts, whole.ladder.cuts);
  EXPECT_EQ(rest.values, whole.values);
}

TEST_F(LadderSearchTest, AnotherSearchsCheckpointIsRefused) {
  options_.checkpoint = folder_ / "search.json";
  options_.stop_after_cuts = 2;
  search(options_);
  SearchOptions other = options_;
  other.step = 8;
  auto got = search_ladder(model_, nest_, sequences_, other, workers_);
  ASSERT_FALSE(got);
  EXPECT_THAT(got.error().message, HasSubstr("step is 4 there, 8 here"));
  sequences_[0][3] = 0;
  got = search_ladder(model_, nest_, sequences_, options_, workers_);
  ASSERT_FALSE(got);
  EXPECT_THAT(got.error().message, HasSubstr("calibration"));
}

TEST_F(LadderSearchTest, BrokenCheckpointsAreErrors) {
  options_.checkpoint = folder_ / "search.json";
  options_.stop_after_cuts = 2;
  search(options_);
  std::ifstream file(options_.checkpoint);
  std::stringstream stream;
  stream << file.rdbuf();
  const std::string good = stream.str();
  const auto refused = [&](const std::string& text) {
    std::ofstream(options_.checkpoint) << text;
    return !search_ladder(model_, nest_, sequences_, options_, workers_).has_value();
  };
  EXPECT_FALSE(refused(good));
  EXPECT_TRUE(refused(""));
  EXPECT_TRUE(refused("{}"));
  for (size_t size = 1; size < good.size(); size += 37) EXPECT_TRUE(refused(good.substr(0, size)));
  const auto replaced = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    const size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos);
    return text.replace(at, from.size(), to);
  };
  EXPECT_TRUE(refused(replaced("\"cuts\":[", "\"cuts\":[999,")));
  EXPECT_TRUE(refused(replaced("\"cuts\":[", "\"cuts\":[0,0,0,0,0,")));
  EXPECT_TRUE(refused(replaced("\"values\":[", "\"values\":[1e999,")));
  EXPECT_TRUE(refused(replaced("\"costs\":[", "\"costs\":[null,")));
  EXPECT_TRUE(refused(replaced("\"format\":1", "\"format\":2")));
}

TEST_F(LadderSearchTest, RefusesWhatCannotBeSearched) {
  const auto fails = [&](SearchOptions options, const Sequences& sequences) {
    return !search_ladder(model_, nest_, sequences, options, workers_).has_value();
  };
  SearchOptions bad = options_;
  bad.step = 3;
  EXPECT_TRUE(fails(bad, sequences_));
  bad.step = 0;
  EXPECT_TRUE(fails(bad, sequences_));
  bad = options_;
  bad.floor = 1.5;
  EXPECT_TRUE(fails(bad, sequences_));
  bad = options_;
  bad.cut_share = 1.5;
  EXPECT_TRUE(fails(bad, sequences_));
  bad = options_;
  bad.cuts_per_round = 0;
  EXPECT_TRUE(fails(bad, sequences_));
  EXPECT_TRUE(fails(options_, {}));
  EXPECT_TRUE(fails(options_, {{1, 2}}));
  EXPECT_TRUE(fails(options_, {{1, 2, 3, 100000, 5, 6}}));
}

}  // namespace
}  // namespace mkv
