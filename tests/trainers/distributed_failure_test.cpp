// What ends a group of processes: one message, no process that stays, and a run folder that resumes.
#include <gtest/gtest.h>

#include <csignal>
#include <cstdlib>
#include <thread>
#include <tuple>

#include "core/output_file.h"
#include "gemma4/model_folder.h"
#include "support/expect_error.h"
#include "trainers/distributed.h"
#include "trainers/group_run.h"
#include "trainers/run_folder.h"
#include "trainers/tiny_run.h"
#include "trainers/train_state.h"

namespace qat {
namespace {

namespace fs = std::filesystem;
using std::chrono::seconds;
using testing::expect_error;
using testing::GroupRun;
using testing::TinyRun;

int messages_in(const std::string& text) {
  int count = 0;
  for (size_t at = text.find("error: "); at != std::string::npos; at = text.find("error: ", at + 1)) ++count;
  return count;
}

// All processes have failed, one of them told why, and its text has these parts.
void expect_one_message(GroupRun& group, int size, std::initializer_list<const char*> parts) {
  const auto codes = group.wait(seconds(60));
  ASSERT_EQ(codes.size(), static_cast<size_t>(size));
  for (const int code : codes) EXPECT_TRUE(code == 1 || code == 2) << code;
  const std::string told = group.all_told();
  EXPECT_EQ(messages_in(told), 1) << told;
  for (const char* part : parts) EXPECT_NE(told.find(part), std::string::npos) << "no \"" << part << "\" in: " << told;
}

void train_and_expect(int size, const std::function<fs::path(int rank)>& config,
                      std::initializer_list<const char*> parts) {
  GroupRun group(size, [&](int rank) { return std::vector<std::string>{QAT_TRAIN_ONCE, config(rank).string()}; });
  expect_one_message(group, size, parts);
}

class KilledRankTest : public ::testing::TestWithParam<std::tuple<int, const char*>> {};

TEST_P(KilledRankTest, EndsTheOthersAndTheRunResumes) {
  const TinyRun run;
  const auto [killed, sharding] = GetParam();
  const int left = 1 - killed;
  const auto overrides = [sharding = sharding](const std::string& steps) {
    return std::vector<std::string>{"steps=" + steps, "checkpoint.every_steps=1", "eval.every_steps=0",
                                    "activation_checkpointing=layers", sharding};
  };
  const fs::path config = run.config_file("a", overrides("2000"));
  const fs::path out = run.folder("a");
  {
    GroupRun group(2, [&](int) { return std::vector<std::string>{QAT_TRAIN_ONCE, config.string()}; });
    while (!fs::exists(out / "step-2")) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    group.signal(killed, SIGKILL);
    const auto start = std::chrono::steady_clock::now();
    const auto codes = group.wait(seconds(60));
    EXPECT_LT(std::chrono::steady_clock::now() - start, seconds(30));
    ASSERT_EQ(codes.size(), 2u);
    EXPECT_EQ(codes[static_cast<size_t>(killed)], 128 + SIGKILL);
    EXPECT_EQ(codes[static_cast<size_t>(left)], 1);
    const std::string told = group.told(left);
    EXPECT_EQ(messages_in(told), 1) << told;
    EXPECT_NE(told.find("error: rank " + std::to_string(left) + ": "), std::string::npos) << told;
    EXPECT_NE(told.find("--resume"), std::string::npos) << told;
  }
  RunFolder(out).open();
  const TrainState state = load_state(out / "state.h5");
  EXPECT_GE(state.step, 2);
  EXPECT_NO_THROW(ModelFolder(out / "checkpoint"));
  const fs::path rest = run.config_file("a", overrides(std::to_string(state.step + 2)));
  GroupRun group(2, [&](int) { return std::vector<std::string>{QAT_TRAIN_ONCE, rest.string(), "--resume"}; });
  EXPECT_EQ(group.wait(), (std::vector<int>{0, 0})) << group.all_told();
  EXPECT_EQ(checkpoint_step(out / "checkpoint"), state.step + 2);
}

// Rank 0 serves the store here.
INSTANTIATE_TEST_SUITE_P(Both, KilledRankTest,
                         ::testing::Combine(::testing::Values(0, 1),
                                            ::testing::Values("sharding=none", "sharding=parameters")));

TEST(DistributedFailureTest, ANaNGradientNamesItsRankAndWeight) {
  for (const char* program : {QAT_EXCHANGE_ONCE, QAT_EXCHANGE_ONCE_COLLECTIVE}) {
    for (const char* name : {"fp32 nan", "bf16 owners nan", "bf16 two nan"}) {
      GroupRun group(3, [&](int) { return std::vector<std::string>{program, name}; });
      expect_one_message(group, 3, {"step 1: the gradient of weight 4 that rank 1 computed is not finite"});
    }
  }
}

TEST(DistributedFailureTest, AnErrorOfOneRankEndsAll) {
  const TinyRun run;
  write_file(run.folder("bad.jsonl"), "{\"text\": \"fine\"}\n{\"text\": 3}\n");
  const auto config = [&](int rank) {
    return rank == 0 ? run.config_file("a") : run.config_file("a", {"data.train=" + run.folder("bad.jsonl").string()});
  };
  // Written once each, before any process reads them.
  const std::vector<fs::path> files{run.folder("first.json"), run.folder("second.json")};
  for (int rank = 0; rank < 2; ++rank) fs::rename(config(rank), files[static_cast<size_t>(rank)]);
  train_and_expect(2, [&](int rank) { return files[static_cast<size_t>(rank)]; }, {"rank 1: ", "bad.jsonl:2"});
  EXPECT_FALSE(fs::exists(run.folder("a")));
}

TEST(DistributedFailureTest, AnotherConfigurationIsNamed) {
  const TinyRun run;
  const std::vector<fs::path> files{run.folder("first.json"), run.folder("second.json")};
  fs::rename(run.config_file("a"), files[0]);
  fs::rename(run.config_file("a", {"optimizer.learning_rate=0.5"}), files[1]);
  train_and_expect(2, [&](int rank) { return files[static_cast<size_t>(rank)]; },
                   {"rank 1: ", "not that of rank 0", "optimizer.learning_rate: 0.001 before, 0.5 now"});
  EXPECT_FALSE(fs::exists(run.folder("a")));
}

TEST(DistributedFailureTest, AGroupThatDoesNotFitIsRefused) {
  const TinyRun run;
  const fs::path config = run.config_file("a");
  train_and_expect(3, [&](int) { return config; }, {"gradient_accumulation", "2 forward passes", "3 processes"});
  write_file(run.folder("one.jsonl"), "{\"text\": \"a single row\"}\n");
  const fs::path small = run.config_file("a", {"data.train=" + run.folder("one.jsonl").string()});
  train_and_expect(2, [&](int) { return small; }, {"fill 1 rows", "fewer than the 2 that 2 processes take"});
  EXPECT_FALSE(fs::exists(run.folder("a")));
}

class Environment {
 public:
  Environment(const char* rank, const char* size, int port) {
    ::setenv("RANK", rank, 1);
    ::setenv("WORLD_SIZE", size, 1);
    ::setenv("MASTER_ADDR", "127.0.0.1", 1);
    ::setenv("MASTER_PORT", std::to_string(port).c_str(), 1);
  }
  ~Environment() {
    for (const char* name : {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}) ::unsetenv(name);
  }
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;
};

TEST(DistributedFailureTest, AStoreThatCannotBeReachedIsNamed) {
  const int port = testing::free_port();
  const Environment second("1", "2", port);
  expect_error([] { ProcessGroup::from_environment(seconds(2)); },
               {"rank 1", "127.0.0.1:" + std::to_string(port), "within 2 s", "MASTER_ADDR", "firewall"});
}

TEST(DistributedFailureTest, ProcessesThatDoNotComeAreNamed) {
  const Environment first("0", "3", testing::free_port());
  expect_error([] { ProcessGroup::from_environment(seconds(2)); },
               {"waited 2 s", "3 processes", "did not come: rank 1, 2", "WORLD_SIZE"});
}

TEST(DistributedFailureTest, AnEnvironmentThatMakesNoSenseIsRefused) {
  {
    const Environment outside("2", "2", 29500);
    expect_error([] { ProcessGroup::from_environment(); }, {"RANK", "\"2\"", "from 0 to 1"});
  }
  const Environment nonsense("0", "two", 29500);
  expect_error([] { ProcessGroup::from_environment(); }, {"WORLD_SIZE", "\"two\""});
}

TEST(DistributedFailureTest, WithoutAnEnvironmentThereIsOneProcess) {
  ProcessGroup alone = ProcessGroup::from_environment();
  EXPECT_EQ(alone.size(), 1);
  EXPECT_TRUE(alone.is_first());
  EXPECT_EQ(alone.sum({1.5, 2}), (std::vector<double>{1.5, 2}));
  EXPECT_EQ(alone.from_first("text"), "text");
  EXPECT_THROW(alone.run([]() -> int { throw Error("left to the caller"); }), Error);
}

}  // namespace
}  // namespace qat
