// What stops a run, and what it leaves behind.
#include <ATen/TensorOperators.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <fstream>
#include <limits>

#include "core/error.h"
#include "core/folder_lock.h"
#include "core/mapped_file.h"
#include "core/output_file.h"
#include "support/expect_error.h"
#include "trainers/base_model.h"
#include "trainers/run_folder.h"
#include "trainers/tiny_run.h"
#include "trainers/trainer.h"

namespace qat {
namespace {

namespace fs = std::filesystem;
using testing::bytes_of;
using testing::expect_error;
using testing::TinyRun;
using testing::train;

TEST(RunFailureTest, ASecondRunIntoAFolderNamesResume) {
  const TinyRun run;
  ASSERT_EQ(train(run.config("a", {"steps=2"})), 0);
  const std::string before = bytes_of(run.folder("a") / "metrics.jsonl");
  expect_error([&] { train(run.config("a", {"steps=2"})); }, {"a run is already here", "--resume"});
  EXPECT_EQ(bytes_of(run.folder("a") / "metrics.jsonl"), before);
}

TEST(RunFailureTest, ResumeWithOtherSettingsListsThem) {
  const TinyRun run;
  ASSERT_EQ(train(run.config("a", {"steps=2"})), 0);
  expect_error(
      [&] {
        train(run.config("a", {"steps=4", "seed=9", "plan=bf16", "kv_cache=plan"}), true);
      },
      {"seed: 5 before, 9 now", "plan: \"q4_0\" before, \"bf16\" now", "kv_cache: "});
  expect_error(
      [&] {
        train(run.config("a", {"steps=1", "optimizer.warmup_steps=1"}), true);
      },
      {"optimizer.warmup_steps"});
}

TEST(RunFailureTest, ADamagedStateIsNamed) {
  const TinyRun run;
  ASSERT_EQ(train(run.config("a", {"steps=2"})), 0);
  const fs::path state = run.folder("a") / "state.h5";
  const std::string whole = bytes_of(state);
  std::ofstream(state, std::ios::binary) << whole.substr(0, whole.size() / 2);
  expect_error([&] { train(run.config("a", {"steps=4"}), true); }, {"state.h5", "damaged"});
  std::string flipped = whole;
  // Every fifth of a kilobyte: some of it hits a checksummed array, whatever the layout.
  for (size_t i = flipped.size() / 2; i < flipped.size(); i += 200) flipped[i] = static_cast<char>(flipped[i] ^ 0x40);
  std::ofstream(state, std::ios::binary) << flipped;
  expect_error([&] { train(run.config("a", {"steps=4"}), true); }, {"state.h5"});
}

TEST(RunFailureTest, BadInputCreatesNoRunFolder) {
  const TinyRun run;
  write_file(run.folder("bad.jsonl"), "{\"text\": \"fine\"}\n{\"text\": 3}\n");
  expect_error([&] { train(run.config("a", {"data.train=" + run.folder("bad.jsonl").string()})); }, {"bad.jsonl"});
  write_file(run.folder("empty.jsonl"), "");
  expect_error([&] { train(run.config("a", {"data.train=" + run.folder("empty.jsonl").string()})); }, {"empty.jsonl"});
  expect_error([&] { train(run.config("a", {"sequence_length=1000"})); }, {"sequence_length", "512 positions"});
  EXPECT_FALSE(fs::exists(run.folder("a")));
}

TEST(RunFailureTest, ARunThatIsGoingOnIsNotResumedASecondTime) {
  const TinyRun run;
  ASSERT_EQ(train(run.config("a", {"steps=2"})), 0);
  const FolderLock going_on(run.folder("a"));
  expect_error([&] { train(run.config("a", {"steps=2"}), true); }, {run.folder("a").string(), "another process"});
}

TEST(RunFailureTest, APlaceThatCannotBeWrittenIsNamed) {
  const TinyRun run;
  write_file(run.folder("file"), "no folder");
  expect_error([&] { train(run.config("file/run")); }, {"file/run", "cannot be created"});
}

// A limit on the size of files stands for a full disk.
TEST(RunFailureTest, AFullDiskKeepsTheLastCheckpointAndResumes) {
  const TinyRun run;
  const std::vector<std::string> half{"steps=3", "optimizer.final_ratio=1"};
  const std::vector<std::string> whole{"steps=6", "optimizer.final_ratio=1"};
  ASSERT_EQ(train(run.config("a", half)), 0);
  const fs::path out = run.folder("a");
  const std::string state = bytes_of(out / "state.h5");
  const std::string checkpoint = bytes_of(out / "checkpoint" / "model.safetensors");
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  rlimit small = before;
  small.rlim_cur = 1 << 16;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  expect_error([&] { train(run.config("a", whole), true); }, {out.string(), "cannot be written"});
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_TRUE(bytes_of(out / "state.h5") == state);
  EXPECT_TRUE(bytes_of(out / "checkpoint" / "model.safetensors") == checkpoint);
  ASSERT_EQ(train(run.config("a", whole), true), 0);
  EXPECT_EQ(checkpoint_step(out / "checkpoint"), 6);
}

// Parts of a run put together by hand.
struct Parts {
  explicit Parts(const TrainConfig& run_config)
      : config(run_config), base(config), data(config, base.config()), model(base.config(), at::kFloat) {
    base.fill(model, 1);
    trained = select_trained_weights(model, frozen_weights(config, base));
  }
  TrainConfig config;
  BaseModel base;
  TrainingData data;
  Gemma4Model model;
  std::vector<TrainedWeight> trained;
  LoraAdapters lora;
  ProcessGroup alone;
};

class FixedLoss final : public Objective {
 public:
  explicit FixedLoss(float factor) : factor_(factor) {}
  at::Tensor loss_sum(const Gemma4Model&, const at::Tensor& hidden, const TrainingBatch&) const override {
    return (hidden * factor_).sum();
  }

 private:
  float factor_;
};

TEST(RunFailureTest, ANonFiniteLossOrGradientStopsBeforeTheUpdate) {
  const TinyRun run;
  Parts parts(run.config("a"));
  AdamW optimizer(parts.trained, parts.config.optimizer);
  FakeQuantSet none;
  std::vector<at::Tensor> before;
  for (const at::Tensor& master : optimizer.state().masters) before.push_back(master.clone());
  const FixedLoss infinite(std::numeric_limits<float>::infinity());
  Trainer diverged(parts.config, parts.model, none, infinite, parts.data, optimizer, parts.lora, parts.alone);
  expect_error([&] { diverged.step(); }, {"step 1: the loss is not finite", "nothing of this step was saved"});
  // A sum of huge values whose loss is finite but whose gradient's square is not.
  const FixedLoss steep(1e30F);
  Trainer exploding(parts.config, parts.model, none, steep, parts.data, optimizer, parts.lora, parts.alone);
  expect_error([&] { exploding.step(); }, {"step 1: the gradient norm is not finite"});
  EXPECT_EQ(optimizer.steps_done(), 0);
  for (size_t i = 0; i < before.size(); ++i) EXPECT_TRUE(before[i].equal(optimizer.state().masters[i]));
}

TEST(RunFailureTest, AQuantizerThatNeverFiredFailsTheRun) {
  const TinyRun run;
  Parts parts(run.config("a"));
  AdamW optimizer(parts.trained, parts.config.optimizer);
  // Attached to another model than the one that is trained.
  Gemma4Model other(parts.base.config(), at::kFloat);
  FakeQuantSet elsewhere = parts.base.attach_fake_quant(other);
  const auto objective = make_objective(parts.config, parts.base.config(), parts.data);
  Trainer trainer(parts.config, parts.model, elsewhere, *objective, parts.data, optimizer, parts.lora, parts.alone);
  expect_error([&] { trainer.step(); }, {"layers.0.self_attn.q_proj.weight", "embed_tokens.weight"});
}

}  // namespace
}  // namespace qat
