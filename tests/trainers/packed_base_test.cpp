// LoRA on a base that is kept as codes: bit for bit LoRA on the numbers that the codes stand for, in a fraction of the
// memory.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/json.h"
#include "core/output_file.h"
#include "fake_quant/packed_master.h"
#include "fake_quant/tensor_values.h"
#include "support/counting_allocator.h"
#include "support/expect_error.h"
#include "support/tiny_model_folder.h"
#include "trainers/checkpoint_writer.h"
#include "trainers/lora.h"
#include "trainers/tiny_run.h"

namespace qat {
namespace {

namespace fs = std::filesystem;
using testing::bytes_of;
using testing::expect_error;
using testing::metrics_of;
using testing::TinyRun;
using testing::train;

// A base of a kind with random weights, and LoRA runs on it.
class PackedRun {
 public:
  explicit PackedRun(const std::string& kind = "shared", const std::string& plan = "q4_0") : plan_(plan) {
    nlohmann::json config = load_json(run_.model() / "config.json");
    if (kind == "experts") {
      config.update({{"hidden_size_per_layer_input", 0},
                     {"num_kv_shared_layers", 0},
                     {"use_double_wide_mlp", false},
                     {"attention_k_eq_v", true},
                     {"enable_moe_block", true},
                     {"num_experts", 4},
                     {"top_k_experts", 2},
                     {"moe_intermediate_size", 32}});
    }
    write_file(run_.model() / "config.json", config.dump());
    testing::write_random_weights(run_.model(), 7);
  }

  fs::path folder(const std::string& name) const { return run_.folder(name); }
  fs::path base() const { return run_.model(); }
  TrainConfig config(const std::string& out, std::vector<std::string> more = {}) const {
    std::vector<std::string> overrides{
        "initialize=pretrained",        "plan=" + plan_, "kv_cache=plan", "lora.rank=4", "lora.alpha=8",
        "optimizer.learning_rate=1e-2", "steps=3"};
    overrides.insert(overrides.end(), more.begin(), more.end());
    return run_.config(out, overrides);
  }
  TrainConfig packed(const std::string& out, std::vector<std::string> more = {}) const {
    more.insert(more.begin(), {"lora.base=packed", "activation_checkpointing=layers"});
    return config(out, std::move(more));
  }
  // Writes the numbers that the packed base stands for as a model folder.
  fs::path write_decoded() const {
    const BaseModel base(packed("unused"));
    Gemma4Model model(base.config(), at::kFloat, base.without_memory({}, at::kFloat));
    base.fill(model, 0);
    const fs::path decoded = folder("decoded");
    fs::create_directories(decoded);
    for (const char* name : {"config.json", "tokenizer.json"}) fs::copy_file(run_.model() / name, decoded / name);
    SafetensorsWriter writer(decoded / "model.safetensors");
    const auto& weights = base.table().weights();
    for (const WeightSpec& weight : weights) writer.declare("model." + weight.name, ElementType::BF16, weight.shape);
    for (const WeightSpec& weight : weights) {
      const at::Tensor values = model.merged_parameter(weight.name).to(at::kBFloat16).contiguous();
      writer.write(std::as_bytes(values_of<const BFloat16>(values)));
    }
    writer.commit();
    return decoded;
  }

 private:
  TinyRun run_;
  std::string plan_;
};

struct Case {
  const char* kind;
  const char* plan;
  const char* dtype;
};
void PrintTo(const Case& wanted, std::ostream* out) {
  *out << wanted.kind << " " << wanted.plan << " " << wanted.dtype;
}

class PackedBase : public ::testing::TestWithParam<Case> {};

TEST_P(PackedBase, TrainsAsOnTheNumbersThatItsCodesStandFor) {
  const PackedRun run(GetParam().kind, GetParam().plan);
  const std::string dtype = std::string("dtype=") + GetParam().dtype, dropout = "lora.dropout=0.25";
  ASSERT_EQ(train(run.packed("packed", {dtype, dropout})), 0);
  const std::string decoded = "model=" + run.write_decoded().string();
  ASSERT_EQ(train(run.config("plain", {dtype, dropout, decoded})), 0);
  EXPECT_EQ(metrics_of(run.folder("packed")), metrics_of(run.folder("plain")));
  for (const char* file :
       {"checkpoint/model.safetensors", "checkpoint/witness.safetensors", "adapter/adapter_model.safetensors"}) {
    EXPECT_TRUE(bytes_of(run.folder("packed") / file) == bytes_of(run.folder("plain") / file)) << file;
  }
  if (fs::exists(run.folder("plain") / "checkpoint/scales.safetensors")) {
    EXPECT_TRUE(bytes_of(run.folder("packed") / "checkpoint/scales.safetensors") ==
                bytes_of(run.folder("plain") / "checkpoint/scales.safetensors"));
  }
  // The codes are not the base's own numbers.
  ASSERT_EQ(train(run.config("base", {dtype, dropout})), 0);
  EXPECT_NE(metrics_of(run.folder("packed")), metrics_of(run.folder("base")));
}

INSTANTIATE_TEST_SUITE_P(Kinds, PackedBase,
                         ::testing::Values(Case{"shared", "q4_0", "float32"}, Case{"shared", "q4_0", "bfloat16"},
                                           Case{"experts", "q4_0", "bfloat16"}, Case{"shared", "mobile-w4", "float32"},
                                           Case{"shared", "mobile-w4", "bfloat16"}),
                         [](const auto& tested) {
                           return std::string(tested.param.kind) + "_" + std::string(tested.param.plan).substr(0, 2) +
                                  "_" + tested.param.dtype;
                         });

TEST(PackedBaseTest, ResumesBitForBit) {
  const PackedRun run;
  const std::string constant = "optimizer.final_ratio=1", rare = "eval.every_steps=4";
  ASSERT_EQ(train(run.packed("straight", {constant, rare, "steps=4"})), 0);
  ASSERT_EQ(train(run.packed("halves", {constant, rare, "steps=2"})), 0);
  ASSERT_EQ(train(run.packed("halves", {constant, rare, "steps=4"}), true), 0);
  for (const char* file : {"checkpoint/model.safetensors", "adapter/adapter_model.safetensors"}) {
    EXPECT_TRUE(bytes_of(run.folder("straight") / file) == bytes_of(run.folder("halves") / file)) << file;
  }
}

// What merge does: the base packed again, the adapter of the folder in it.
TEST(PackedBaseTest, MergingTheAdapterGivesTheCheckpointsMasters) {
  const PackedRun run;
  ASSERT_EQ(train(run.packed("a")), 0);
  const at::NoGradGuard no_grad;
  const BaseModel base(run.packed("unused"));
  Gemma4Model model(base.config(), at::kFloat, base.without_memory({}, at::kFloat));
  base.fill(model, 0);
  const AdapterFolder folder(run.folder("a") / "adapter", base.table());
  LoraAdapters(base, model, folder.settings(), 0).add(folder);
  FakeQuantSet none;
  CheckpointWriter(base, {{2, 3, 4}}).write(run.folder("merged"), model, none, 0);
  EXPECT_TRUE(bytes_of(run.folder("merged") / "model.safetensors") ==
              bytes_of(run.folder("a") / "checkpoint/model.safetensors"));
  // The base itself is another one.
  const BaseModel plain(run.config("unused"));
  Gemma4Model other(plain.config(), at::kFloat);
  plain.fill(other, 0);
  expect_error([&] { LoraAdapters(plain, other, folder.settings(), 0).add(folder); },
               {"whose weights differ", "packed under the same plan"});
}

TEST(PackedBaseTest, TakesTheMemoryOfItsCodes) {
  for (const char* plan : {"q4_0", "mobile-w4"}) {
    const PackedRun run("shared", plan);
    const BaseModel base(run.packed("unused"));
    std::vector<std::string> all;
    int64_t packed_values = 0, vector_values = 0;
    for (const WeightSpec& weight : base.table().weights()) {
      all.push_back(weight.name);
      if (base.packs(weight)) packed_values += weight.elements();
      if (!is_matrix(weight.role)) vector_values += weight.elements();
    }
    const testing::CountingAllocator counter;
    Gemma4Model model(base.config(), at::kBFloat16, base.without_memory(all, at::kBFloat16));
    base.fill(model, 0);
    // 4 bits a value; a scale of 16 bits for 32 values, or of 32 for a row of 32 and more. The rest stays in the file.
    EXPECT_LE(counter.bytes() - 2 * vector_values, packed_values * 5 / 8) << plan;
    EXPECT_GE(counter.bytes() - 2 * vector_values, packed_values / 2) << plan;
  }
}

TEST(PackedMasterTest, MakesTheDecodedNumbers) {
  SplitMix64 random(3);
  const at::Tensor master = at::empty({6, 64}, at::kBFloat16);
  for (BFloat16& value : values_of<BFloat16>(master)) value = to_bfloat16(static_cast<float>(random.uniform() - 0.5));
  for (const Scheme id : {Scheme::Q4_0, Scheme::Q8_0}) {
    WeightFakeQuantizer quantizer("w", id, {});
    for (const at::ScalarType dtype : {at::kBFloat16, at::kFloat}) {
      const PackedMaster packed(master, id, {}, dtype);
      EXPECT_TRUE(packed.make().equal(quantizer.apply(master).to(dtype)));
      quantizer.changed();
      EXPECT_EQ(packed.make().scalar_type(), dtype);
      EXPECT_EQ(packed.bytes(), 6 * scheme(id).row_bytes(64));
    }
  }
}

TEST(PackedBaseTest, WhatCannotBePackedIsRefused) {
  const PackedRun run;
  const auto refused = [&](const std::vector<std::string>& overrides, std::initializer_list<std::string> parts) {
    expect_error([&] { train(run.packed("a", overrides)); }, parts);
    EXPECT_FALSE(fs::exists(run.folder("a")));
  };
  refused({"lora.rank=0"}, {"lora.base: packed needs lora.rank"});
  refused({"plan=", "kv_cache=none"}, {"lora.base: packed needs a plan"});
  refused({"activation_checkpointing=none"}, {"set activation_checkpointing = layers"});
  refused({"plan=bf16"}, {"the plan \"bf16\" gives it bf16", "use lora.base = bfloat16"});
}

}  // namespace
}  // namespace qat
