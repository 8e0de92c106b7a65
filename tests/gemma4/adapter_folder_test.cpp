#include "gemma4/adapter_folder.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/float_types.h"
#include "core/json.h"
#include "core/mapped_file.h"
#include "core/output_file.h"
#include "core/random.h"
#include "io/safetensors.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"
#include "support/tiny_model_folder.h"

namespace qat {
namespace {

using nlohmann::json;
using testing::expect_error;
using testing::TemporaryFolder;
namespace fs = std::filesystem;

constexpr int64_t kRank = 3;
const char* const kQuery = "layers.1.self_attn.q_proj.weight";
const char* const kDown = "layers.0.mlp.down_proj.weight";

WeightTable tiny_table() { return WeightTable(Gemma4Config::parse(json::parse(testing::kTinyConfig), "tiny")); }

std::vector<float> random_values(SplitMix64& random, int64_t count) {
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = static_cast<float>(random.uniform() - 0.5);
  return values;
}

// An adapter of two weights, in a folder.
struct SmallAdapter {
  SmallAdapter() {
    SplitMix64 random(11);
    contents.settings = {kRank, 7.5, 0.25, true};
    contents.base_name = "some/base";
    contents.base_digest = "abc";
    for (const char* name : {kQuery, kDown}) {
      const WeightSpec& weight = *table.find(name);
      a.push_back(random_values(random, kRank * weight.columns()));
      b.push_back(random_values(random, weight.rows() * kRank));
      contents.changes.push_back(
          {"model." + weight.module_name(), weight.rows(), weight.columns(), a.back(), b.back()});
    }
    write_adapter(path(), contents);
  }

  fs::path path() const { return folder / "adapter"; }
  AdapterFolder load() const { return AdapterFolder(path(), table); }

  void change_config(const std::function<void(json&)>& change) const {
    json config = load_json(path() / "adapter_config.json");
    change(config);
    write_file(path() / "adapter_config.json", config.dump());
  }

  TemporaryFolder folder;
  WeightTable table = tiny_table();
  AdapterContents contents;
  std::vector<std::vector<float>> a, b;
};

// Writes an adapter file of zeros by hand.
struct NamedTensor {
  std::string name;
  std::vector<int64_t> shape;
  ElementType type = ElementType::F32;
};
void write_tensors(const fs::path& file, const std::vector<NamedTensor>& tensors) {
  SafetensorsWriter writer(file);
  int64_t bytes = 0;
  for (const NamedTensor& tensor : tensors) {
    writer.declare(tensor.name, tensor.type, tensor.shape);
    int64_t count = element_bytes(tensor.type);
    for (const int64_t size : tensor.shape) count *= size;
    bytes += count;
  }
  writer.write(std::vector<std::byte>(static_cast<size_t>(bytes)));
  writer.commit();
}

TEST(AdapterFolderTest, ComesBackAsItWasWritten) {
  const SmallAdapter adapter;
  const AdapterFolder loaded = adapter.load();
  EXPECT_EQ(loaded.settings().rank, kRank);
  EXPECT_EQ(loaded.settings().alpha, 7.5);
  EXPECT_EQ(loaded.settings().dropout, 0.25);
  EXPECT_TRUE(loaded.settings().rank_stabilized);
  EXPECT_EQ(loaded.base_name(), "some/base");
  EXPECT_EQ(loaded.base_digest(), "abc");
  ASSERT_EQ(loaded.changes().size(), 2U);
  // In the table's order, not the file's.
  EXPECT_EQ(loaded.changes()[0].weight.name, kDown);
  EXPECT_EQ(loaded.changes()[0].a, adapter.a[1]);
  EXPECT_EQ(loaded.changes()[0].b, adapter.b[1]);
  EXPECT_EQ(loaded.changes()[1].weight.name, kQuery);
  EXPECT_EQ(loaded.changes()[1].a, adapter.a[0]);
  EXPECT_EQ(loaded.changes()[1].b, adapter.b[0]);
}

TEST(AdapterFolderTest, SaysWhatPeftWantsToRead) {
  const SmallAdapter adapter;
  const json config = load_json(adapter.path() / "adapter_config.json");
  const json wanted = {{"peft_type", "LORA"},
                       {"task_type", "CAUSAL_LM"},
                       {"base_model_name_or_path", "some/base"},
                       {"r", 3},
                       {"lora_alpha", 7.5},
                       {"lora_dropout", 0.25},
                       {"use_rslora", true},
                       {"target_modules", {"model.layers.1.self_attn.q_proj", "model.layers.0.mlp.down_proj"}},
                       {"bias", "none"},
                       {"fan_in_fan_out", false},
                       {"inference_mode", true}};
  EXPECT_EQ(config, wanted);
  const SafetensorsSource source(adapter.path() / "adapter_model.safetensors");
  const TensorView* a = source.find("base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight");
  const TensorView* b = source.find("base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight");
  ASSERT_TRUE(a != nullptr && b != nullptr);
  EXPECT_EQ(a->shape, (std::vector<int64_t>{kRank, adapter.table.find(kQuery)->columns()}));
  EXPECT_EQ(b->shape, (std::vector<int64_t>{adapter.table.find(kQuery)->rows(), kRank}));
}

TEST(AdapterFolderTest, ScalingIsThatOfThePapers) {
  EXPECT_EQ((AdapterSettings{8, 16, 0, false}).scaling(), 2.0F);
  EXPECT_EQ((AdapterSettings{16, 2, 0, true}).scaling(), 0.5F);
}

// Adapters of text models and of the multimodal wrapper, in any floating-point type; matrices of layers that share
// another one's keys are of no use and are passed over.
TEST(AdapterFolderTest, ReadsOtherPrefixesAndTypes) {
  const SmallAdapter adapter;
  const auto rows = adapter.table.find(kQuery)->rows();
  for (const std::string prefix : {"model.language_model.", "language_model.model.", "model.", ""}) {
    for (const ElementType type : {ElementType::BF16, ElementType::F16}) {
      const std::string layers = "base_model.model." + prefix + "layers.";
      write_tensors(adapter.path() / "adapter_model.safetensors",
                    {{layers + "1.self_attn.q_proj.lora_A.weight", {kRank, 64}, type},
                     {layers + "1.self_attn.q_proj.lora_B.weight", {rows, kRank}, type},
                     {layers + "3.self_attn.k_proj.lora_A.weight", {kRank, 64}, type},
                     {layers + "3.self_attn.k_proj.lora_B.weight", {64, kRank}, type}});
      const AdapterFolder loaded = adapter.load();
      ASSERT_EQ(loaded.changes().size(), 1U) << prefix;
      EXPECT_EQ(loaded.changes()[0].weight.name, kQuery);
      EXPECT_EQ(loaded.base_digest(), "");
    }
  }
}

TEST(AdapterFolderTest, SixteenBitValuesAreWidenedExactly) {
  const SmallAdapter adapter;
  const WeightSpec& weight = *adapter.table.find(kQuery);
  SafetensorsWriter writer(adapter.path() / "adapter_model.safetensors");
  const std::string module = "base_model.model.model.layers.1.self_attn.q_proj";
  writer.declare(module + ".lora_A.weight", ElementType::BF16, {kRank, weight.columns()});
  writer.declare(module + ".lora_B.weight", ElementType::F16, {weight.rows(), kRank});
  std::vector<BFloat16> a;
  std::vector<Float16> b;
  for (const float value : adapter.a[0]) a.push_back(to_bfloat16(value));
  for (const float value : adapter.b[0]) b.push_back(to_float16(value));
  writer.write(std::as_bytes(std::span(a)));
  writer.write(std::as_bytes(std::span(b)));
  writer.commit();
  const AdapterFolder loaded = adapter.load();
  for (size_t i = 0; i < a.size(); ++i) ASSERT_EQ(loaded.changes()[0].a[i], to_float(a[i]));
  for (size_t i = 0; i < b.size(); ++i) ASSERT_EQ(loaded.changes()[0].b[i], to_float(b[i]));
}

TEST(AdapterFolderTest, AnAdapterOfAnotherModelIsAnErrorThatListsFaults) {
  const SmallAdapter adapter;
  const std::string layers = "base_model.model.model.layers.";
  write_tensors(adapter.path() / "adapter_model.safetensors",
                {{layers + "1.self_attn.q_proj.lora_A.weight", {kRank, 96}},
                 {layers + "1.self_attn.q_proj.lora_B.weight", {64, kRank + 1}},
                 {layers + "40.mlp.up_proj.lora_A.weight", {kRank, 64}},
                 {layers + "0.mlp.up_proj.lora_A.weight", {kRank, 64}},
                 {layers + "0.mlp.gate_proj.lora_B.weight", {96, kRank}, ElementType::I32},
                 {layers + "0.mlp.gate_proj.lora_embedding_A", {kRank, 64}},
                 {"base_model.model.model.embed_tokens.lora_A.weight", {kRank, 64}},
                 {"base_model.model.model.embed_tokens.lora_B.weight", {576, kRank}}});
  expect_error(
      [&] { adapter.load(); },
      {"does not fit the model", "some/base", "A of layers.1.self_attn.q_proj.weight has shape [3, 96], wanted [3, 64]",
       "B of layers.1.self_attn.q_proj.weight has shape [64, 4]", "layers.40.mlp.up_proj is no module of the model",
       "B of layers.0.mlp.up_proj.weight is missing", "has type I32", "lora_embedding_A is no matrix A or B",
       "embed_tokens.weight is no matrix that can have an adapter"});
  write_tensors(adapter.path() / "adapter_model.safetensors", {});
  expect_error([&] { adapter.load(); }, {"holds no matrices"});
}

TEST(AdapterFolderTest, OneWeightUnderTwoNamesIsAnError) {
  const SmallAdapter adapter;
  write_tensors(adapter.path() / "adapter_model.safetensors",
                {{"base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight", {kRank, 64}},
                 {"base_model.model.layers.1.self_attn.q_proj.lora_A.weight", {kRank, 64}}});
  expect_error([&] { adapter.load(); }, {"comes twice"});
}

TEST(AdapterFolderTest, MoreThanPlainLoraIsRefusedByName) {
  const std::vector<std::pair<json, std::vector<std::string>>> cases{
      {{{"peft_type", "LOHA"}}, {"peft_type is \"LOHA\", wanted \"LORA\""}},
      {{{"use_dora", true}}, {"use_dora is true"}},
      {{{"fan_in_fan_out", true}}, {"fan_in_fan_out is true"}},
      {{{"modules_to_save", {"lm_head"}}}, {"modules_to_save is [\"lm_head\"]"}},
      {{{"rank_pattern", {{"q_proj", 4}}}}, {"rank_pattern is"}},
      {{{"bias", "all"}}, {"bias is \"all\""}},
      {{{"r", 0}}, {"r is 0, wanted 1 or more"}},
      {{{"r", "3"}}, {"r is \"3\""}},
      {{{"lora_alpha", -1}}, {"lora_alpha is -1"}},
      {{{"lora_alpha", 1e300}}, {"lora_alpha is 1e+300"}},
      {{{"lora_alpha", nullptr}}, {"lora_alpha is null"}},
  };
  for (const auto& [change, parts] : cases) {
    SCOPED_TRACE(change.dump());
    const SmallAdapter adapter;
    adapter.change_config([&](json& config) { config.update(change); });
    expect_error([&] { adapter.load(); }, {"adapter_config.json", parts.front()});
  }
  const SmallAdapter adapter;
  adapter.change_config([](json& config) {
    config.update({{"use_dora", false}, {"modules_to_save", nullptr}, {"rank_pattern", json::object()}});
  });
  EXPECT_EQ(adapter.load().changes().size(), 2U);
}

TEST(AdapterFolderTest, DamagedFoldersAreNamed) {
  const SmallAdapter adapter;
  const fs::path file = adapter.path() / "adapter_model.safetensors";
  const std::string whole = read_text_file(file);
  write_file(file, whole.substr(0, whole.size() - 5));
  expect_error([&] { adapter.load(); }, {"adapter_model.safetensors"});
  std::string infinite = whole;
  const float value = std::numeric_limits<float>::infinity();
  std::memcpy(infinite.data() + infinite.size() - sizeof(value), &value, sizeof(value));
  write_file(file, infinite);
  expect_error([&] { adapter.load(); }, {"NaN or infinite"});
  write_file(adapter.path() / "adapter_config.json", "[1]");
  expect_error([&] { adapter.load(); }, {"is not a JSON object"});
  write_file(adapter.path() / "adapter_config.json", "{");
  expect_error([&] { adapter.load(); }, {"adapter_config.json"});
  fs::remove(adapter.path() / "adapter_config.json");
  expect_error([&] { adapter.load(); }, {"is no adapter folder in PEFT's format: it has no adapter_config.json"});
}

}  // namespace
}  // namespace qat
