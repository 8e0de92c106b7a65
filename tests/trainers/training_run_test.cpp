// Whole runs on a tiny model: figures, files, resume, refusals.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <tuple>

#include "core/error.h"
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
using testing::bytes_of;
using testing::expect_error;
using ::testing::HasSubstr;
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
  EXPECT_EQ(metrics_of(out).size(), 6U + 2 * 4U);  // evaluations at 0, 2, 4, 6, with what quantization costs
}

TEST(TrainingRunTest, LearnsWithAndWithoutAPlan) {
  const TinyRun run;
  for (const char* plan : {"plan=q4_0", "plan="}) {
    const std::string out = std::string("a") + plan;
    ASSERT_EQ(train(run.config(
                  out, {plan, "kv_cache=none", "steps=60", "eval.every_steps=60", "optimizer.learning_rate=4e-3"})),
              0);
    EXPECT_LT(last_loss(run.folder(out)), first_loss(run.folder(out)) - 1) << plan;
  }
  EXPECT_FALSE(ModelFolder(run.folder("aplan=") / "checkpoint").plan().has_value());
}

TEST(TrainingRunTest, SameSeedGivesTheSameBytes) {
  const TinyRun run;
  ASSERT_EQ(train(run.config("a", {"threads=2", "steps=4"})), 0);
  ASSERT_EQ(train(run.config("b", {"threads=2", "steps=4"})), 0);
  ASSERT_EQ(train(run.config("c", {"threads=2", "steps=4", "seed=6"})), 0);
  for (const char* file : {"checkpoint/model.safetensors", "checkpoint/witness.safetensors", "state.h5"}) {
    EXPECT_TRUE(bytes_of(run.folder("a") / file) == bytes_of(run.folder("b") / file)) << file;
    EXPECT_FALSE(bytes_of(run.folder("a") / file) == bytes_of(run.folder("c") / file)) << file;
  }
  EXPECT_EQ(metrics_of(run.folder("a")), metrics_of(run.folder("b")));
}

class ResumeTest : public ::testing::TestWithParam<const char*> {};

// With final_ratio 1 the rate of a step does not depend on the number of steps, so a run of 3 is the first half of one
// of 6.
TEST_P(ResumeTest, SixStepsEqualThreeAndThree) {
  const TinyRun run;
  std::vector<std::string> overrides{std::string("dtype=") + GetParam(), "optimizer.final_ratio=1",
                                     "eval.every_steps=3", "quantization.start_step=2"};
  ASSERT_EQ(train(run.config("straight", overrides)), 0);
  overrides.emplace_back("steps=3");
  ASSERT_EQ(train(run.config("halves", overrides)), 0);
  EXPECT_EQ(checkpoint_step(run.folder("halves") / "checkpoint"), 3);
  // What a kill leaves behind: a later line of metrics, a half-written file and a half-written folder.
  std::ofstream(run.folder("halves") / "metrics.jsonl", std::ios::app) << "{\"kind\":\"step\",\"step\":4,\"lo";
  write_file(run.folder("halves") / "state.h5.partial-1", "half");
  fs::create_directories(run.folder("halves") / "checkpoint.partial");
  overrides.back() = "steps=6";
  ASSERT_EQ(train(run.config("halves", overrides), true), 0);
  for (const char* file : {"checkpoint/model.safetensors", "checkpoint/witness.safetensors", "best/model.safetensors",
                           "step-3/model.safetensors"}) {
    EXPECT_TRUE(bytes_of(run.folder("straight") / file) == bytes_of(run.folder("halves") / file)) << file;
  }
  EXPECT_TRUE(bytes_of(run.folder("straight") / "state.h5") == bytes_of(run.folder("halves") / "state.h5"));
  EXPECT_EQ(metrics_of(run.folder("straight")), metrics_of(run.folder("halves")));
  EXPECT_FALSE(fs::exists(run.folder("halves") / "state.h5.partial-1"));
  EXPECT_FALSE(fs::exists(run.folder("halves") / "checkpoint.partial"));
}

INSTANTIATE_TEST_SUITE_P(Types, ResumeTest, ::testing::Values("float32", "bfloat16"));

// The state of every kind of optimizer is complete; learned scales included.
TEST(TrainingRunTest, EveryOptimizerResumesBitIdentically) {
  const TinyRun run;
  for (const auto& [kind, masters, dtype] : {std::tuple("adamw8bit", "float32", "float32"),
                                             std::tuple("adamw8bit", "bfloat16", "bfloat16"),
                                             std::tuple("adafactor", "float32", "bfloat16"),
                                             std::tuple("adafactor", "bfloat16", "float32"),
                                             std::tuple("adamw", "bfloat16", "bfloat16")}) {
    const std::string name = join(kind, masters);
    SCOPED_TRACE(name);
    std::vector<std::string> overrides{join("optimizer.kind=", kind), join("optimizer.masters=", masters),
                                       join("dtype=", dtype), "plan=mobile-w4", "kv_cache=plan",
                                       "optimizer.final_ratio=1", "eval.every_steps=3", "steps=6"};
    ASSERT_EQ(train(run.config(name, overrides)), 0);
    overrides.back() = "steps=3";
    ASSERT_EQ(train(run.config(name + "halves", overrides)), 0);
    overrides.back() = "steps=6";
    ASSERT_EQ(train(run.config(name + "halves", overrides), true), 0);
    for (const char* file : {"checkpoint/model.safetensors", "checkpoint/scales.safetensors", "state.h5"}) {
      EXPECT_TRUE(bytes_of(run.folder(name) / file) == bytes_of(run.folder(name + "halves") / file)) << file;
    }
    EXPECT_EQ(metrics_of(run.folder(name)), metrics_of(run.folder(name + "halves")));
    EXPECT_LT(last_loss(run.folder(name)), first_loss(run.folder(name)));
    overrides[0] = std::string(kind) == "adamw" ? "optimizer.kind=adafactor" : "optimizer.kind=adamw";
    expect_error([&] { train(run.config(name, overrides), true); }, {join("optimizer.kind: \"", kind, "\" before")});
  }
}

TEST(TrainingRunTest, AStateWithoutItsCheckpointIsFinishedOnResume) {
  const TinyRun run;
  ASSERT_EQ(train(run.config("a")), 0);
  const fs::path checkpoint = run.folder("a") / "checkpoint";
  const std::string expected = bytes_of(checkpoint / "model.safetensors");
  // As if killed between the state of step 6 and its checkpoint: the one of step 3 is still there.
  fs::remove_all(checkpoint);
  fs::rename(run.folder("a") / "step-3", checkpoint);
  fs::remove_all(run.folder("a") / "step-6");
  ASSERT_EQ(train(run.config("a"), true), 0);
  EXPECT_TRUE(bytes_of(checkpoint / "model.safetensors") == expected);
  EXPECT_EQ(checkpoint_step(run.folder("a") / "step-6"), 6);
}

TEST(TrainingRunTest, OneBigPassEqualsAccumulatedPasses) {
  const TinyRun run;
  ASSERT_EQ(train(run.config("a", {"gradient_accumulation=4", "steps=2"})), 0);
  ASSERT_EQ(train(run.config("b", {"gradient_accumulation=1", "micro_batch_sequences=4", "steps=2"})), 0);
  const auto a = metrics_of(run.folder("a"));
  const auto b = metrics_of(run.folder("b"));
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    const auto x = nlohmann::json::parse(a[i]);
    const auto y = nlohmann::json::parse(b[i]);
    if (x["kind"] == "quantization") continue;
    EXPECT_NEAR(x["loss"].get<double>(), y["loss"].get<double>(), 1e-5) << a[i] << b[i];
    if (x["kind"] != "step") continue;
    EXPECT_EQ(x["trained_tokens"], y["trained_tokens"]);
    EXPECT_NEAR(x["gradient_norm"].get<double>() / y["gradient_norm"].get<double>(), 1, 1e-4);
  }
}

// Layers that are computed again change no bit, so that a run may change its mind when it resumes.
TEST(TrainingRunTest, ActivationCheckpointingChangesNothingButMemory) {
  const TinyRun run;
  const std::vector<std::string> all{"optimizer.final_ratio=1", "eval.every_steps=3"};
  auto half = all;
  half.insert(half.end(), {"steps=3", "activation_checkpointing=layers"});
  ASSERT_EQ(train(run.config("kept", all)), 0);
  ASSERT_EQ(train(run.config("again", half)), 0);
  half[2] = "steps=6";
  ASSERT_EQ(train(run.config("again", half), true), 0);
  for (const char* file : {"checkpoint/model.safetensors", "checkpoint/witness.safetensors"}) {
    EXPECT_TRUE(bytes_of(run.folder("kept") / file) == bytes_of(run.folder("again") / file)) << file;
  }
  EXPECT_EQ(metrics_of(run.folder("kept")), metrics_of(run.folder("again")));
  expect_error([&] { run.config("a", {"activation_checkpointing=all"}); }, {"activation_checkpointing", "layers"});
}

// Moving weights inside the backward pass changes no bit either: with and without clipping, with every kind of learned
// number, with layers computed again.
TEST(TrainingRunTest, SteppingInTheBackwardPassChangesNothingButMemory) {
  const TinyRun run;
  ASSERT_EQ(train(run.config("base", {"plan=", "kv_cache=none", "steps=2"})), 0);
  const std::string base = "model=" + (run.folder("base") / "checkpoint").string();
  for (const auto& [name, more] :
       {std::pair("clipped", std::vector<std::string>{"optimizer.clip_norm=0.01"}),
        std::pair("unclipped", std::vector<std::string>{"optimizer.clip_norm=0", "activation_checkpointing=layers"}),
        std::pair("tables", std::vector<std::string>{"dtype=bfloat16", "freeze_tables=no"}),
        std::pair("scales", std::vector<std::string>{"plan=mobile-w4", "kv_cache=plan", "optimizer.kind=adamw8bit"}),
        std::pair("adapters", std::vector<std::string>{"lora.rank=2", "initialize=pretrained", base})}) {
    SCOPED_TRACE(name);
    std::vector<std::string> overrides{"optimizer.final_ratio=1", "eval.every_steps=3", "gradient_accumulation=1"};
    overrides.insert(overrides.end(), more.begin(), more.end());
    const std::string whole = name, inside = whole + "inside";
    ASSERT_EQ(train(run.config(whole, overrides)), 0);
    overrides.insert(overrides.end(), {"optimizer.step_in_backward=true", "steps=3"});
    ASSERT_EQ(train(run.config(inside, overrides)), 0);
    overrides.back() = "steps=6";
    ASSERT_EQ(train(run.config(inside, overrides), true), 0);
    for (const char* file : {"checkpoint/model.safetensors", "checkpoint/witness.safetensors"}) {
      EXPECT_TRUE(bytes_of(run.folder(whole) / file) == bytes_of(run.folder(inside) / file)) << file;
    }
    EXPECT_EQ(metrics_of(run.folder(whole)), metrics_of(run.folder(inside)));
  }
  expect_error([&] { run.config("a", {"optimizer.step_in_backward=true"}); },
               {"optimizer.step_in_backward", "gradient_accumulation = 1, found 2"});
}

TEST(TrainingRunTest, KlIsMeasuredToTheStartingModelAndToANamedOne) {
  const TinyRun run;
  ASSERT_EQ(train(run.config("base", {"plan=", "kv_cache=none", "steps=30"})), 0);
  const std::string base = (run.folder("base") / "checkpoint").string();
  const std::vector<std::string> common{"model=" + base, "initialize=pretrained", "eval.metric=kl", "kv_cache=plan"};
  const auto kl_at = [&](const std::string& out, int64_t step) -> double {
    for (const std::string& line : metrics_of(run.folder(out))) {
      const auto json = nlohmann::json::parse(line);
      if (json["kind"] == "eval" && json["step"] == step) return json["kl"];
    }
    return -1;
  };
  // Without quantization the model before training is its own reference.
  auto plain = common;
  plain.insert(plain.end(), {"plan=", "kv_cache=none"});
  ASSERT_EQ(train(run.config("plain", plain)), 0);
  EXPECT_NEAR(kl_at("plain", 0), 0, 1e-6);
  EXPECT_GT(kl_at("plain", 6), 1e-5);
  ASSERT_EQ(train(run.config("quantized", common)), 0);
  EXPECT_GT(kl_at("quantized", 0), 1e-4);
  auto named = common;
  named.push_back("eval.reference=" + (run.folder("plain") / "checkpoint").string());
  named.insert(named.end(), {"plan=", "kv_cache=none"});
  ASSERT_EQ(train(run.config("named", named)), 0);
  EXPECT_NEAR(kl_at("named", 0), kl_at("plain", 6), 0.5 * kl_at("plain", 6));
  // A teacher is what KL is measured to unless another model is named.
  auto taught = common;
  taught.insert(taught.end(), {"objective=forward_kl", "teacher=" + (run.folder("plain") / "checkpoint").string(),
                               "plan=", "kv_cache=none"});
  ASSERT_EQ(train(run.config("taught", taught)), 0);
  EXPECT_EQ(kl_at("taught", 0), kl_at("named", 0));
}

TEST(TrainingRunTest, FrozenWeightsStayAndTheOthersMove) {
  const TinyRun run;
  ASSERT_EQ(train(run.config("base", {"steps=2"})), 0);
  const std::string base = (run.folder("base") / "checkpoint").string();
  ASSERT_EQ(
      train(run.config("a", {"model=" + base, "initialize=pretrained", "freeze=[\"mlp_up\"]", "freeze_tables=yes"})),
      0);
  const ModelFolder before(base);
  const ModelFolder after(run.folder("a") / "checkpoint");
  for (const WeightSpec& weight : before.table().weights()) {
    const auto old_bytes = before.masters().of(weight).bytes;
    const auto new_bytes = after.masters().of(weight).bytes;
    const bool same = std::equal(old_bytes.begin(), old_bytes.end(), new_bytes.begin(), new_bytes.end());
    const bool frozen = weight.role == WeightRole::MlpUp || weight.role == WeightRole::TokenEmbedding ||
                        weight.role == WeightRole::PerLayerEmbedding;
    if (frozen || weight.role == WeightRole::MlpDown) {
      EXPECT_EQ(same, frozen) << weight.name;
    }
  }
}

TEST(TrainingRunTest, KeepsTheLastCheckpointsOnly) {
  const TinyRun run;
  ASSERT_EQ(
      train(run.config("a", {"checkpoint.every_steps=1", "checkpoint.keep_last=2", "checkpoint.keep_best=false"})), 0);
  EXPECT_FALSE(fs::exists(run.folder("a") / "step-4"));
  EXPECT_TRUE(fs::exists(run.folder("a") / "step-5"));
  EXPECT_TRUE(fs::exists(run.folder("a") / "step-6"));
  EXPECT_FALSE(fs::exists(run.folder("a") / "best"));
  ASSERT_EQ(train(run.config("b", {"checkpoint.keep_last=0", "checkpoint.every_steps=0"})), 0);
  EXPECT_FALSE(fs::exists(run.folder("b") / "step-6"));
  EXPECT_EQ(checkpoint_step(run.folder("b") / "checkpoint"), 6);
}

}  // namespace
}  // namespace qat
