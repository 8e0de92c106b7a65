// Whole runs on a device whose memory the host cannot read, against the same runs on the CPU. Attention there is the
// CPU's, fake quantization goes through ATen operations instead of kernels, masters and all else is the device's.
#include <ATen/TensorOperators.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/zeros.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/json.h"
#include "core/output_file.h"
#include "fake_quant/block_values.h"
#include "fake_quant/tensor_values.h"
#include "gemma4/witness.h"
#include "support/expect_error.h"
#include "support/far_device.h"
#include "trainers/base_model.h"
#include "trainers/cache_teacher.h"
#include "trainers/compute_settings.h"
#include "trainers/tiny_run.h"

namespace qat {
namespace {

namespace fs = std::filesystem;
using testing::bytes_of;
using testing::expect_error;
using testing::metrics_of;
using testing::step_losses;
using testing::TinyRun;
using testing::train;

struct Recipe {
  const char* name;
  std::vector<std::string> overrides;
  nlohmann::json model = nlohmann::json::object();  // changes of its config.json
};

const nlohmann::json kExperts{{"hidden_size_per_layer_input", 0},
                              {"num_kv_shared_layers", 0},
                              {"use_double_wide_mlp", false},
                              {"attention_k_eq_v", true},
                              {"enable_moe_block", true},
                              {"num_experts", 4},
                              {"top_k_experts", 2},
                              {"moe_intermediate_size", 32}};

std::vector<std::string> with(std::vector<std::string> overrides, std::vector<std::string> more) {
  overrides.insert(overrides.end(), more.begin(), more.end());
  return overrides;
}

class DeviceRunTest : public ::testing::Test {
 protected:
  DeviceRunTest() { testing::far_device(); }

  TrainConfig config(const std::string& out, const std::vector<std::string>& overrides,
                     const std::string& device = testing::kFarDevice) const {
    return run_.config(out, with(overrides, {"device=" + device}));
  }
  fs::path folder(const std::string& name) const { return run_.folder(name); }

  void edit_model(const nlohmann::json& changes) const {
    auto document = load_json(run_.model() / "config.json");
    document.update(changes);
    write_file(run_.model() / "config.json", document.dump());
  }
  // Where windows are shorter than documents, the CPU's attention adds up the gradients of a key, one for each piece of
  // queries that sees it, in another order than autograd does.
  void widen_windows() const { edit_model({{"sliding_window", 64}}); }

  // A checkpoint to start from, made on the CPU.
  std::string base(const std::vector<std::string>& overrides = {"plan="}) const {
    if (!fs::exists(folder("base"))) {
      EXPECT_EQ(train(run_.config("base", with(overrides, {"kv_cache=none", "steps=2"}))), 0);
    }
    return (folder("base") / "checkpoint").string();
  }

  TinyRun run_;
};

class SameRun : public DeviceRunTest, public ::testing::WithParamInterface<Recipe> {};

// Losses, evaluations and statistics, weights, scales, adapters, witnesses: every byte.
TEST_P(SameRun, GivesTheBytesOfTheCpu) {
  widen_windows();
  edit_model(GetParam().model);
  std::vector<std::string> overrides = with({"steps=3"}, GetParam().overrides);
  for (std::string& setting : overrides) {
    if (setting == "model=BASE") setting = "model=" + base();
    if (setting == "model=SEARCHED") setting = "model=" + base({"quantization.block_scales=search"});
  }
  ASSERT_EQ(train(config("near", overrides, "cpu")), 0);
  ASSERT_EQ(train(config("far", overrides)), 0);
  EXPECT_EQ(metrics_of(folder("far")), metrics_of(folder("near")));
  for (const auto& entry : fs::recursive_directory_iterator(folder("near"))) {
    const fs::path file = fs::relative(entry.path(), folder("near"));
    if (!entry.is_regular_file() || (file.extension() != ".safetensors")) continue;
    EXPECT_TRUE(bytes_of(folder("far") / file) == bytes_of(entry.path())) << file;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Recipes, SameRun,
    ::testing::Values(
        Recipe{"Bf16Control", {"plan=", "kv_cache=none"}}, Recipe{"Q4_0WithCache", {}},
        Recipe{"Q8_0Tables", {"plan=q4_0-q8-tables", "kv_cache=none"}},
        Recipe{"KeepsNothingAndRecomputes", {"quantization.keep=nothing", "activation_checkpointing=layers"}},
        Recipe{"StepsInBackward", {"optimizer.step_in_backward=true", "gradient_accumulation=1"}},
        Recipe{"Bf16Masters", {"optimizer.masters=bfloat16"}}, Recipe{"LateStart", {"quantization.start_step=2"}},
        Recipe{"Mobile", {"plan=mobile-w4", "kv_cache=plan", "quantization.learn_scales=false"}},
        Recipe{"MobileLate",
               {"plan=mobile-w4", "kv_cache=plan", "quantization.learn_scales=false", "quantization.start_step=1",
                "quantization.activation_start_step=2", "quantization.cache_start_step=2"}},
        Recipe{"Lora", {"model=BASE", "initialize=pretrained", "lora.rank=4", "lora.dropout=0.25"}},
        Recipe{"LoraBeside", {"model=BASE", "initialize=pretrained", "lora.rank=4", "lora.through_quantizer=false"}},
        Recipe{"Distillation", {"model=BASE", "initialize=pretrained", "objective=forward_kl", "eval.metric=kl"}},
        Recipe{"Pretrained", {"model=BASE", "initialize=pretrained", "freeze_tables=yes"}},
        Recipe{"Experts", {}, kExperts},
        Recipe{"MobileInt2", {"plan=mobile-e2b", "kv_cache=plan", "quantization.learn_scales=false"}},
        Recipe{"StoredScales", {"model=SEARCHED", "initialize=pretrained", "plan=model"}},
        // On the CPU the head's value lies in a file then.
        Recipe{
            "FrozenHead",
            {"plan=q4_0-q8-tables", "kv_cache=none", "quantization.keep=nothing", "activation_checkpointing=layers"}}),
    [](const auto& instance) { return instance.param.name; });

// Scales that learn add up in another order, and so do keys under narrow windows.
TEST_F(DeviceRunTest, LearnsScalesAsTheCpuDoes) {
  const std::vector<std::string> overrides{"plan=mobile-w4", "kv_cache=plan"};
  ASSERT_EQ(train(config("near", overrides, "cpu")), 0);
  ASSERT_EQ(train(config("far", overrides)), 0);
  const auto near = step_losses(folder("near")), far = step_losses(folder("far"));
  ASSERT_EQ(near.size(), far.size());
  for (size_t i = 0; i < near.size(); ++i) EXPECT_NEAR(far[i], near[i], 1e-4 * near[i]) << i;
}

// What is shipped: every digest of the witness, which the forward pass on the device made, comes out of the
// checkpoint's masters and the kernels of the CPU.
TEST_F(DeviceRunTest, ItsBf16CheckpointHoldsWhatTheForwardPassRead) {
  for (const char* plan : {"q4_0", "mobile-w4"}) {
    const std::string out = std::string("far ") + plan;
    ASSERT_EQ(train(config(out, {std::string("plan=") + plan, "kv_cache=plan", "dtype=bfloat16"})), 0);
    const fs::path checkpoint = folder(out) / "checkpoint";
    const Witness witness = Witness::load(checkpoint / "witness.safetensors");
    const BaseModel base(config(
        "again", {"model=" + checkpoint.string(), "initialize=pretrained", "plan=model", "kv_cache=plan"}, "cpu"));
    Gemma4Model model(base.config(), at::kFloat);
    base.fill(model, 0);
    const auto digests = base.attach_fake_quant(model).digests();
    ASSERT_EQ(digests.size(), witness.digests.size());
    for (const auto& [name, digest] : digests) {
      EXPECT_EQ(digest.codes, witness.digests.at(name).codes) << name;
      EXPECT_EQ(digest.scales, witness.digests.at(name).scales) << name;
      EXPECT_EQ(digest.values, witness.digests.at(name).values) << name;
    }
  }
}

TEST_F(DeviceRunTest, GoesOnFromItsStateOnEitherDevice) {
  widen_windows();
  for (const auto& recipe : {std::vector<std::string>{"plan=q4_0"}, {"plan=mobile-w4"}, {"optimizer.masters=bfloat16"}}) {
    const auto overrides =
        with({"kv_cache=plan", "quantization.learn_scales=false", "optimizer.final_ratio=1"}, recipe);
    const std::string name = "straight " + recipe.front();
    ASSERT_EQ(train(config(name, overrides)), 0);
    for (const char* second : {testing::kFarDevice, "cpu"}) {
      const std::string halves = "halves " + recipe.front() + second;
      ASSERT_EQ(train(config(halves, with(overrides, {"steps=3"}))), 0);
      ASSERT_EQ(train(config(halves, overrides, second), true), 0);
      for (const char* file : {"checkpoint/model.safetensors", "checkpoint/witness.safetensors"}) {
        EXPECT_TRUE(bytes_of(folder(name) / file) == bytes_of(folder(halves) / file)) << halves << " " << file;
      }
    }
  }
}

TEST_F(DeviceRunTest, StoresAndReadsTeacherStates) {
  const std::string start = base();
  const auto distilled = [&](const std::string& out, const std::string& device, std::vector<std::string> more = {}) {
    return config(out, with({"model=" + start, "initialize=pretrained", "objective=forward_kl"}, std::move(more)),
                  device);
  };
  const auto cached = [&](const std::string& file) { return "distillation.cache=" + folder(file).string(); };
  ::testing::internal::CaptureStdout();
  EXPECT_EQ(cache_teacher(distilled("c", "cpu", {cached("near.h5")}), false), 0);
  EXPECT_EQ(cache_teacher(distilled("c", testing::kFarDevice, {cached("far.h5")}), false), 0);
  ::testing::internal::GetCapturedStdout();
  EXPECT_TRUE(bytes_of(folder("near.h5")) == bytes_of(folder("far.h5")));
  ASSERT_EQ(train(distilled("live", testing::kFarDevice, {"steps=2"})), 0);
  ASSERT_EQ(train(distilled("stored", testing::kFarDevice, {"steps=2", cached("far.h5")})), 0);
  EXPECT_EQ(step_losses(folder("stored")), step_losses(folder("live")));
}

// Of a LibTorch with CUDA, whether a GPU is there or not: a kernel for whatever runs on the device. Attention is not
// among it: its operation has one everywhere.
TEST_F(DeviceRunTest, CallsWhatCudaHasKernelsFor) {
  if (!c10::impl::hasDeviceGuardImpl(c10::DeviceType::CUDA)) GTEST_SKIP() << "this LibTorch has no CUDA";
  const std::string start = "model=" + base();
  const std::vector<std::vector<std::string>> recipes{
      {"activation_checkpointing=layers", "optimizer.masters=bfloat16"},
      {"plan=mobile-w4", "kv_cache=plan", "dtype=bfloat16"},
      {start, "initialize=pretrained", "objective=jensen_shannon", "eval.metric=kl"},
      {start, "initialize=pretrained", "lora.rank=4", "lora.dropout=0.25"}};
  for (size_t i = 0; i < recipes.size(); ++i) {
    ASSERT_EQ(train(config(std::to_string(i), with(recipes[i], {"steps=2"}))), 0);
  }
  edit_model(kExperts);
  ASSERT_EQ(train(config("experts", {"steps=2"})), 0);
  for (const c10::OperatorName& name : testing::operations_run()) {
    const auto operation = c10::Dispatcher::singleton().findSchema(name);
    EXPECT_TRUE(operation && operation->hasComputedKernelForDispatchKey(c10::DispatchKey::CUDA)) << name;
  }
  EXPECT_GT(testing::operations_run().size(), 50U);
}

TEST_F(DeviceRunTest, HostCodeRefusesItsMemory) {
  const at::Tensor far = at::zeros({4}, at::kFloat).to(testing::far_device());
  expect_error([&] { values_of<float>(far); }, {"CPU only", "far:0", "device = cpu"});
  expect_error([&] { qat::bytes_of(far); }, {"CPU only", "far:0"});
  expect_error([&] { as_bfloat16(far); }, {"CPU only", "far:0"});
  EXPECT_TRUE(on_cpu(far).is_cpu());
}

TEST(DeviceDeathTest, MemoryOfTheFarDeviceIsNone) {
  const at::Tensor far = at::zeros({4}, at::kFloat).to(testing::far_device());
  EXPECT_DEATH(static_cast<void>(*static_cast<volatile float*>(far.data_ptr())), "");
  EXPECT_ANY_THROW(far + at::zeros({4}, at::kFloat));
}

TEST_F(DeviceRunTest, RefusesWhatOnlyTheCpuComputes) {
  expect_error(
      [&] {
        config("a", {"optimizer.kind=adamw8bit", "quantization.block_scales=search", "quantization.keep=codes",
                     "lora.base=packed", "lora.rank=4", "sharding=parameters"});
      },
      {"optimizer.kind: adamw8bit runs on the CPU only; with device = far:0 use adamw",
       "quantization.block_scales: search", "use rule", "quantization.keep: codes", "use values or nothing",
       "lora.base: packed", "use bfloat16", "sharding: parameters", "use none"});
}

TEST_F(DeviceRunTest, EachProcessOfAMachineTakesADeviceOfItsOwn) {
  const auto chosen = [&](const std::string& device, int64_t local_rank, int64_t local_size) {
    TrainConfig own = config("a", {}, device);
    choose_own_device(own, local_rank, local_size);
    return own.device;
  };
  EXPECT_EQ(chosen("far", 1, 2), "far:1");
  EXPECT_EQ(chosen("far", 0, 1), "far");
  EXPECT_EQ(chosen("far:0", 1, 2), "far:0");
  EXPECT_EQ(chosen("cpu", 1, 2), "cpu");
  TrainConfig third = config("a", {}, "far");
  choose_own_device(third, 2, 3);
  expect_error([&] { compute_device(third); }, {"found \"far:2\"", "far:0 to far:1"});
}

// Rows of 256 values, as Q6_K wants them.
TEST_F(DeviceRunTest, RefusesPlansWithQ6K) {
  edit_model({{"hidden_size", 256}, {"hidden_size_per_layer_input", 64}});
  expect_error(
      [&] {
        train(config("a", {"plan=q4_0-google", "kv_cache=none"}));
      },
      {"plan: \"q4_0-google\" gives embed_tokens.weight", "on the CPU only", "q4_0-q8-tables"});
  EXPECT_FALSE(fs::exists(folder("a")));
}

TEST_F(DeviceRunTest, NamesDevicesThatAreNotThere) {
  for (const char* name : {"gpu", "cuda:x", "cpu:0", "meta"}) {
    expect_error([&] { config("a", {}, name); }, {"device: must be cpu, cuda or cuda:N", name});
  }
  expect_error([&] { train(config("a", {}, "far:7")); },
               {"device: found \"far:7\"", "2 far devices", "far:0 to far:1"});
  EXPECT_FALSE(fs::exists(folder("a")));
  if (!c10::impl::hasDeviceGuardImpl(c10::DeviceType::CUDA)) {
    expect_error([&] { train(config("a", {}, "cuda:1")); },
                 {"device: found \"cuda:1\"", "has no cuda", "LIBTORCH_ROOT", "device = cpu"});
  } else if (c10::impl::getDeviceGuardImpl(c10::DeviceType::CUDA)->deviceCount() == 0) {
    expect_error([&] { train(config("a", {}, "cuda:1")); },
                 {"device: found \"cuda:1\"", "sees no cuda device", "nvidia-smi", "device = cpu"});
  }
}

}  // namespace
}  // namespace qat
