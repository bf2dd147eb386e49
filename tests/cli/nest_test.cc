// From a model to a nest, a smaller cache and its measurement; and what goes wrong on the way.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "cli/program.h"
#include "store/json.h"

namespace mkv {
namespace {

using ::testing::HasSubstr;

class NestFiles : public ::testing::Test {
 protected:
  NestFiles() : model_(golden_model("llama.gguf")), nest_((folder_.path() / "nest").string()) {}

  Outcome fit(const std::string& kind, const Launch& launch = {}) const {
    return matryoshka({"fit", model_, "-o", nest_, "--kind", kind, "--tokens", "1024", "--window",
                       "256", "--recent", "64", "--step", "4", "--json"},
                      launch);
  }

  // Long enough to leave the recent window; what is generated after it may end at any token.
  static std::string long_prompt() {
    std::string prompt;
    for (int i = 0; i < 20; ++i) prompt += "Once upon a time ";
    return prompt;
  }

  std::string write_text() const {
    const std::string path = (folder_.path() / "text.txt").string();
    std::ofstream file(path);
    for (int i = 0; i < 300; ++i) file << "Once upon a time there was a number " << i << ".\n";
    return path;
  }

  // KL of a budget of the nest, the nest being used with one more option.
  Json kl_with(const char* option, const char* value, const char* budget) const {
    return json_of(
        matryoshka({"eval", "kl", model_, "--nest", nest_, option, value, "--budgets", budget,
                    "--text", write_text(), "--context", "256", "--windows", "2", "--json"}))[0];
  }
  Outcome run_with(const char* option, const char* value) const {
    return matryoshka({"run", model_, "-p", "a", "-n", "2", "--nest", nest_, option, value});
  }

  size_t files() const {
    size_t count = 0;
    for ([[maybe_unused]] const auto& entry :
         std::filesystem::recursive_directory_iterator(folder_.path())) {
      ++count;
    }
    return count;
  }

  ScratchFolder folder_;
  std::string model_, nest_;
};

class NestTest : public NestFiles, public ::testing::WithParamInterface<const char*> {};

TEST_P(NestTest, FitInspectEvaluateRun) {
  const Outcome outcome = fit(GetParam());
  EXPECT_THAT(outcome.err, HasSubstr("100 %"));          // progress, in lines of its own
  EXPECT_EQ(outcome.err.find('\r'), std::string::npos);  // where there is no terminal
  const Json fitted = json_of(outcome);
  EXPECT_EQ(fitted.at("slab_kind"), GetParam());
  EXPECT_EQ(json_of(matryoshka({"inspect", nest_, "--json"})), fitted);
  EXPECT_LT(fitted.at("orthogonality_error"), 1e-4);
  EXPECT_GE(std::stod(fitted.at("origin").at("fit_seconds").get<std::string>()), 1);

  const std::string text = write_text();
  const Json list =
      json_of(matryoshka({"eval", "kl", model_, "--nest", nest_, "--budgets", "max,12.5%", "--text",
                          text, "--context", "256", "--windows", "2", "--json"}));
  ASSERT_EQ(list.size(), 2u);
  for (const char* field : {"perplexity", "perplexity_base", "kl", "kl_stderr", "top1_agreement",
                            "kv_bytes_per_token", "bits_per_value", "coded_bits_per_value"}) {
    EXPECT_TRUE(list[0].at(field).is_number()) << field;
  }
  EXPECT_LT(list[0].at("kl"), list[1].at("kl"));
  EXPECT_GT(list[0].at("kv_bytes_per_token"), list[1].at("kv_bytes_per_token"));
  EXPECT_LE(list[1].at("coded_bits_per_value"), 2.0);

  const std::vector<std::string> run{"run",           model_, "-p",     long_prompt(), "-n",    "1",
                                     "--temperature", "0",    "--nest", nest_,         "--json"};
  std::vector<std::string> small = run;
  small.insert(small.end(), {"--budget", "12.5%"});
  EXPECT_GT(json_of(matryoshka(run)).at("kv_bytes"), json_of(matryoshka(small)).at("kv_bytes"));
}

TEST_P(NestTest, SameSeedSameNest) {
  ASSERT_EQ(fit(GetParam()).exit_code, 0);
  const auto tensors = [&] {
    std::ifstream file(nest_ + "/matryoshka_kv.safetensors", std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(file), {});
  };
  const std::string first = tensors();
  ASSERT_EQ(fit(GetParam()).exit_code, 0);
  EXPECT_FALSE(first.empty());
  EXPECT_TRUE(first == tensors());
}

TEST_P(NestTest, AnotherModelIsRefused) {
  ASSERT_EQ(fit(GetParam()).exit_code, 0);
  const Outcome shape =
      matryoshka({"run", golden_model("llama_spm.gguf"), "-p", "a", "--nest", nest_});
  EXPECT_EQ(shape.exit_code, 1);
  EXPECT_THAT(shape.err, HasSubstr("KV heads"));
  EXPECT_EQ(count_lines(shape.err), 1u);
}

TEST_P(NestTest, BudgetsOutOfRangeAreUsageErrors) {
  ASSERT_EQ(fit(GetParam()).exit_code, 0);
  for (const char* budget : {"500%", "-1%", "17bits", "lots", "25"}) {
    const Outcome outcome =
        matryoshka({"run", model_, "-p", "a", "--nest", nest_, std::string("--budget=") + budget});
    EXPECT_EQ(outcome.exit_code, 2) << budget;
    EXPECT_THAT(outcome.err, HasSubstr(budget));
    EXPECT_EQ(count_lines(outcome.err), 1u);
  }
}

// More recent tokens are exact: less divergence, more bytes.
TEST_P(NestTest, TheExactWindowIsADialToo) {
  ASSERT_EQ(fit(GetParam()).exit_code, 0);
  const Json few = kl_with("--recent", "64", "12.5%"), many = kl_with("--recent", "192", "12.5%");
  EXPECT_GT(few.at("kl"), many.at("kl"));
  EXPECT_LT(few.at("kv_bytes_per_token"), many.at("kv_bytes_per_token"));
  EXPECT_EQ(few.at("coded_bits_per_value"), many.at("coded_bits_per_value"));
  EXPECT_EQ(run_with("--recent", "192").exit_code, 0);
  const Outcome outcome = run_with("--recent", "100");
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_THAT(outcome.err, HasSubstr("--recent"));
  EXPECT_THAT(outcome.err, HasSubstr("100"));
  EXPECT_EQ(matryoshka({"run", model_, "-p", "a", "--recent", "64"}).exit_code, 2);
}

// More paths when coding: less divergence at the same bytes. Columns are not coded.
TEST_P(NestTest, ABeamCodesWithLessError) {
  ASSERT_EQ(fit(GetParam()).exit_code, 0);
  for (const char* beam : {"0", "5", "-1"}) EXPECT_EQ(run_with("--beam", beam).exit_code, 2);
  EXPECT_EQ(run_with("--beam", "1").exit_code, 0);
  const Outcome two = run_with("--beam", "2");
  if (std::string(GetParam()) == "column") {
    EXPECT_EQ(two.exit_code, 2);
    EXPECT_THAT(two.err, HasSubstr("--beam"));
    return;
  }
  EXPECT_EQ(two.exit_code, 0);
  const Json one = kl_with("--beam", "1", "3bits"), four = kl_with("--beam", "4", "3bits");
  EXPECT_LT(four.at("kl"), one.at("kl"));
  EXPECT_EQ(one.at("kv_bytes_per_token"), four.at("kv_bytes_per_token"));
}

TEST_P(NestTest, ATolerancePicksTheCache) {
  ASSERT_EQ(fit(GetParam()).exit_code, 0);
  const std::string text = write_text();
  std::vector<std::string> run{"run",           model_, "-p",     "Once", "-n",    "200",
                               "--temperature", "0",    "--nest", nest_,  "--json"};
  std::vector<std::string> tolerant = run;
  tolerant.insert(tolerant.end(), {"--max-kl", "1000"});
  const Outcome unmeasured = matryoshka(tolerant);
  EXPECT_EQ(unmeasured.exit_code, 2);
  EXPECT_THAT(unmeasured.err, HasSubstr("--measure"));

  ASSERT_EQ(matryoshka({"fit",
                        model_,
                        "-o",
                        nest_,
                        "--kind",
                        GetParam(),
                        "--tokens",
                        "1024",
                        "--window",
                        "256",
                        "--recent",
                        "64",
                        "--step",
                        "4",
                        "--measure",
                        text,
                        "--measure-windows",
                        "1",
                        "--measure-rungs",
                        "4"})
                .exit_code,
            0);
  EXPECT_GT(json_of(matryoshka(run)).at("kv_bytes"), json_of(matryoshka(tolerant)).at("kv_bytes"));
  tolerant.back() = "0";
  const Outcome too_strict = matryoshka(tolerant);
  EXPECT_EQ(too_strict.exit_code, 2) << too_strict.err;
  EXPECT_EQ(count_lines(too_strict.err), 1u);
}

TEST_P(NestTest, DamagedNestsAreOneLineAndCode1) {
  ASSERT_EQ(fit(GetParam()).exit_code, 0);
  for (const char* file : {"matryoshka_kv.safetensors", "matryoshka_kv_config.json"}) {
    const std::filesystem::path path = std::filesystem::path(nest_) / file;
    const auto size = std::filesystem::file_size(path);
    std::filesystem::resize_file(path, size / 2);
    const Outcome outcome = matryoshka({"run", model_, "-p", "a", "--nest", nest_});
    EXPECT_EQ(outcome.exit_code, 1) << outcome.err;
    EXPECT_EQ(count_lines(outcome.err), 1u) << outcome.err;
    EXPECT_THAT(outcome.err, HasSubstr(file));
    std::filesystem::remove_all(nest_);
    ASSERT_EQ(fit(GetParam()).exit_code, 0);
  }
}

TEST_P(NestTest, AFullDiskLeavesNothingBehind) {
  const Outcome outcome =
      fit(GetParam(), {.input = "", .most_file_bytes = 4096, .stdout_path = ""});
  EXPECT_EQ(outcome.exit_code, 1) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("matryoshka: "));
  EXPECT_EQ(files(), 0u);
}

TEST_P(NestTest, AFullDiskKeepsTheNestThatWasThere) {
  ASSERT_EQ(fit(GetParam()).exit_code, 0);
  const size_t before = files();
  EXPECT_EQ(fit(GetParam(), {.input = "", .most_file_bytes = 4096, .stdout_path = ""}).exit_code,
            1);
  EXPECT_EQ(files(), before);
  EXPECT_EQ(matryoshka({"inspect", nest_}).exit_code, 0);
}

TEST_F(NestFiles, AnotherFolderIsNotReplaced) {
  std::filesystem::create_directory(nest_);
  std::ofstream(nest_ + "/precious.txt") << "kept";
  const Outcome outcome = fit("column");
  EXPECT_EQ(outcome.exit_code, 1) << outcome.err;
  EXPECT_EQ(count_lines(outcome.err), 1u) << outcome.err;  // before any work
  EXPECT_TRUE(std::filesystem::exists(nest_ + "/precious.txt"));
}

TEST_F(NestFiles, SearchGivesAnotherLadder) {
  ASSERT_EQ(fit("column").exit_code, 0);
  const std::string text = write_text(), found = (folder_.path() / "found").string();
  const Json result = json_of(matryoshka({"search",   model_,
                                          "--nest",   nest_,
                                          "-o",       found,
                                          "--text",   text,
                                          "--tokens", "512",
                                          "--window", "256",
                                          "--step",   "4",
                                          "--json",   "--measure",
                                          text,       "--measure-windows",
                                          "1",        "--measure-rungs",
                                          "3"}));
  EXPECT_EQ(result.at("measurements").size(), 3u);
  EXPECT_TRUE(result.at("origin").contains("search_seconds"));
  EXPECT_EQ(matryoshka({"run", model_, "-p", "a", "-n", "2", "--nest", found}).exit_code, 0);
}

TEST(Inspect, ModelsOfBothFormatsAgree) {
  const Json gguf = json_of(matryoshka({"inspect", golden_model("llama.gguf"), "--json"}));
  const Json folder = json_of(matryoshka({"inspect", golden_model("llama"), "--json"}));
  for (const char* field : {"num_layers", "num_kv_heads", "head_dim", "kv_bytes_per_token",
                            "parameters", "has_chat_template"}) {
    EXPECT_EQ(gguf.at(field), folder.at(field)) << field;
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, NestTest, ::testing::Values("column", "code"));

}  // namespace
}  // namespace mkv
