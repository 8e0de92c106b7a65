// Runs in processes of their own that are stopped from outside: SIGKILL at random moments, and Ctrl-C.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "core/random.h"
#include "gemma4/model_folder.h"
#include "trainers/run_folder.h"
#include "trainers/tiny_run.h"
#include "trainers/train_state.h"

namespace qat {
namespace {

namespace fs = std::filesystem;
using testing::bytes_of;
using testing::metrics_of;
using testing::TinyRun;

pid_t start(const fs::path& config, bool resume) {
  std::vector<std::string> words{QAT_TRAIN_ONCE, config.string()};
  if (resume) words.emplace_back("--resume");
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  const pid_t process = ::fork();
  if (process == 0) {
    const int nowhere = ::open("/dev/null", O_WRONLY);
    ::dup2(nowhere, STDOUT_FILENO);
    ::dup2(nowhere, STDERR_FILENO);
    ::execv(QAT_TRAIN_ONCE, arguments.data());
    ::_exit(127);
  }
  return process;
}

int wait_for(pid_t process) {
  int status = 0;
  ::waitpid(process, &status, 0);
  return status;
}

void wait_until_it_trains(const TinyRun& run, const char* out, pid_t process) {
  for (int i = 0; i < 12000 && !fs::exists(run.folder(out) / "metrics.jsonl"); ++i) {
    if (::kill(process, 0) != 0) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
}

const std::vector<std::string> kLong{"steps=60", "checkpoint.every_steps=1", "eval.every_steps=1"};

void expect_equal_runs(const TinyRun& run, const char* straight, const char* stopped) {
  for (const char* file : {"checkpoint/model.safetensors", "checkpoint/witness.safetensors", "best/model.safetensors",
                           "step-60/model.safetensors", "step-59/model.safetensors", "state.h5"}) {
    EXPECT_TRUE(bytes_of(run.folder(straight) / file) == bytes_of(run.folder(stopped) / file)) << file;
  }
  EXPECT_EQ(metrics_of(run.folder(straight)), metrics_of(run.folder(stopped)));
}

// Kills a run again and again, and expects the bytes of one that was left alone.
void kill_and_resume(const TinyRun& run, const std::vector<std::string>& overrides) {
  const uint64_t seed = 77;
  SCOPED_TRACE(seed);
  SplitMix64 random(seed);
  ASSERT_EQ(WEXITSTATUS(wait_for(start(run.config_file("straight", overrides), false))), 0);
  const fs::path config = run.config_file("killed", overrides);
  int kills = 0;
  bool resume = false;
  for (int attempt = 0; attempt < 5; ++attempt) {
    const pid_t process = start(config, resume);
    wait_until_it_trains(run, "killed", process);
    std::this_thread::sleep_for(std::chrono::milliseconds(200 + random.below(600)));
    ::kill(process, SIGKILL);
    if (WIFSIGNALED(wait_for(process))) ++kills;
    resume = true;
    // Whatever was cut off: a state that loads, and a checkpoint that is complete.
    const fs::path out = run.folder("killed");
    RunFolder(out).open();
    if (!fs::exists(out / "state.h5")) continue;
    const TrainState state = load_state(out / "state.h5");
    if (state.step > 1) {
      const auto step = checkpoint_step(ModelFolder(out / "checkpoint").path());
      EXPECT_TRUE(step == state.step || step == state.step - 1);
    }
  }
  EXPECT_GE(kills, 1);
  ASSERT_EQ(WEXITSTATUS(wait_for(start(config, true))), 0);
  expect_equal_runs(run, "straight", "killed");
}

TEST(KillTest, AKilledRunResumesToTheSameBytes) { kill_and_resume(TinyRun(), kLong); }

TEST(KillTest, AKilledLoraRunResumesToTheSameBytes) {
  const TinyRun run;
  const fs::path base = run.config_file("base", {"plan=", "kv_cache=none", "steps=2"});
  ASSERT_EQ(WEXITSTATUS(wait_for(start(base, false))), 0);
  auto overrides = kLong;
  overrides.insert(overrides.end(), {"model=" + (run.folder("base") / "checkpoint").string(), "initialize=pretrained",
                                     "lora.rank=4", "lora.dropout=0.25", "optimizer.learning_rate=1e-2"});
  kill_and_resume(run, overrides);
  for (const char* file : {"adapter/adapter_config.json", "adapter/adapter_model.safetensors"}) {
    EXPECT_TRUE(bytes_of(run.folder("straight") / file) == bytes_of(run.folder("killed") / file)) << file;
  }
}

TEST(KillTest, CtrlCFinishesTheStepAndSaves) {
  const TinyRun run;
  auto overrides = kLong;
  overrides[1] = "checkpoint.every_steps=59";
  ASSERT_EQ(WEXITSTATUS(wait_for(start(run.config_file("straight", overrides), false))), 0);
  const fs::path config = run.config_file("stopped", overrides);
  const pid_t process = start(config, false);
  wait_until_it_trains(run, "stopped", process);
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  ::kill(process, SIGINT);
  const int status = wait_for(process);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 130);
  const TrainState state = load_state(run.folder("stopped") / "state.h5");
  EXPECT_LT(state.step, 60);
  EXPECT_EQ(checkpoint_step(run.folder("stopped") / "checkpoint"), state.step);
  ASSERT_EQ(WEXITSTATUS(wait_for(start(config, true))), 0);
  expect_equal_runs(run, "straight", "stopped");
}

}  // namespace
}  // namespace qat
