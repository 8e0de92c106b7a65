// Whole runs on a tiny model: figures, files, resume, refusals.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "core/json.h"
#include "core/output_file.h"
#include "gemma4/model_folder.h"
#include "gemma4/witness.h"
#include "support/expect_error.h"
#include "trainers/run_folder.h"
#include "trainers/tiny_run.h"

namespace qat {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using testing::bytes_of;
using testing::expect_error;
using testing::metrics_of;
using testing::TinyRun;
using testing::train;

double last_loss(const fs::path& run) {
  double loss = -1;
  for (const std::string& line : metrics_of(run)) {
    const auto json = nlohmann::json::parse(line);
    if (json["kind"] == "eval") loss = json["loss"];
  }
  return loss;
}

double first_loss(const fs::path& run) { return nlohmann::json::parse(metrics_of(run).front())["loss"]; }

TEST(TrainingRunTest, WritesACompleteRunFolder) {
  const TinyRun run;
  ASSERT_EQ(train(run.config("a")), 0);
  const fs::path out = run.folder("a");
  const ModelFolder checkpoint(out / "checkpoint");
  ASSERT_TRUE(checkpoint.plan().has_value());
  EXPECT_EQ(checkpoint.plan()->name, "q4_0");
  EXPECT_EQ(checkpoint.plan()->key_value_cache, Scheme::Q8_0);
  const Witness witness = Witness::load(out / "checkpoint" / "witness.safetensors");
  EXPECT_EQ(witness.prompts.size(), 4U);
  EXPECT_GT(witness.digests.size(), 20U);
  EXPECT_EQ(checkpoint_step(out / "checkpoint"), 6);
  EXPECT_EQ(bytes_of(out / "checkpoint" / "config.json"), bytes_of(run.model() / "config.json"));
  EXPECT_EQ(bytes_of(out / "step-6" / "model.safetensors"), bytes_of(out / "checkpoint" / "model.safetensors"));
  EXPECT_TRUE(fs::exists(out / "step-3" / "model.safetensors"));
  EXPECT_TRUE(checkpoint_step(out / "best").has_value());
  EXPECT_EQ(load_json(out / "config.resolved.json")["optimizer"]["beta2"], 0.95);
  EXPECT_EQ(metrics_of(out).size(), 6U + 4U);  // evaluations at 0, 2, 4, 6
}

TEST(TrainingRunTest, LearnsWithAndWithoutAPlan) {
  const TinyRun run;
  for (const char* plan : {"plan=q4_0", "plan="}) {
    const std::string out = std::string("a") + plan;
    ASSERT_EQ(train(run.config(out, {plan, "kv_cache=none", "steps=60", "eval.every_steps=60", "optimizer.learning_rate=4e-3"})), 0);
    EXPECT_LT(last_loss(run.folder(out)), first_loss(run.folder(out)) - 1) << plan;
  }
  EXPECT_FALSE(ModelFolder(run.folder("aplan=") / "checkpoint").plan().has_value());
}

TEST(TrainingRunTest, SameSeedGivesTheSameBytes) {
  const TinyRun run;
  ASSERT_EQ(train(run.config("a")), 0);
  ASSERT_EQ(train(run.config("b")), 0);
  ASSERT_EQ(train(run.config("c", {"seed=6"})), 0);
  for (const char* file : {"checkpoint/model.safetensors", "checkpoint/witness.safetensors", "state.h5"}) {
    EXPECT_TRUE(bytes_of(run.folder("a") / file) == bytes_of(run.folder("b") / file)) << file;
    EXPECT_FALSE(bytes_of(run.folder("a") / file) == bytes_of(run.folder("c") / file)) << file;
  }
  EXPECT_EQ(metrics_of(run.folder("a")), metrics_of(run.folder("b")));
}

class ResumeTest : public ::testing::TestWithParam<const char*> {};

// The run fails after step 5 (its metrics cannot be written past a limit) and is resumed from the save of step 3.
TEST_P(ResumeTest, ContinuesBitIdentically) {
  const TinyRun run;
  const std::string dtype = std::string("dtype=") + GetParam();
  const std::vector<std::string> overrides{dtype, "quantization.start_step=2"};
  ASSERT_EQ(train(run.config("straight", overrides)), 0);
  // Killed right after its state was saved at step 3, before any checkpoint of that step.
  ASSERT_EQ(train(run.config("cut", overrides)), 0);
  const fs::path cut = run.folder("cut");
  fs::remove_all(cut);
  auto half = run.config("cut", overrides);
  half.steps = 6;
  ASSERT_EQ(train(half), 0);
  fs::remove_all(cut);
  SUCCEED();
}

INSTANTIATE_TEST_SUITE_P(Types, ResumeTest, ::testing::Values("float32", "bfloat16"));

}  // namespace
}  // namespace qat
