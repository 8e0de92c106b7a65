// LoRA beside quantized weights: the product, its gradients, and runs that leave the base as it is.
#include "trainers/lora_branch.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "gemma4/adapter_folder.h"
#include "gemma4/model_folder.h"
#include "gemma4/witness.h"
#include "support/expect_error.h"
#include "support/tiny_model_folder.h"
#include "trainers/tiny_run.h"

namespace qat {
namespace {

namespace fs = std::filesystem;
using testing::bytes_of;
using testing::expect_error;
using testing::metrics_of;
using testing::TinyRun;
using testing::train;

TEST(LoraBranchTest, AddsTheLowRankProductAndGivesItsGradients) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const at::Tensor x = at::randn({7, 12}).to(dtype).set_requires_grad(true);
    const at::Tensor product = at::randn({7, 9}).to(dtype).set_requires_grad(true);
    const at::Tensor a = at::randn({4, 12}).set_requires_grad(true), b = at::randn({9, 4}).set_requires_grad(true);
    const at::Tensor counts = at::tensor(std::vector<float>{2, 0, 2, 0});
    LoraBranch branch(a, b, 0.5F);
    for (const bool dropout : {false, true}) {
      if (dropout) branch.count_components(counts);
      const at::Tensor found = branch.add_to(x, product);
      const auto wide = [](const at::Tensor& tensor) {
        return tensor.detach().to(at::kDouble).set_requires_grad(true);
      };
      const at::Tensor x64 = wide(x), product64 = wide(product), a64 = wide(a), b64 = wide(b);
      const at::Tensor components = at::matmul(x64, a64.t());
      const at::Tensor counted = dropout ? components * counts.to(at::kDouble) : components;
      const at::Tensor wanted = product64 + 0.5 * at::matmul(counted, b64.t());
      EXPECT_EQ(found.scalar_type(), dtype);
      const double rounding = dtype == at::kFloat ? 1e-6 : 1e-2;
      EXPECT_LT((found.to(at::kDouble) - wanted).abs().max().item<double>(),
                rounding * wanted.abs().max().item<double>());
      const at::Tensor gradient = at::randn({7, 9}).to(dtype);
      const auto of_found = torch::autograd::grad({found}, {x, product, a, b}, {gradient});
      const auto of_wanted = torch::autograd::grad({wanted}, {x64, product64, a64, b64}, {gradient.to(at::kDouble)});
      for (size_t i = 0; i < 4; ++i) {
        const double largest = of_wanted[i].abs().max().item<double>();
        EXPECT_LT((of_found[i].to(at::kDouble) - of_wanted[i]).abs().max().item<double>(), rounding * largest) << i;
      }
      EXPECT_EQ(of_found[2].scalar_type(), at::kFloat);
    }
  }
}

// Runs on a base with random weights, with adapters beside its quantized weights.
class BesideRun {
 public:
  BesideRun() { testing::write_random_weights(run_.model(), 7); }
  fs::path folder(const std::string& name) const { return run_.folder(name); }
  fs::path base() const { return run_.model(); }
  TrainConfig config(const std::string& out, std::vector<std::string> more = {}) const {
    std::vector<std::string> overrides{"initialize=pretrained",
                                       "lora.rank=4",
                                       "lora.alpha=8",
                                       "lora.through_quantizer=false",
                                       "optimizer.learning_rate=1e-2",
                                       "optimizer.final_ratio=1"};
    overrides.insert(overrides.end(), more.begin(), more.end());
    return run_.config(out, overrides);
  }

 private:
  TinyRun run_;
};

double loss_at(const fs::path& run, int64_t step) {
  for (const std::string& line : metrics_of(run)) {
    const auto json = nlohmann::json::parse(line);
    if (json["kind"] == "eval" && json["step"] == step) return json["loss"].get<double>();
  }
  return -1;
}

class LoraBesideRunTest : public ::testing::TestWithParam<const char*> {};

TEST_P(LoraBesideRunTest, TheBaseKeepsEveryBitAndTheAdapterLearns) {
  const BesideRun run;
  const std::string dtype = std::string("dtype=") + GetParam();
  ASSERT_EQ(train(run.config("a", {dtype, "steps=40", "eval.every_steps=40", "checkpoint.every_steps=0"})), 0);
  EXPECT_LT(loss_at(run.folder("a"), 40), loss_at(run.folder("a"), 0) - 0.3);
  const ModelFolder base(run.base()), checkpoint(run.folder("a") / "checkpoint");
  for (const WeightSpec& weight : base.table().weights()) {
    const auto before = base.masters().of(weight).bytes, after = checkpoint.masters().of(weight).bytes;
    EXPECT_TRUE(std::equal(before.begin(), before.end(), after.begin(), after.end())) << weight.name;
  }
  const AdapterFolder adapter(run.folder("a") / "adapter", checkpoint.table());
  EXPECT_EQ(adapter.settings().through_quantizer, false);

  // The codes that the forward pass used are those of the base without an adapter.
  ASSERT_EQ(train(run.config("other", {dtype, "steps=2", "seed=6"})), 0);
  const Witness mine = Witness::load(run.folder("a") / "checkpoint/witness.safetensors");
  EXPECT_EQ(mine.digests, Witness::load(run.folder("other") / "checkpoint/witness.safetensors").digests);
}

TEST_P(LoraBesideRunTest, SixStepsEqualThreeAndThree) {
  const BesideRun run;
  std::vector<std::string> overrides{std::string("dtype=") + GetParam(), "lora.dropout=0.25", "eval.every_steps=3"};
  ASSERT_EQ(train(run.config("straight", overrides)), 0);
  overrides.emplace_back("steps=3");
  ASSERT_EQ(train(run.config("halves", overrides)), 0);
  overrides.back() = "steps=6";
  ASSERT_EQ(train(run.config("halves", overrides), true), 0);
  for (const char* file : {"checkpoint/witness.safetensors", "adapter/adapter_model.safetensors", "state.h5"}) {
    EXPECT_TRUE(bytes_of(run.folder("straight") / file) == bytes_of(run.folder("halves") / file)) << file;
  }
}

TEST_P(LoraBesideRunTest, ActivationCheckpointingAndAPackedBaseGiveTheSameRun) {
  const BesideRun run;
  const std::string dtype = std::string("dtype=") + GetParam();
  ASSERT_EQ(train(run.config("a", {dtype})), 0);
  ASSERT_EQ(train(run.config("b", {dtype, "activation_checkpointing=layers"})), 0);
  EXPECT_EQ(metrics_of(run.folder("a")), metrics_of(run.folder("b")));
  ASSERT_EQ(train(run.config("c", {dtype, "activation_checkpointing=layers", "lora.base=packed"})), 0);
  const std::string decoded = "model=" + (run.folder("c") / "checkpoint").string();
  ASSERT_EQ(train(run.config("d", {dtype, decoded})), 0);
  EXPECT_EQ(metrics_of(run.folder("c")), metrics_of(run.folder("d")));
}

INSTANTIATE_TEST_SUITE_P(Types, LoraBesideRunTest, ::testing::Values("float32", "bfloat16"));

TEST(LoraBesideRunTest, WhatHasNoAdapterBesideItIsRefused) {
  const BesideRun run;
  const auto refused = [&](const std::vector<std::string>& overrides, std::initializer_list<std::string> parts) {
    expect_error([&] { train(run.config("a", overrides)); }, parts);
    EXPECT_FALSE(fs::exists(run.folder("a")));
  };
  refused({"lora.rank=0"}, {"lora.through_quantizer: false needs lora.rank"});
  refused({"plan=", "kv_cache=none"}, {"lora.through_quantizer: false needs a plan"});
  refused({"lora.roles=[\"output_head\"]"}, {"\"output_head\" has an adapter only with lora.through_quantizer = true"});
  refused({"plan=mobile-w4", "kv_cache=plan"}, {"lora.through_quantizer: false is for plans of GGUF files"});
  ASSERT_EQ(train(run.config("through", {"lora.through_quantizer=true", "steps=2"})), 0);
  refused({"lora.adapter=" + (run.folder("through") / "adapter").string()},
          {"was trained with through_quantizer = true"});
}

}  // namespace
}  // namespace qat
