#include "fit/pca.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>

#include "eval/kl.h"
#include "eval/tiny_model.h"
#include "fit/measure.h"

namespace mkv {
namespace {

using ::testing::HasSubstr;

Sequences random_sequences(const Model& model, size_t count, size_t tokens) {
  Sequences out;
  for (size_t i = 0; i < count; ++i) {
    out.push_back(random_tokens(tokens, model.config().vocab_size, 100 + i));
  }
  return out;
}

Windows random_windows(const Model& model, size_t context, size_t count) {
  return {.context = context,
          .tokens = random_tokens(context * count, model.config().vocab_size, 9)};
}

TEST(PrincipalAxes, FindsAPlantedBasis) {
  // Two turns of the unit axes by known angles, energies 9, 4, 1.
  const double a = 0.3, b = 1.1;
  const double u[3][3] = {{std::cos(a), -std::sin(a) * std::cos(b), std::sin(a) * std::sin(b)},
                          {std::sin(a), std::cos(a) * std::cos(b), -std::cos(a) * std::sin(b)},
                          {0.0, std::sin(b), std::cos(b)}};
  const double energy[3] = {9.0, 4.0, 1.0};
  Matrix<double> covariance(3, 3);
  for (size_t i = 0; i < 3; ++i) {
    for (size_t j = 0; j < 3; ++j) {
      for (size_t c = 0; c < 3; ++c) covariance.at(i, j) += energy[c] * u[i][c] * u[j][c];
    }
  }
  const PrincipalAxes got = principal_axes(covariance);
  for (size_t c = 0; c < 3; ++c) {
    EXPECT_NEAR(got.energy[c], energy[c], 1e-12);
    double along = 0.0, largest = 0.0;
    for (size_t i = 0; i < 3; ++i) {
      along += got.axes.at(i, c) * u[i][c];
      if (std::abs(got.axes.at(i, c)) > std::abs(largest)) largest = got.axes.at(i, c);
    }
    EXPECT_NEAR(std::abs(along), 1.0, 1e-12);
    EXPECT_GT(largest, 0.0);
  }
}

TEST(PrincipalAxes, OfNothingAreStillOrthogonal) {
  const PrincipalAxes got = principal_axes(Matrix<double>(4, 4));
  for (size_t c = 0; c < 4; ++c) {
    double square = 0.0;
    for (size_t i = 0; i < 4; ++i) square += got.axes.at(i, c) * got.axes.at(i, c);
    EXPECT_NEAR(square, 1.0, 1e-12);
  }
}

TEST(FitNest, BasesAreOrthogonalAndFullRankIsExact) {
  const Model model = tiny_model();
  Workers workers(2);
  for (const size_t group_size : {1u, 2u}) {
    FitOptions options;
    options.group_size = group_size;
    options.recent = 0;
    options.origin["calibration"] = "random tokens";
    const Nest nest = must(fit_nest(model, random_sequences(model, 8, 128), options, {}, workers));
    EXPECT_LE(nest.orthogonality_error(), 1e-6);
    EXPECT_EQ(nest.config().model_hash, model.weights_hash());
    EXPECT_EQ(nest.config().origin.at("tokens"), "1024");
    EXPECT_EQ(nest.config().origin.at("calibration"), "random tokens");
    EXPECT_EQ(nest.ladder().step, 8u);
    EXPECT_EQ(nest.ladder().cuts.size(), nest.spaces() * nest.dims() / 8);
    const BaseHidden base =
        must(BaseHidden::compute(model, random_windows(model, 128, 1), {}, workers));
    const CacheFactory full = must(CacheFactory::coded(model, nest, nest.full_ranks()));
    EXPECT_LT(must(evaluate_kl(model, base, full, {}, workers)).kl, 1e-5);
  }
}

// Nests of 16-bit columns for a tiny model, without a recent window, and what they cost.
class ColumnAxesTest : public ::testing::Test {
 protected:
  void SetUp() override { options.recent = 0; }
  Nest fit() { return must(fit_nest(model, sequences, options, {}, workers)); }
  double kl_at(const Nest& nest, const char* budget) {
    const Ranks ranks = nest.ranks_at(must(rung_for_budget(nest, budget)));
    const CacheFactory caches = must(CacheFactory::coded(model, nest, ranks));
    return must(evaluate_kl(model, base, caches, {}, workers)).kl;
  }

  const Model model = tiny_model();
  Workers workers{1};
  const Sequences sequences = random_sequences(model, 8, 128);
  const BaseHidden base =
      must(BaseHidden::compute(model, random_windows(model, 128, 1), {}, workers));
  FitOptions options;
};

// What principal axes are compared with: full size is exact for any rotation, half is not.
TEST_F(ColumnAxesTest, OthersAreOrthogonalAndWorse) {
  const double principal = kl_at(fit(), "50%");
  for (const ColumnAxes axes : {ColumnAxes::dimensions, ColumnAxes::random}) {
    options.axes = axes;
    const Nest nest = fit();
    EXPECT_LE(nest.orthogonality_error(), 1e-6);
    EXPECT_LT(kl_at(nest, "100%"), 1e-5);
    EXPECT_GT(kl_at(nest, "50%"), principal);
  }
  options.seed = 1;
  const Nest other = fit();
  options.seed = 2;
  const Nest third = fit();
  EXPECT_NE(other.basis({0, 0, Side::key}).encode.at(0, 0),
            third.basis({0, 0, Side::key}).encode.at(0, 0));
}

// Oblique bases are exact at full size, closer than principal axes where the loss says so, and the
// same from their file.
TEST_F(ColumnAxesTest, MetricIsObliqueAndCloser) {
  const Nest principal = fit();
  options.axes = ColumnAxes::metric;
  const Nest nest = fit();
  EXPECT_LE(nest.orthogonality_error(), 1e-5);  // of encode decode - I
  EXPECT_LT(kl_at(nest, "100%"), 1e-5);
  EXPECT_LT(kl_at(nest, "75%"), kl_at(principal, "75%"));
  EXPECT_LT(kl_at(nest, "50%"), kl_at(principal, "50%"));
  const std::filesystem::path folder =
      std::filesystem::path(::testing::TempDir()) / "metric_axes_nest";
  ASSERT_TRUE(nest.save(folder));
  const Nest again = must(Nest::load(folder));
  std::filesystem::remove_all(folder);
  for (size_t s = 0; s < nest.spaces(); ++s) {
    const Basis &a = nest.basis(nest.unflat(s)), &b = again.basis(again.unflat(s));
    EXPECT_TRUE(std::ranges::equal(a.encode.span(), b.encode.span())) << s;
    EXPECT_TRUE(std::ranges::equal(a.decode.span(), b.decode.span())) << s;
  }
}

TEST(FitNest, ColumnsFallInEnergyOnTheTextItself) {
  const Model model = tiny_model();
  Workers workers(1);
  const Sequences sequences = random_sequences(model, 8, 128);
  const Nest nest = must(fit_nest(model, sequences, {}, {}, workers));
  const Statistics statistics = must(gather_statistics(model, sequences, {}, {}, workers));
  for (size_t space = 0; space < nest.spaces(); ++space) {
    const Matrix<double> covariance = statistics.covariance(space);
    const Basis& basis = nest.basis(nest.unflat(space));
    double before = INFINITY;
    for (size_t c = 0; c < nest.dims(); ++c) {
      double energy = 0.0;
      for (size_t i = 0; i < nest.dims(); ++i) {
        for (size_t j = 0; j < nest.dims(); ++j) {
          energy += covariance.at(i, j) * basis.encode.at(c, i) * basis.encode.at(c, j);
        }
      }
      EXPECT_LE(energy, before * (1.0 + 1e-4) + 1e-9);
      before = energy;
    }
  }
}

TEST(FitNest, IsTheSameForAnyNumberOfWorkers) {
  const Model model = tiny_model("qwen3");
  std::vector<Nest> nests;
  for (const size_t threads : {1u, 3u}) {
    Workers workers(threads);
    nests.push_back(must(fit_nest(model, random_sequences(model, 4, 200), {}, {}, workers)));
  }
  for (size_t space = 0; space < nests[0].spaces(); ++space) {
    const Basis& a = nests[0].basis(nests[0].unflat(space));
    const Basis& b = nests[1].basis(nests[1].unflat(space));
    EXPECT_TRUE(std::ranges::equal(a.encode.span(), b.encode.span()));
    EXPECT_EQ(a.mean, b.mean);
  }
}

TEST(FitNest, RefusesTooLittleTextAndBadSteps) {
  const Model model = tiny_model();
  Workers workers(1);
  const auto little = fit_nest(model, random_sequences(model, 1, 12), {}, {}, workers);
  ASSERT_FALSE(little);
  EXPECT_THAT(little.error().message, HasSubstr("8 tokens"));
  EXPECT_FALSE(fit_nest(model, {}, {}, {}, workers));
  FitOptions options;
  options.step = 3;
  EXPECT_FALSE(fit_nest(model, random_sequences(model, 2, 64), options, {}, workers));
  options = {};
  options.group_size = 3;
  EXPECT_FALSE(fit_nest(model, random_sequences(model, 2, 64), options, {}, workers));
  Sequences foreign = random_sequences(model, 1, 64);
  foreign[0][7] = -1;
  EXPECT_FALSE(fit_nest(model, foreign, {}, {}, workers));
}

TEST(MeasureLadder, RecordsRungsFromFullDown) {
  const Model model = tiny_model();
  Workers workers(2);
  FitOptions options;
  options.recent = 0;
  Nest nest = must(fit_nest(model, random_sequences(model, 8, 128), options, {}, workers));
  size_t told = 0;
  MeasureOptions measure;
  measure.rungs = 4;
  measure.eval.progress = [&](const Progress& progress) {
    if (progress.stage == "measure") told = progress.done;
  };
  const auto done = measure_ladder(model, nest, random_windows(model, 128, 1), measure, workers);
  ASSERT_TRUE(done) << done.error().message;
  const auto& got = nest.measurements();
  ASSERT_EQ(got.size(), 4u);
  EXPECT_EQ(told, 4u);
  EXPECT_EQ(got[0].rung, 0u);
  EXPECT_DOUBLE_EQ(got[0].bits_per_value, 16.0);
  EXPECT_LT(got[0].kl, 1e-5);
  EXPECT_LT(std::abs(got[0].perplexity_increase), 1e-3);
  for (size_t i = 1; i < got.size(); ++i) {
    EXPECT_GT(got[i].rung, got[i - 1].rung);
    EXPECT_LT(got[i].bits_per_value, got[i - 1].bits_per_value);
    EXPECT_GT(got[i].kl, got[i - 1].kl);
  }
  measure.rungs = 1000;  // no more than there are
  ASSERT_TRUE(measure_ladder(model, nest, random_windows(model, 128, 1), measure, workers));
  EXPECT_EQ(nest.measurements().size(), nest.ladder().cuts.size());
}

}  // namespace
}  // namespace mkv
