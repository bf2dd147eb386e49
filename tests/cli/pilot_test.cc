// pilot and autopilot, from a model and texts to a page and a report; and what goes wrong.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>

#include "base/rng.h"
#include "cli/program.h"
#include "store/json.h"

namespace mkv {
namespace {

using ::testing::HasSubstr;

class PilotCommand : public ::testing::Test {
 protected:
  PilotCommand() {
    std::ofstream file(path("text.txt"));
    for (int i = 0; i < 300; ++i) file << "Once upon a time there was a number " << i << ".\n";
  }

  std::string path(const char* name) const { return (folder_.path() / name).string(); }

  Outcome pilot(const std::vector<std::string>& more) const {
    std::vector<std::string> arguments{"pilot",
                                       golden_model("llama.gguf"),
                                       "--text",
                                       path("text.txt"),
                                       "--context",
                                       "128",
                                       "--windows",
                                       "1",
                                       "--depths",
                                       "0,64",
                                       "--repetitions",
                                       "1",
                                       "--prompts",
                                       "1",
                                       "--prompt-tokens",
                                       "64",
                                       "-n",
                                       "4",
                                       "--max-ppl-increase",
                                       "50%"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return matryoshka(arguments);
  }

  Json read(const std::string& file) const {
    auto json = read_json_file(file, size_t{1} << 24);
    EXPECT_TRUE(json) << (json ? "" : json.error().message);
    return json ? *json : Json::object();
  }

  ScratchFolder folder_;
};

TEST_F(PilotCommand, FitsANestWhereThereIsNone) {
  const Outcome outcome =
      pilot({"-o", path("pilot.html"), "--fit-tokens", "1024", "--fit-window", "256", "--json"});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("quality"));
  EXPECT_THAT(outcome.err, HasSubstr("speed"));
  const Json report = read(path("pilot.json"));
  EXPECT_EQ(report.at("preparation").at("source"), "measured by this pilot");
  EXPECT_GT(report.at("preparation").at("seconds"), 0);
  const Json said = *parse_json(outcome.out, "output");
  EXPECT_EQ(said.at("recommended"), report.at("recommended"));
  std::ifstream page(path("pilot.html"));
  const std::string html(std::istreambuf_iterator<char>(page), {});
  EXPECT_THAT(html, HasSubstr("</html>"));

  // The nest that it made and its flags work elsewhere, and say what they took.
  const std::string nest = path("pilot.nest"), budget = report.at("quality").back().at("budget");
  EXPECT_EQ(matryoshka({"run", golden_model("llama.gguf"), "-p", "a", "-n", "2", "--nest", nest,
                        "--budget", budget})
                .exit_code,
            0);
  const Outcome again = pilot({"--nest", nest, "-o", path("again.html")});
  ASSERT_EQ(again.exit_code, 0) << again.err;
  const Json second = read(path("again.json"));
  EXPECT_EQ(second.at("preparation").at("source"), "recorded in the nest");
  EXPECT_EQ(second.at("quality")[4].at("kl"), report.at("quality")[4].at("kl"));
  EXPECT_THAT(again.out, HasSubstr(second.at("recommended").is_null() ? "no size" : "--budget"));

  const Outcome told =
      pilot({"--nest", nest, "-o", path("told.html"), "--preparation-minutes", "3"});
  ASSERT_EQ(told.exit_code, 0) << told.err;
  EXPECT_EQ(read(path("told.json")).at("preparation").at("seconds"), 180);
}

TEST_F(PilotCommand, WrongUse) {
  const auto expect_error = [&](const std::vector<std::string>& more, int code, const char* words) {
    const Outcome outcome = pilot(more);
    EXPECT_EQ(outcome.exit_code, code) << outcome.err;
    EXPECT_THAT(outcome.err, HasSubstr(words));
    EXPECT_EQ(count_lines(outcome.err), 1u) << outcome.err;
    EXPECT_EQ(outcome.out, "");
  };
  expect_error({}, 2, "--output");
  expect_error({"-o", path("pilot.pdf")}, 2, ".html");
  expect_error({"-o", path("none/pilot.html")}, 1, "no such folder");
  expect_error({"-o", path("pilot.html"), "--windows", "-1"}, 2, "--windows");
  expect_error({"-o", path("pilot.html"), "--nest", path("none")}, 1, "none");
  expect_error({"-o", path("pilot.html"), "--preparation-minutes", "3"}, 2, "--nest");
  const Outcome lots = matryoshka({"pilot", golden_model("llama.gguf"), "--text", path("text.txt"),
                                   "-o", path("pilot.html"), "--max-ppl-increase", "lots"});
  EXPECT_EQ(lots.exit_code, 2);
  EXPECT_THAT(lots.err, HasSubstr("lots"));
  std::ofstream(path("pilot.nest")) << "something else";
  expect_error({"-o", path("pilot.html")}, 1, "not replaced");
}

TEST_F(PilotCommand, AutopilotWritesItsTrace) {
  const std::string nest = path("nest"), text = path("text.txt");
  const auto fit = [&](const std::vector<std::string>& more) {
    std::vector<std::string> arguments{"fit",      golden_model("llama.gguf"),
                                       "-o",       nest,
                                       "--tokens", "1024",
                                       "--window", "256",
                                       "--recent", "64"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return matryoshka(arguments).exit_code;
  };
  const std::vector<std::string> fly{"autopilot",
                                     golden_model("llama.gguf"),
                                     "--nest",
                                     nest,
                                     "--stream",
                                     text,
                                     text,
                                     "--max-kl",
                                     "0.5",
                                     "-o",
                                     path("fly.html"),
                                     "--json",
                                     "--requests",
                                     "12",
                                     "--context",
                                     "160",
                                     "--shadow-share",
                                     "0.5"};
  ASSERT_EQ(fit({}), 0);
  const Outcome unmeasured = matryoshka(fly);
  EXPECT_EQ(unmeasured.exit_code, 2) << unmeasured.err;
  EXPECT_THAT(unmeasured.err, HasSubstr("--measure"));

  ASSERT_EQ(fit({"--measure", text, "--measure-windows", "1", "--measure-rungs", "6"}), 0);
  const Outcome outcome = matryoshka(fly);
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  const Json said = *parse_json(outcome.out, "output"), report = read(path("fly.json"));
  EXPECT_EQ(said.at("mean_kl"), report.at("mean_kl"));
  ASSERT_EQ(report.at("requests").size(), 24u);
  EXPECT_EQ(report.at("requests")[11].at("part"), 0);
  EXPECT_EQ(report.at("requests")[12].at("part"), 1);
  size_t shadowed = 0;
  for (const Json& request : report.at("requests")) {
    const bool seen = request.at("shadowed");
    EXPECT_EQ(request.contains("kl_upper"), seen);
    shadowed += seen;
  }
  EXPECT_GT(shadowed, 4u);
  EXPECT_LT(shadowed, 20u);
  std::ifstream page(path("fly.html"));
  const std::string html(std::istreambuf_iterator<char>(page), {});
  EXPECT_THAT(html, HasSubstr("Autopilot"));
  EXPECT_THAT(html, HasSubstr("kl_upper"));

  std::vector<std::string> wrong = fly;
  wrong[8] = "0";  // --max-kl
  EXPECT_EQ(matryoshka(wrong).exit_code, 2);
}

TEST_F(PilotCommand, AutopilotRefitsWhereItIsAsked) {
  const std::string nest = path("nest"), text = path("text.txt"), other = path("other.txt");
  {
    Rng rng(1);  // nothing like the first text
    std::ofstream file(other);
    for (int i = 0; i < 20000; ++i) file << static_cast<char>(33 + rng.below(90));
  }
  ASSERT_EQ(matryoshka({"fit", golden_model("llama.gguf"), "-o", nest, "--text", text, "--tokens",
                        "1024", "--window", "256", "--recent", "64", "--measure", text,
                        "--measure-windows", "1", "--measure-rungs", "6"})
                .exit_code,
            0);
  const auto fly = [&](const char* threads, const char* page) {
    const Outcome outcome = matryoshka({"autopilot",
                                        golden_model("llama.gguf"),
                                        "--nest",
                                        nest,
                                        "--stream",
                                        text,
                                        other,
                                        "--max-kl",
                                        "0.5",
                                        "-o",
                                        path(page),
                                        "--json",
                                        "--requests",
                                        "40",
                                        "--context",
                                        "160",
                                        "--shadow-share",
                                        "1",
                                        "--threads",
                                        threads,
                                        "--refit",
                                        "--refit-tokens",
                                        "1600",
                                        "--refit-requests",
                                        "5",
                                        "--refit-trial",
                                        "4"});
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    return *parse_json(outcome.out, "output");
  };
  Json refits = fly("2", "fly.html").at("refits");
  ASSERT_EQ(refits.size(), 1u) << refits;
  EXPECT_GE(refits[0].at("asked"), 40);
  EXPECT_EQ(refits[0].at("tokens"), 1600);
  EXPECT_EQ(refits[0].at("tried").get<int>(), refits[0].at("made").get<int>() + 5);
  EXPECT_EQ(refits[0].at("decided").get<int>(), refits[0].at("tried").get<int>() + 3);
  EXPECT_EQ(refits[0].at("kept"), refits[0].at("kl_after") < refits[0].at("kl_before"));
  Json report = read(path("fly.json"));
  fly("1", "again.html");
  Json again = read(path("again.json"));
  EXPECT_EQ(report.at("requests"), again.at("requests"));  // whoever was faster

  const Outcome alone =
      matryoshka({"autopilot", golden_model("llama.gguf"), "--nest", nest, "--stream", text, "-o",
                  path("fly.html"), "--refit-tokens", "100"});
  EXPECT_EQ(alone.exit_code, 2);
  EXPECT_THAT(alone.err, HasSubstr("--refit"));
}

TEST_F(PilotCommand, AChatIsHeldWithinATolerance) {
  const std::string nest = path("nest"), text = path("text.txt");
  const auto fit = [&](const std::vector<std::string>& more) {
    std::vector<std::string> arguments{"fit",      golden_model("llama.gguf"),
                                       "-o",       nest,
                                       "--tokens", "1024",
                                       "--window", "256",
                                       "--recent", "64"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return matryoshka(arguments).exit_code;
  };
  const auto chat = [&](const std::vector<std::string>& more) {
    std::string input;
    for (int i = 0; i < 9; ++i) input += "Once upon a time there was a number.\n";
    std::vector<std::string> arguments{"chat",
                                       golden_model("llama.gguf"),
                                       "--nest",
                                       nest,
                                       "-n",
                                       "8",
                                       "--temperature",
                                       "0",
                                       "--json",
                                       "--stop",
                                       ""};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return matryoshka(arguments, {.input = input});
  };
  ASSERT_EQ(fit({}), 0);
  EXPECT_THAT(chat({"--max-kl", "1", "--autopilot"}).err, HasSubstr("--measure"));
  ASSERT_EQ(fit({"--measure", text, "--measure-windows", "1", "--measure-rungs", "6"}), 0);
  EXPECT_EQ(chat({"--autopilot"}).exit_code, 2);
  EXPECT_EQ(chat({"--max-kl", "1", "--shadow-share", "1"}).exit_code, 2);
  EXPECT_EQ(chat({"--max-kl", "1", "--autopilot", "--shadow-share", "2"}).exit_code, 2);
  const Outcome outcome = chat({"--max-kl", "0.5", "--autopilot", "--shadow-share", "1"});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_EQ(count_lines(outcome.out), 9u);
  EXPECT_THAT(outcome.err, HasSubstr("autopilot: KL "));
  EXPECT_THAT(outcome.err, HasSubstr("from now on"));  // its text is unlike the one measured on
  EXPECT_THAT(outcome.err, HasSubstr("bits a value"));
}

}  // namespace
}  // namespace mkv
