// Saving and loading nests, and files that are not what they say.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "nest/basis.h"
#include "nest/code_fixture.h"

namespace mkv {
namespace {

namespace fs = std::filesystem;

class NestFile : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() /
              ("mkv_nest_file_" + std::to_string(::getpid()) + "_" +
               ::testing::UnitTest::GetInstance()->current_test_info()->name());
    fs::remove_all(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  static NestConfig config() {
    NestConfig c;
    c.shape = {2, 2, 8};
    c.group_size = 2;
    c.model_hash = "abc";
    c.origin = {{"model", "tiny \"quoted\""}};
    return c;
  }
  static Nest column_nest() {
    Nest nest = std::move(Nest::create(config())).value();
    fill_random_bases(nest, 4);
    nest.measurements().push_back({3, 15.5, 0.01, 0.02});
    return nest;
  }
  static Nest code_nest() {
    NestConfig c = config();
    c.later_sinks = 12;
    Nest nest = make_code_nest(c, 10, 5);
    for (size_t i = 0; i < nest.spaces(); ++i) {
      Basis& basis = nest.basis(nest.unflat(i));
      EXPECT_TRUE(invert(basis.decode, basis.encode));
    }
    return nest;
  }
  static std::string read(const fs::path& path) {
    std::ifstream in(path, std::ios::binary);
    std::stringstream text;
    text << in.rdbuf();
    return text.str();
  }
  static void write(const fs::path& path, const std::string& text) {
    std::ofstream(path, std::ios::binary) << text;
  }
  void replace_in_config(const std::string& from, const std::string& to) {
    std::string text = read(folder_ / "matryoshka_kv_config.json");
    const size_t at = text.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    write(folder_ / "matryoshka_kv_config.json", text.replace(at, from.size(), to));
  }
  std::string load_error() {
    auto nest = Nest::load(folder_);
    return nest ? "loaded" : nest.error().message;
  }
  fs::path folder_;
};

void expect_same(const Nest& a, const Nest& b) {
  ASSERT_EQ(a.spaces(), b.spaces());
  for (size_t i = 0; i < a.spaces(); ++i) {
    const Basis& x = a.basis(a.unflat(i));
    const Basis& y = b.basis(b.unflat(i));
    EXPECT_TRUE(std::ranges::equal(x.encode.span(), y.encode.span()));
    EXPECT_TRUE(std::ranges::equal(x.decode.span(), y.decode.span()));
    EXPECT_EQ(x.mean, y.mean);
    ASSERT_EQ(x.slabs.size(), y.slabs.size());
    for (size_t s = 0; s < x.slabs.size(); ++s) {
      EXPECT_EQ(x.slabs[s].first_column, y.slabs[s].first_column);
      EXPECT_EQ(std::memcmp(&x.slabs[s].codebook, &y.slabs[s].codebook, sizeof(Codebook)), 0);
      EXPECT_TRUE(std::ranges::equal(x.slabs[s].scale, y.slabs[s].scale));
    }
  }
  EXPECT_EQ(a.ladder().step, b.ladder().step);
  EXPECT_EQ(a.ladder().cuts, b.ladder().cuts);
  EXPECT_EQ(a.measurements().size(), b.measurements().size());
  EXPECT_EQ(a.config().origin, b.config().origin);
  EXPECT_EQ(a.config().later_sinks, b.config().later_sinks);
}

TEST_F(NestFile, ColumnsComeBackExactly) {
  const Nest nest = column_nest();
  ASSERT_TRUE(nest.save(folder_));
  auto loaded = Nest::load(folder_);
  ASSERT_TRUE(loaded) << loaded.error().message;
  expect_same(nest, *loaded);
  EXPECT_LT(loaded->orthogonality_error(), 1e-6);
}

TEST_F(NestFile, CodesComeBackExactly) {
  const Nest nest = code_nest();
  ASSERT_TRUE(nest.save(folder_));
  auto loaded = Nest::load(folder_);
  ASSERT_TRUE(loaded) << loaded.error().message;
  expect_same(nest, *loaded);
}

TEST_F(NestFile, LaterSinksMayBeLeftOutAndAreChecked) {
  ASSERT_TRUE(code_nest().save(folder_));
  replace_in_config("\"later_sinks\": 12", "\"later_sinks\": 70000");
  EXPECT_NE(load_error().find("70000 later sinks are more than 65536"), std::string::npos);
  replace_in_config("\"later_sinks\": 70000,", "");  // as in a nest made before there were any
  auto loaded = Nest::load(folder_);
  ASSERT_TRUE(loaded) << loaded.error().message;
  EXPECT_EQ(loaded->config().later_sinks, 0u);
  NestConfig alone = config();
  alone.later_sinks = 1;
  alone.sinks = 1;
  const auto refused = Nest::create(alone);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("need 2 sinks"), std::string::npos);
}

TEST_F(NestFile, ErrorsNameWhatDisagrees) {
  EXPECT_NE(load_error().find("matryoshka_kv_config.json"), std::string::npos);
  ASSERT_TRUE(column_nest().save(folder_));
  replace_in_config("\"format_version\": 1", "\"format_version\": 9");
  EXPECT_NE(load_error().find("format_version 9"), std::string::npos) << load_error();
  replace_in_config("\"format_version\": 9", "\"format_version\": 1");
  replace_in_config("\"head_dim\": 8", "\"head_dim\": 16");
  EXPECT_NE(load_error().find("expected F32 [1, 32], found F32 [1, 16]"), std::string::npos)
      << load_error();
  replace_in_config("\"head_dim\": 16", "\"head_dim\": 4000000000");
  EXPECT_NE(load_error(), "loaded");
  replace_in_config("\"head_dim\": 4000000000", "\"head_dim\": 0");
  EXPECT_NE(load_error(), "loaded");
  replace_in_config("\"head_dim\": 0", "\"head_dim\": 8");
  replace_in_config("\"group_size\": 2", "\"group_size\": 0");
  EXPECT_NE(load_error(), "loaded");
  replace_in_config("\"group_size\": 0", "\"group_size\": 2");
  replace_in_config("\"ladder_step\": 1", "\"ladder_step\": 3");
  EXPECT_NE(load_error().find("ladder"), std::string::npos);
}

TEST_F(NestFile, DamagedTensorsAreErrorsAndNothingElse) {
  ASSERT_TRUE(code_nest().save(folder_));
  const std::string whole = read(folder_ / "matryoshka_kv.safetensors");
  Rng rng(1);
  for (size_t i = 0; i < 200; ++i) {
    write(folder_ / "matryoshka_kv.safetensors", whole.substr(0, rng.below(whole.size())));
    EXPECT_NE(load_error(), "loaded");
  }
  for (size_t i = 0; i < 500;
       ++i) {  // any outcome but a crash: a flipped bit may be a valid number
    std::string damaged = whole;
    damaged[rng.below(whole.size())] ^= static_cast<char>(1u << rng.below(8));
    write(folder_ / "matryoshka_kv.safetensors", damaged);
    load_error();
  }
}

TEST(Budgets, ArePositionsOnTheLadder) {
  NestConfig config;
  config.shape = {2, 2, 8};
  const Nest nest = std::move(Nest::create(config)).value();
  EXPECT_EQ(*rung_for_budget(nest, "max"), 0u);
  EXPECT_EQ(*rung_for_budget(nest, "100%"), 0u);
  EXPECT_EQ(*rung_for_budget(nest, "50%"), nest.ladder().cuts.size() / 2);
  EXPECT_EQ(*rung_for_budget(nest, "8bits"), nest.ladder().cuts.size() / 2);
  EXPECT_EQ(*rung_for_budget(nest, "0%"), nest.ladder().cuts.size());
  for (const char* bad : {"", "x", "101%", "-1%", "17bits", "50", "50 %", "nan%", "1e9%"}) {
    EXPECT_FALSE(rung_for_budget(nest, bad)) << bad;
  }
  for (size_t rung = 0; rung < nest.ladder().rungs(); ++rung) {
    const double bits = nest.coded_bits_per_value(nest.ranks_at(rung));
    EXPECT_NEAR(bits, 16.0 * (1.0 - static_cast<double>(rung) / 64.0), 1e-9);
  }
}

TEST(Tolerances, PickTheLowestMeasuredRungThatKeepsThem) {
  NestConfig config;
  config.shape = {2, 2, 8};
  Nest nest = std::move(Nest::create(config)).value();
  EXPECT_FALSE(rung_for_tolerance(nest, {.kl = 1.0}));
  nest.measurements() = {{.rung = 8, .kl = 0.02, .perplexity_increase = 0.01},
                         {.rung = 0, .kl = 0.001, .perplexity_increase = 0.0},
                         {.rung = 16, .kl = 0.2, .perplexity_increase = 0.3},
                         // by chance better than the rung above it: not to be relied on
                         {.rung = 24, .kl = 0.01, .perplexity_increase = 0.01}};
  EXPECT_EQ(*rung_for_tolerance(nest, {}), 24u);
  EXPECT_EQ(*rung_for_tolerance(nest, {.kl = 0.02}), 8u);
  EXPECT_EQ(*rung_for_tolerance(nest, {.kl = 0.019}), 0u);
  EXPECT_EQ(*rung_for_tolerance(nest, {.perplexity_increase = 0.05}), 8u);
  EXPECT_EQ(*rung_for_tolerance(nest, {.kl = 1.0, .perplexity_increase = 0.001}), 0u);
  const auto refused = rung_for_tolerance(nest, {.kl = 0.0001});
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("0.001"), std::string::npos) << refused.error().message;
}

TEST(Tolerances, AreFractionsOrPercentages) {
  EXPECT_EQ(*parse_fraction("1%"), 0.01);
  EXPECT_EQ(*parse_fraction("0.25"), 0.25);
  for (const char* bad : {"", "x", "-1", "1 %", "nan", "%", "1%%"}) {
    EXPECT_FALSE(parse_fraction(bad)) << bad;
  }
}

}  // namespace
}  // namespace mkv
