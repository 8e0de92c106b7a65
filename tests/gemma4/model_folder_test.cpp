#include "gemma4/model_folder.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "core/mapped_file.h"
#include "core/output_file.h"
#include "core/random.h"
#include "gemma4/witness.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace qat {
namespace {

using nlohmann::json;
using testing::expect_error;
using testing::TemporaryFolder;
namespace fs = std::filesystem;

const char* const kConfig = R"({"model_type": "gemma4_text", "num_hidden_layers": 2, "hidden_size": 64,
  "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32, "global_head_dim": 64, "intermediate_size": 128,
  "sliding_window": 16, "vocab_size": 96, "layer_types": ["sliding_attention", "full_attention"]})";

std::vector<BFloat16> random_master(const WeightSpec& weight) {
  SplitMix64 random(std::hash<std::string>()(weight.name));
  std::vector<BFloat16> values(static_cast<size_t>(weight.elements()));
  for (BFloat16& value : values) value = to_bfloat16(static_cast<float>(random.uniform() - 0.5));
  return values;
}

// A base model folder with a tensor of another modality, under a multimodal prefix.
void write_base(const fs::path& folder, const std::string& left_out = "") {
  fs::create_directories(folder);
  write_file(folder / "config.json", kConfig);
  write_file(folder / "tokenizer.json", "{}");
  const WeightTable table(Gemma4Config::load(folder));
  SafetensorsWriter writer(folder / "model.safetensors");
  for (const WeightSpec& weight : table.weights()) {
    if (weight.name != left_out) writer.declare("model.language_model." + weight.name, ElementType::BF16, weight.shape);
  }
  writer.declare("model.vision_tower.patch", ElementType::F32, {2});
  for (const WeightSpec& weight : table.weights()) {
    if (weight.name == left_out) continue;
    const auto values = random_master(weight);
    writer.write(std::as_bytes(std::span(values)));
  }
  const std::array<float, 2> vision{1.5F, -2.5F};
  writer.write(std::as_bytes(std::span(vision)));
  writer.commit();
}

void write_with_plan(const ModelFolder& base, const fs::path& path, const ResolvedPlan& plan,
                     const std::map<std::string, std::span<const Float16>, std::less<>>& scales) {
  CheckpointContents contents;
  contents.base_folder = &base.path();
  contents.base_tensors = &base.tensors();
  contents.table = &base.table();
  contents.plan = &plan;
  contents.stored_scales = scales;
  contents.write_master = [](const WeightSpec& weight, const auto& write) {
    auto values = random_master(weight);
    values[0] = to_bfloat16(7.0F);
    write(values);
  };
  write_checkpoint(path, contents);
}

TEST(Checkpoint, KeepsNamesOtherModalitiesAndSideFiles) {
  TemporaryFolder folder;
  write_base(folder / "base");
  const ModelFolder base(folder / "base");
  EXPECT_EQ(base.masters().prefix(), "model.language_model.");
  EXPECT_FALSE(base.plan());

  const ResolvedPlan plan = QuantPlan::load("q4_0").resolve(base.table());
  write_with_plan(base, folder / "checkpoint", plan, {});
  const ModelFolder checkpoint(folder / "checkpoint");
  EXPECT_EQ(checkpoint.plan()->to_json(), plan.to_json());
  EXPECT_EQ(read_text_file(folder / "checkpoint" / "tokenizer.json"), "{}");
  const TensorView* vision = checkpoint.tensors().find("model.vision_tower.patch");
  ASSERT_NE(vision, nullptr);
  EXPECT_EQ(std::memcmp(vision->bytes.data(), base.tensors().find(vision->name)->bytes.data(), 8), 0);
  for (const WeightSpec& weight : base.table().weights()) {
    auto expected = random_master(weight);
    expected[0] = to_bfloat16(7.0F);
    const TensorView& stored = checkpoint.masters().of(weight);
    ASSERT_EQ(stored.bytes.size(), expected.size() * 2);
    EXPECT_EQ(std::memcmp(stored.bytes.data(), expected.data(), stored.bytes.size()), 0) << weight.name;
  }
}

TEST(Checkpoint, StoredScalesTravelAndAreChecked) {
  TemporaryFolder folder;
  write_base(folder / "base");
  const ModelFolder base(folder / "base");
  ResolvedPlan plan = QuantPlan::load("q4_0").resolve(base.table());
  const std::string name = "layers.0.mlp.up_proj.weight";
  plan.weights[name].scales = ScaleSource::Stored;
  const std::vector<Float16> scales(128 * 64 / 32, to_float16(-0.25F));
  write_with_plan(base, folder / "checkpoint", plan, {{name, scales}});
  const ModelFolder checkpoint(folder / "checkpoint");
  const auto stored = checkpoint.stored_scales(name);
  EXPECT_TRUE(std::equal(stored.begin(), stored.end(), scales.begin(), scales.end()));
  EXPECT_TRUE(checkpoint.stored_scales("layers.1.mlp.up_proj.weight").empty());

  const std::vector<Float16> infinite(scales.size(), Float16{0x7c00});
  write_with_plan(base, folder / "infinite", plan, {{name, infinite}});
  expect_error([&] { ModelFolder bad(folder / "infinite"); }, {name, "not finite"});
  const std::vector<Float16> few(3);
  write_with_plan(base, folder / "few", plan, {{name, few}});
  expect_error([&] { ModelFolder bad(folder / "few"); }, {name, "3", "256"});
  fs::remove(folder / "checkpoint" / "scales.safetensors");
  expect_error([&] { ModelFolder bad(folder / "checkpoint"); }, {name, "scales.safetensors: has no"});
}

TEST(ModelFolder, MissingWeightsAreListed) {
  TemporaryFolder folder;
  write_base(folder / "base", "layers.1.mlp.up_proj.weight");
  expect_error([&] { ModelFolder base(folder / "base"); }, {"layers.1.mlp.up_proj.weight is missing"});
}

TEST(ModelFolder, AConfigThatContradictsTheWeightsIsRefused) {
  TemporaryFolder folder;
  write_base(folder / "base");
  json config = json::parse(kConfig);
  config["intermediate_size"] = 256;
  write_file(folder / "base" / "config.json", config.dump());
  expect_error([&] { ModelFolder base(folder / "base"); }, {"layers.0.mlp.gate_proj.weight", "[128, 64]", "[256, 64]"});
}

TEST(Witness, WhatIsSavedReadsBack) {
  TemporaryFolder folder;
  const std::vector<float> logits{0.5F, 3.0F, -1.0F, 3.0F};
  const WitnessPosition position = witness_position(logits);
  EXPECT_EQ(position.top_tokens, (std::vector<int32_t>{1, 3, 0, 2}));
  EXPECT_NEAR(position.log_sum_exp, std::log(std::exp(0.5) + 2 * std::exp(3.0) + std::exp(-1.0)), 1e-6);

  Witness witness;
  witness.digests["a.weight"] = {"c0", "5c", "ff"};
  witness.prompts.push_back({{2, 1}, {position, position}});
  witness.prompts.push_back({{2}, {position}});
  witness.save(folder / "witness.safetensors");
  const Witness again = Witness::load(folder / "witness.safetensors");
  EXPECT_EQ(again.digests, witness.digests);
  ASSERT_EQ(again.prompts.size(), 2U);
  EXPECT_EQ(again.prompts[0].tokens, witness.prompts[0].tokens);
  EXPECT_EQ(again.prompts[1].positions[0].top_logits, position.top_logits);
  EXPECT_EQ(again.prompts[1].positions[0].log_sum_exp, position.log_sum_exp);

  write_file(folder / "other", "12345678");
  expect_error([&] { Witness::load(folder / "other"); }, {"other"});
}

}  // namespace
}  // namespace qat
