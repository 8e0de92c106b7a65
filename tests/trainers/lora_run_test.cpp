// Whole LoRA runs on a tiny model: what is stored, resumed, merged and refused.
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/json.h"
#include "core/output_file.h"
#include "eval/metric_series.h"
#include "fake_quant/prepare.h"
#include "gemma4/witness.h"
#include "support/expect_error.h"
#include "trainers/checkpoint_writer.h"
#include "trainers/lora.h"
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

// A run folder with a base checkpoint, and LoRA runs on it.
class LoraRun {
 public:
  LoraRun() { EXPECT_EQ(train(run_.config("base", {"plan=", "kv_cache=none", "steps=2"})), 0); }

  fs::path base() const { return folder("base") / "checkpoint"; }
  fs::path folder(const std::string& name) const { return run_.folder(name); }
  TrainConfig config(const std::string& out, std::vector<std::string> more = {}) const {
    std::vector<std::string> overrides{"model=" + base().string(), "initialize=pretrained", "lora.rank=4",
                                       "lora.alpha=8", "optimizer.learning_rate=1e-2"};
    overrides.insert(overrides.end(), more.begin(), more.end());
    return run_.config(out, overrides);
  }

 private:
  TinyRun run_;
};

std::vector<std::string> of_plan(const std::string& plan, std::vector<std::string> more = {}) {
  more.push_back("plan=" + plan);
  more.push_back(plan.empty() ? "kv_cache=none" : "kv_cache=plan");
  return more;
}

bool is_adapted(const WeightSpec& weight) {
  const std::string role(role_name(weight.role));
  return role.starts_with("attention_") || role.starts_with("mlp_");
}

class LoraPlanTest : public ::testing::TestWithParam<std::tuple<const char*, const char*>> {
 protected:
  std::string plan() const { return std::get<0>(GetParam()); }
  std::string dtype() const { return std::string("dtype=") + std::get<1>(GetParam()); }
};

// The stored masters, encoded anew, are what the forward pass read: every digest of the witness, which the model with
// the adapters in its slots made, comes out of the checkpoint alone.
TEST_P(LoraPlanTest, TheCheckpointHoldsTheMergedMastersThatTheForwardPassRead) {
  const LoraRun run;
  ASSERT_EQ(train(run.config("a", of_plan(plan(), {dtype(), "lora.dropout=0.25"}))), 0);
  const ModelFolder before(run.base());
  const ModelFolder after(run.folder("a") / "checkpoint");
  for (const WeightSpec& weight : before.table().weights()) {
    const auto old_bytes = before.masters().of(weight).bytes;
    const auto new_bytes = after.masters().of(weight).bytes;
    const bool same = std::equal(old_bytes.begin(), old_bytes.end(), new_bytes.begin(), new_bytes.end());
    EXPECT_EQ(same, !is_adapted(weight)) << weight.name;
  }
  if (plan().empty()) return;
  const at::NoGradGuard no_grad;
  Gemma4Model model(after.config(), at::kFloat);
  load_weights(model, after.tensors());
  const auto digests = prepare(model, *after.plan(), KnownScales::of(after)).digests();
  const Witness witness = Witness::load(after.path() / "witness.safetensors");
  ASSERT_EQ(digests.size(), witness.digests.size());
  for (const auto& [name, digest] : witness.digests) {
    EXPECT_EQ(digest.codes, digests.at(name).codes) << name;
    EXPECT_EQ(digest.scales, digests.at(name).scales) << name;
    EXPECT_EQ(digest.values, digests.at(name).values) << name;
  }
}

// Rates do not depend on the number of steps, so a run of 3 is the first half of one of 6.
TEST_P(LoraPlanTest, SixStepsEqualThreeAndThree) {
  const LoraRun run;
  auto overrides = of_plan(plan(), {dtype(), "lora.dropout=0.25", "optimizer.final_ratio=1", "eval.every_steps=3",
                                    "quantization.scale_freeze_share=0"});
  if (!plan().empty()) overrides.emplace_back("quantization.start_step=2");
  ASSERT_EQ(train(run.config("straight", overrides)), 0);
  overrides.emplace_back("steps=3");
  ASSERT_EQ(train(run.config("halves", overrides)), 0);
  EXPECT_EQ(checkpoint_step(run.folder("halves") / "checkpoint"), 3);
  const std::string adapter_of_three = bytes_of(run.folder("halves") / "adapter/adapter_model.safetensors");
  fs::create_directories(run.folder("halves") / "adapter.partial");
  overrides.back() = "steps=6";
  ASSERT_EQ(train(run.config("halves", overrides), true), 0);
  for (const char* file :
       {"checkpoint/model.safetensors", "checkpoint/witness.safetensors", "best/model.safetensors",
        "step-3/model.safetensors", "adapter/adapter_model.safetensors", "adapter/adapter_config.json", "state.h5"}) {
    EXPECT_TRUE(bytes_of(run.folder("straight") / file) == bytes_of(run.folder("halves") / file)) << file;
  }
  EXPECT_EQ(metrics_of(run.folder("straight")), metrics_of(run.folder("halves")));
  EXPECT_FALSE(bytes_of(run.folder("halves") / "adapter/adapter_model.safetensors") == adapter_of_three);
  EXPECT_FALSE(fs::exists(run.folder("halves") / "adapter.partial"));
}

// The base and the adapter folder give the checkpoint's masters again, bit for bit.
TEST_P(LoraPlanTest, MergingTheAdapterGivesTheCheckpointsMasters) {
  const LoraRun run;
  ASSERT_EQ(train(run.config("a", of_plan(plan(), {dtype(), "lora.rank_stabilized=true"}))), 0);
  const at::NoGradGuard no_grad;
  TrainConfig config;
  config.model = run.base().string();
  const BaseModel base(config);
  Gemma4Model model(base.config(), at::kFloat);
  base.fill(model, 0);
  const AdapterFolder folder(run.folder("a") / "adapter", base.table());
  LoraAdapters(base, model, folder.settings(), 0).add(folder);
  FakeQuantSet none;
  CheckpointWriter(base, {{2, 3, 4}}).write(run.folder("merged"), model, none, 0);
  EXPECT_TRUE(bytes_of(run.folder("merged") / "model.safetensors") ==
              bytes_of(run.folder("a") / "checkpoint/model.safetensors"));
}

INSTANTIATE_TEST_SUITE_P(PlansAndTypes, LoraPlanTest,
                         ::testing::Combine(::testing::Values("", "q4_0", "mobile-w4"),
                                            ::testing::Values("float32", "bfloat16")));

TEST(LoraRunTest, Learns) {
  const LoraRun run;
  const auto loss_at = [&](int64_t step) {
    for (const std::string& line : metrics_of(run.folder("a"))) {
      const auto json = nlohmann::json::parse(line);
      if (json["kind"] == "eval" && json["step"] == step) return json["loss"].get<double>();
    }
    return -1.0;
  };
  ASSERT_EQ(train(run.config("a", {"steps=60", "eval.every_steps=60", "lora.rank=8"})), 0);
  EXPECT_LT(loss_at(60), loss_at(0) - 0.5);
}

// Only A and B of the roles asked for are trained, in fp32.
TEST(LoraRunTest, TheStateHoldsTheAdaptersAlone) {
  const LoraRun run;
  ASSERT_EQ(train(run.config("a", {"lora.roles=[\"mlp_up\"]"})), 0);
  const ModelFolder after(run.folder("a") / "checkpoint");
  const AdapterFolder folder(run.folder("a") / "adapter", after.table());
  int64_t values = 0;
  for (const auto& change : folder.changes()) {
    EXPECT_EQ(change.weight.role, WeightRole::MlpUp);
    values += std::ssize(change.a) + std::ssize(change.b);
    EXPECT_TRUE(std::any_of(change.a.begin(), change.a.end(), [](float v) { return v != to_float(to_bfloat16(v)); }));
    EXPECT_TRUE(std::any_of(change.b.begin(), change.b.end(), [](float v) { return v != to_float(to_bfloat16(v)); }));
  }
  EXPECT_EQ(folder.changes().size(), 4U);
  const auto state_size = static_cast<int64_t>(fs::file_size(run.folder("a") / "state.h5"));
  EXPECT_GT(state_size, 12 * values);
  // The codes of a sample of each merged weight, and those before them, are there, too.
  const int64_t codes = std::ssize(folder.changes()) * 2 * (1 << 14);
  EXPECT_LT(state_size, 12 * values + codes + 100'000);
  const auto config = load_json(run.folder("a") / "adapter/adapter_config.json");
  EXPECT_EQ(config["base_model_name_or_path"], run.base().string());
  EXPECT_EQ(config["target_modules"][0], "model.layers.0.mlp.up_proj");
}

// A new run that starts from a folder starts where the old one ended.
TEST(LoraRunTest, AFolderIsTheStartOfTheNextRun) {
  const LoraRun run;
  ASSERT_EQ(train(run.config("a")), 0);
  const std::string adapter = "lora.adapter=" + (run.folder("a") / "adapter").string();
  ASSERT_EQ(train(run.config("b", {adapter, "lora.dropout=0.5"})), 0);
  const auto held_out_loss = [&](const char* name, int64_t step) {
    const Series losses = read_metric_series(run.folder(name) / "metrics.jsonl", "eval", "loss", name);
    const auto found = std::find(losses.x.begin(), losses.x.end(), static_cast<double>(step));
    return found == losses.x.end() ? -1 : losses.y[static_cast<size_t>(found - losses.x.begin())];
  };
  EXPECT_GT(held_out_loss("a", 6), 0);
  EXPECT_EQ(held_out_loss("b", 0), held_out_loss("a", 6));
}

TEST(LoraRunTest, DropoutIsTheSameInAllPassesOfAStep) {
  const LoraRun run;
  const std::string dropout = "lora.dropout=0.5";
  ASSERT_EQ(train(run.config("a", {dropout, "gradient_accumulation=4", "steps=2"})), 0);
  ASSERT_EQ(train(run.config("b", {dropout, "gradient_accumulation=1", "micro_batch_sequences=4", "steps=2"})), 0);
  ASSERT_EQ(train(run.config("c", {"gradient_accumulation=4", "steps=2"})), 0);
  const auto norm_of = [&](const char* name) {
    for (const std::string& line : metrics_of(run.folder(name))) {
      const auto json = nlohmann::json::parse(line);
      if (json["kind"] == "step") return json["gradient_norm"].get<double>();
    }
    return 0.0;
  };
  EXPECT_NEAR(norm_of("a") / norm_of("b"), 1, 1e-4);
  EXPECT_GT(std::abs(norm_of("a") / norm_of("c") - 1), 1e-2);
}

TEST(LoraRunTest, BadValuesAreProblemsOfTheConfiguration) {
  const LoraRun run;
  const auto refused = [&](std::vector<std::string> overrides, std::initializer_list<std::string> parts) {
    try {
      run.config("a", std::move(overrides));
      ADD_FAILURE() << "was accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.exit_code(), ExitCode::Usage);
      for (const std::string& part : parts) EXPECT_THAT(error.what(), HasSubstr(part));
    }
  };
  refused({"lora.rank=-1", "lora.dropout=1", "lora.alpha=0"},
          {"lora.rank: must be 0 or more, found -1", "lora.dropout: must be at least 0 and below 1",
           "lora.alpha: must be above 0"});
  refused({"lora.roles=[\"mlp_pu\"]"}, {"lora.roles: there is no role \"mlp_pu\"; did you mean \"mlp_up\"?"});
  for (const char* role :
       {"token_embedding", "per_layer_embedding", "expert_gate_up", "expert_down", "norm", "layer_scalar"}) {
    refused({std::string("lora.roles=[\"") + role + "\"]"}, {role, "has no adapter: only matrices do"});
  }
  refused({"lora.roles=[]"}, {"lora.roles: is empty"});
  refused({"freeze=[\"mlp_up\"]"}, {"\"mlp_up\" is in freeze, too"});
  refused({"freeze_tables=no"}, {"freeze_tables: no contradicts lora.rank"});
  refused({"initialize=random"}, {"lora.rank: adapters need a base that stays"});
  refused({"lora.adapter=absent"}, {"lora.adapter: there is no folder absent"});
  refused({"lora.rank=0", "lora.adapter=" + run.base().string()}, {"lora.adapter: needs lora.rank"});
}

void expect_usage_error(const std::function<void()>& action, std::initializer_list<std::string> parts) {
  try {
    action();
    ADD_FAILURE() << "no Error was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.exit_code(), ExitCode::Usage);
    for (const std::string& part : parts) EXPECT_THAT(error.what(), HasSubstr(part));
  }
}

TEST(LoraRunTest, RolesThatTheModelLacksAreUsageErrorsAndLeaveNoRun) {
  const LoraRun run;
  for (const char* role : {"router", "output_head"}) {
    expect_usage_error([&] { train(run.config("a", {std::string("lora.roles=[\"mlp_up\",\"") + role + "\"]"})); },
                       {"lora.roles: the model in", std::string("has no weight of role \"") + role + "\""});
  }
  EXPECT_FALSE(fs::exists(run.folder("a")));
}

TEST(LoraRunTest, AnAdapterThatIsNotTheRunsIsRefused) {
  const LoraRun run;
  ASSERT_EQ(train(run.config("a", {"lora.roles=[\"mlp_up\",\"mlp_down\"]", "steps=2"})), 0);
  const std::string adapter = "lora.adapter=" + (run.folder("a") / "adapter").string();
  expect_usage_error([&] { train(run.config("b", {adapter, "lora.rank=8"})); }, {"has rank = 4", "lora has 8"});
  expect_usage_error(
      [&] {
        train(run.config("b", {adapter, "lora.rank_stabilized=true"}));
      },
      {"rank_stabilized = false"});
  expect_usage_error([&] { train(run.config("b", {adapter})); },
                     {"has no adapter of layers.0.self_attn.q_proj.weight, which lora.roles asks for"});
  expect_usage_error(
      [&] {
        train(run.config("b", {adapter, "lora.roles=[\"mlp_up\"]"}));
      },
      {"has an adapter of layers.0.mlp.down_proj.weight; add \"mlp_down\" to lora.roles"});
  // Of one shape, but with other weights.
  expect_error(
      [&] {
        train(run.config("b", {adapter, "lora.roles=[\"mlp_up\",\"mlp_down\"]",
                               "model=" + (run.folder("a") / "checkpoint").string()}));
      },
      {"was trained on " + run.base().string(), "whose weights differ"});
  EXPECT_FALSE(fs::exists(run.folder("b")));
}

}  // namespace
}  // namespace qat
