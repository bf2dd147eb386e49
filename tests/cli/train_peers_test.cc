// One training run on several processes of this machine.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <future>

#include "cli/training_run.h"
#include "store/json.h"

namespace mkv {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// Nothing listens on it now.
std::string free_port() {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  EXPECT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), size), 0);
  EXPECT_EQ(getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size), 0);
  close(fd);
  return std::to_string(ntohs(address.sin_port));
}

class TrainingPeers : public TrainingRun {
 protected:
  void SetUp() override {
    const Outcome asked = matryoshka({"train", "model", "--nest", "nest", "-o", "trained",
                                      "--world-size", "2", "--master-address", "127.0.0.1"});
    if (asked.err.find("without the training module") != std::string::npos) {
      GTEST_SKIP() << "built without the training module";
    }
    ASSERT_NO_FATAL_FAILURE(fit_and_write_text());
    port_ = free_port();
    const Outcome alone = ranked("probe", 0, 2, {"--peer-timeout", "0.01"});
    if (alone.err.find("without c10d's Gloo") != std::string::npos) {
      GTEST_SKIP() << "built without c10d's Gloo";
    }
  }

  // Four windows a step, and sums in the same precision whoever makes them.
  Outcome alone(const std::string& name, std::vector<std::string> more = {},
                const Launch& launch = {}) const {
    more.insert(more.end(), {"--windows-per-step", "4", "--threads", "1", "--precision", "f32"});
    return train(name, more, launch);
  }
  Outcome ranked(const std::string& name, int rank, int world, std::vector<std::string> more,
                 const Launch& launch = {}) {
    more.insert(more.end(), {"--master-address", "127.0.0.1", "--master-port", port_, "--rank",
                             std::to_string(rank), "--world-size", std::to_string(world)});
    return alone(name, std::move(more), launch);
  }
  // Both outcomes of a run on two processes, by rank.
  std::vector<Outcome> pair(const std::string& name, const Launch& second = {}) {
    port_ = free_port();
    auto other = std::async(std::launch::async, [&] { return ranked(name, 1, 2, {}, second); });
    const Outcome first = ranked(name, 0, 2, {});
    return {first, other.get()};
  }
  void expect_same_losses(const std::string& name, const std::string& expected) const {
    const std::vector<Json> a = log_lines(name), b = log_lines(expected);
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) {
      const char* key = b[i].contains("kl") ? "kl" : "held_out_kl";
      const auto found = a[i].at(key).get<std::vector<double>>();
      const auto there = b[i].at(key).get<std::vector<double>>();
      ASSERT_EQ(found.size(), there.size());
      for (size_t w = 0; w < found.size(); ++w) {
        EXPECT_NEAR(found[w], there[w], 1e-4 * there[w]) << "line " << i << ", " << key << " " << w;
      }
    }
  }

  std::string port_;
};

TEST_F(TrainingPeers, TwoProcessesHaveTheLossesOfOne) {
  const Outcome one = alone("one");
  ASSERT_EQ(one.exit_code, 0) << one.err;
  const std::vector<Outcome> two = pair("two");
  ASSERT_EQ(two[0].exit_code, 0) << two[0].err;
  ASSERT_EQ(two[1].exit_code, 0) << two[1].err;
  EXPECT_TRUE(two[1].out.empty()) << two[1].out;
  ASSERT_GT(log_lines("one").size(), 12u);
  expect_same_losses("two", "one");
  EXPECT_TRUE(std::filesystem::exists(file("two") + "/matryoshka_kv.safetensors"));
}

TEST_F(TrainingPeers, AfterOneIsKilledTheOtherLeavesACheckpointToGoOnFrom) {
  const Outcome one = alone("one");
  ASSERT_EQ(one.exit_code, 0) << one.err;
  Launch killed;
  killed.kill_when = [&] { return log_lines("two").size() >= 4; };
  const std::vector<Outcome> two = pair("two", killed);
  EXPECT_EQ(two[1].exit_code, -1);
  ASSERT_EQ(two[0].exit_code, 1) << two[0].err;
  EXPECT_THAT(two[0].err, AllOf(HasSubstr("rank 0 of 2: a peer is lost"), HasSubstr("two.state")));
  EXPECT_FALSE(std::filesystem::exists(file("two")));
  const size_t before = log_lines("two").size();
  ASSERT_LT(before, log_lines("one").size());
  // Whoever is left may go on alone.
  const Outcome rest = alone("two");
  ASSERT_EQ(rest.exit_code, 0) << rest.err;
  expect_same_losses("two", "one");
}

TEST_F(TrainingPeers, TheyGoOnTogetherFromTheCheckpointOfRankZero) {
  const Outcome one = alone("one");
  ASSERT_EQ(one.exit_code, 0) << one.err;
  ASSERT_EQ(alone("two", {"--stop-after", "0.000001"}).exit_code, 0);
  ASSERT_LT(log_lines("two").size(), 4u);
  std::filesystem::remove_all(file("two"));
  for (const Outcome& each : pair("two")) ASSERT_EQ(each.exit_code, 0) << each.err;
  expect_same_losses("two", "one");
}

TEST_F(TrainingPeers, AnotherRunThanRankZerosIsAnError) {
  auto other = std::async(std::launch::async, [&] {
    return ranked("two", 1, 2, {"--learning-rate", "0.5"});
  });
  const Outcome first = ranked("two", 0, 2, {});
  const Outcome second = other.get();
  EXPECT_EQ(second.exit_code, 2);
  EXPECT_THAT(second.err, HasSubstr("learning_rate is \"0.002\" there, \"0.5\" here"));
  EXPECT_EQ(first.exit_code, 2);
  EXPECT_THAT(first.err, HasSubstr("rank 0 of 2: 1 of the others have another run"));
}

TEST_F(TrainingPeers, WhoNeverComesIsAnErrorAfterAWhile) {
  const auto start = std::chrono::steady_clock::now();
  const Outcome alone = ranked("two", 0, 2, {"--peer-timeout", "1"});
  EXPECT_EQ(alone.exit_code, 1);
  EXPECT_THAT(alone.err, HasSubstr("rank 0 of 2 by way of 127.0.0.1:" + port_));
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(60));
  EXPECT_EQ(ranked("two", 2, 2, {}).exit_code, 2);
  EXPECT_THAT(ranked("two", 0, 5, {}).err, HasSubstr("4 windows a step for 5 processes"));
}

TEST_F(TrainingPeers, TwoProcessesFineTuneAsOneAndTheModelRuns) {
  std::ofstream examples(file("sft.jsonl"));
  for (int i = 0; i < 80; ++i) {
    examples << R"({"context": "Question: which number is )" << i
             << R"(?\nAnswer:", "choices": [" none", " the number"], "label": 1})"
             << "\n";
  }
  examples.close();
  const auto tune = [&](const std::string& name, std::vector<std::string> more) {
    std::vector<std::string> arguments{"train",
                                       model_,
                                       "--sft",
                                       file("sft.jsonl"),
                                       "--nest",
                                       file("nest"),
                                       "-o",
                                       file(name + "-nest"),
                                       "--merged",
                                       file(name + ".gguf"),
                                       "--lora-steps",
                                       "6",
                                       "--joint-steps",
                                       "4",
                                       "--budgets",
                                       "75%,50%",
                                       "--log",
                                       file(name + ".jsonl"),
                                       "--examples-per-step",
                                       "4",
                                       "--held-out-examples",
                                       "8",
                                       "--steps-per-measurement",
                                       "2",
                                       "--lora-rate",
                                       "0.01",
                                       "--precision",
                                       "f32"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return matryoshka(arguments);
  };
  const Outcome one = tune("one", {});
  ASSERT_EQ(one.exit_code, 0) << one.err;
  port_ = free_port();
  const auto rank = [&](const std::string& own) {
    return tune("two", {"--master-address", "127.0.0.1", "--master-port", port_, "--rank", own,
                        "--world-size", "2"});
  };
  auto other = std::async(std::launch::async, [&] { return rank("1"); });
  const Outcome first = rank("0"), second = other.get();
  ASSERT_EQ(first.exit_code, 0) << first.err;
  ASSERT_EQ(second.exit_code, 0) << second.err;
  const std::vector<Json> a = log_lines("one"), b = log_lines("two");
  ASSERT_EQ(a.size(), b.size());
  ASSERT_EQ(a.size(), 10u + 4u + 3u);
  for (size_t i = 0; i < a.size(); ++i) {
    const char* key = a[i].contains("rate") ? "cross_entropy" : "held_out_cross_entropy";
    const auto x = a[i].at(key).get<std::vector<double>>();
    const auto y = b[i].at(key).get<std::vector<double>>();
    ASSERT_EQ(x.size(), y.size());
    for (size_t k = 0; k < x.size(); ++k) EXPECT_NEAR(x[k], y[k], 2e-3 * x[k]) << i << " " << k;
  }
  std::vector<double> exact;  // held-out answers, by measurement of the LoRA stage
  for (const Json& line : b) {
    if (line.contains("rate") || line.at("stage") != 1) continue;
    exact.push_back(line.at("held_out_cross_entropy")[0].get<double>());
  }
  ASSERT_EQ(exact.size(), 4u);
  EXPECT_LT(exact.back(), 0.9 * exact.front());
  // The nest goes with the merged model, and with no other.
  const auto evaluate = [&](const std::string& model) {
    return matryoshka({"eval", "tasks", model, "--nest", file("two-nest"), "--budgets", "exact,50%",
                       "--tasks", file("sft.jsonl"), "--limit", "20", "--json"});
  };
  const Json found = json_of(evaluate(file("two.gguf")));
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[1].at("tasks")[0].at("examples"), 20);
  EXPECT_EQ(evaluate(model_).exit_code, 1);
}

}  // namespace
}  // namespace mkv
