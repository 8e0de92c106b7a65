#include "gemma4/mobile_folder.h"

#include <gtest/gtest.h>

#include <cstring>
#include <limits>

#include "core/output_file.h"
#include "reference/mobile_golden.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace qat {
namespace {

using testing::EditableTensors;
using testing::expect_error;
using testing::replace_text;

const std::string kLayers = "model.language_model.layers.";

class MobileFolderTest : public ::testing::Test {
 protected:
  // Loading the changed golden must fail with all of `parts` in its message.
  void expect_fault(const std::function<void(EditableTensors&, std::string&)>& edit,
                    std::initializer_list<std::string> parts) {
    const auto path = temporary_ / std::to_string(count_++);
    testing::write_changed_golden(path, edit);
    expect_error([&] { MobileFolder folder(path); }, parts);
  }
  void expect_fault_in(const std::string& tensor, const std::function<void(testing::EditableTensor&)>& edit,
                       std::initializer_list<std::string> parts) {
    expect_fault([&](EditableTensors& tensors, std::string&) { edit(tensors.at(tensor)); }, parts);
  }
  MobileWidths widths(const std::string& quantization) {
    const auto path = temporary_ / (std::to_string(count_++) + ".json");
    write_file(path, "{\"quantization_config\": " + quantization + "}");
    return MobileWidths(path);
  }

  testing::TemporaryFolder temporary_;
  int count_ = 0;
};

TEST_F(MobileFolderTest, ReadsTheGolden) {
  EXPECT_TRUE(MobileFolder::is_one(testing::mobile_golden()));
  EXPECT_FALSE(MobileFolder::is_one(testing::mobile_golden() / "nothing"));
  const MobileFolder folder(testing::mobile_golden());
  EXPECT_EQ(folder.prefix(), "model.language_model.");
  EXPECT_FALSE(folder.config().tied_head);
  const auto scheme_of = [&](const char* name) { return folder.weight(name).scheme->id; };
  EXPECT_EQ(scheme_of("embed_tokens.weight"), Scheme::Int2);
  EXPECT_EQ(scheme_of("lm_head.weight"), Scheme::Int2);
  EXPECT_EQ(scheme_of("embed_tokens_per_layer.weight"), Scheme::Int4);
  EXPECT_EQ(scheme_of("per_layer_model_projection.weight"), Scheme::BF16);
  EXPECT_EQ(scheme_of("layers.3.mlp.up_proj.weight"), Scheme::Int4);
  EXPECT_EQ(scheme_of("layers.4.mlp.up_proj.weight"), Scheme::Int2);
  EXPECT_EQ(scheme_of("layers.4.per_layer_projection.weight"), Scheme::Int8);
  EXPECT_EQ(scheme_of("layers.4.self_attn.q_proj.weight"), Scheme::Int4);
  EXPECT_EQ(scheme_of("norm.weight"), Scheme::BF16);
  for (const WeightSpec& spec : folder.table().weights()) {
    const MobileWeight& weight = folder.weight(spec.name);
    EXPECT_EQ(static_cast<int64_t>(weight.bytes.size()), spec.rows() * weight.scheme->row_bytes(spec.columns()));
    EXPECT_EQ(static_cast<int64_t>(weight.scales.size()), weight.scheme->has_row_scales() ? spec.row_scales() : 0);
  }
  const LinearScales query = folder.weight("layers.0.self_attn.q_proj.weight").edges;
  EXPECT_GT(query.input, 0);
  EXPECT_EQ(query.input, folder.weight("layers.0.self_attn.k_proj.weight").edges.input);
  EXPECT_EQ(folder.weight("lm_head.weight").edges, LinearScales{});
  EXPECT_EQ(folder.static_scales().linears.size(), 8 * 7u + 4 * 2u + 1);
  ASSERT_EQ(folder.static_scales().caches.size(), 4u);
  EXPECT_FLOAT_EQ(folder.static_scales().caches.at(3).value, 6.0f / 127);
}

// What transformers itself declares: one scale for all slices of a row.
TEST_F(MobileFolderTest, AScaleMayCoverSeveralSlicesOfATable) {
  const std::string name = "model.language_model.embed_tokens_per_layer.embedding_scale";
  for (const int64_t columns : {1, 2, 4}) {
    const auto path = temporary_ / std::to_string(count_++);
    testing::write_changed_golden(path, [&](EditableTensors& tensors, std::string&) {
      tensors.at(name).shape = {96, columns};
      tensors.at(name).bytes.resize(static_cast<size_t>(96 * columns * 4));
    });
    const MobileFolder folder(path);
    const auto scales = folder.weight("embed_tokens_per_layer.weight").scales;
    float stored[2];
    std::memcpy(stored, folder.tensors().find(name)->bytes.data() + 4 * columns, sizeof(stored));
    ASSERT_EQ(scales.size(), 96 * 8u);
    EXPECT_EQ(scales[8], stored[0]);
    EXPECT_EQ(scales[8 + 8 / static_cast<size_t>(columns) - 1], stored[0]);
    if (columns > 1) {
      EXPECT_EQ(scales[8 + 8 / static_cast<size_t>(columns)], stored[1]);
    }
  }
  expect_fault(
      [&](EditableTensors& tensors, std::string&) {
        tensors.at(name).shape = {96, 3};
        tensors.at(name).bytes.resize(96 * 3 * 4);
      },
      {name + " is F32 [96, 3], wanted F32 [96, 8]"});
}

// The trap: transformers would decode these to garbage without a word.
TEST_F(MobileFolderTest, AWidthThatContradictsThePatternsIsAnError) {
  expect_fault([](EditableTensors&, std::string& config) { replace_text(config, "([0-3])", "([0-2])"); },
               {"3 faults", kLayers + "3.mlp.up_proj.weight is U8 [40, 16]", "wanted U8 [40, 8]",
                "layers\\.\\d+\\.mlp\\.", "2 bits"});
  // Removed from the list, the rule of all widths that are left gives other ones.
  expect_fault(
      [](EditableTensors&, std::string& config) { replace_text(config, "\"vision_tower\": {", "\"m\": {"); },
      {"embed_tokens.embedding_quantized is U8 [96, 8], wanted I8 [96, 32]", "the pattern \"m\" gives 8 bits"});
  expect_fault(
      [](EditableTensors&, std::string& config) {
        replace_text(config, "\"per_layer_model_projection\"", "\"per_layer_model_projections\"");
      },
      {"per_layer_model_projection.weight is BF16 [64, 32], wanted U8 [64, 16]", "num_bits is 4 by default"});
  expect_fault([](EditableTensors&, std::string& config) { replace_text(config, "\"relative_k_proj\"", "\"q_proj\""); },
               {"self_attn.q_proj.weight is U8", "wanted BF16 [64, 32]", "modules_to_not_convert has \"q_proj\""});
}

TEST_F(MobileFolderTest, WrongTensorsAreNamed) {
  const std::string query = kLayers + "0.self_attn.q_proj.";
  expect_fault_in(query + "weight",
                  [](auto& tensor) {
                    tensor.shape = {32, 32};
                  },
                  {query + "weight is U8 [32, 32], wanted U8 [64, 16]"});
  expect_fault_in(query + "weight", [](auto& tensor) { tensor.type = ElementType::I8; },
                  {query + "weight is I8 [64, 16], wanted U8 [64, 16]"});
  expect_fault([&](EditableTensors& tensors, std::string&) { tensors.erase(query + "weight_scale"); },
               {query + "weight_scale is missing, wanted F32 [64, 1]"});
  expect_fault([&](EditableTensors& tensors, std::string&) { tensors.erase(query + "output_activation_scale"); },
               {query + "output_activation_scale is missing"});
  expect_fault([](EditableTensors& tensors, std::string&) { tensors.erase(kLayers + "0.input_layernorm.weight"); },
               {"input_layernorm.weight is missing"});
  expect_fault([](EditableTensors& tensors, std::string&) { tensors.erase("lm_head.weight"); },
               {"lm_head.weight is missing"});
  expect_fault([](EditableTensors& tensors, std::string&) { tensors.erase("model.language_model.norm.weight"); },
               {"no tensor is named embed_tokens.embedding_quantized beside a norm.weight"});
}

TEST_F(MobileFolderTest, WrongScalesAreNamed) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  const std::string down = kLayers + "2.mlp.down_proj.";
  for (const float wrong : {0.0f, -0.5f, kNan, std::numeric_limits<float>::infinity(), 1e-40f}) {
    expect_fault_in(down + "weight_scale", [&](auto& tensor) { tensor.set_float(7, wrong); },
                    {down + "weight_scale has ", " at 7, wanted positive numbers"});
  }
  expect_fault_in("model.language_model.embed_tokens_per_layer.embedding_scale",
                  [&](auto& tensor) { tensor.set_float(95 * 8 + 3, 0); },
                  {"embed_tokens_per_layer.embedding_scale has 0 at 763"});
  for (const float wrong : {-0.5f, kNan}) {
    expect_fault_in(down + "input_activation_scale", [&](auto& tensor) { tensor.set_float(0, wrong); },
                    {down + "input_activation_scale is ", "wanted 0 (not calibrated) or a positive number"});
  }
  expect_fault_in(kLayers + "1.self_attn.k_cache_scale", [&](auto& tensor) { tensor.set_float(0, kNan); },
                  {"1.self_attn.k_cache_scale is nan"});
}

// Layers 4 to 7 read the keys and values of layers 2 and 3.
TEST_F(MobileFolderTest, ASharedLayerWithoutItsDonorsCacheIsAnError) {
  expect_fault([](EditableTensors& tensors, std::string&) { tensors.erase(kLayers + "3.self_attn.k_cache_scale"); },
               {kLayers + "3.self_attn.k_cache_scale is missing"});
}

TEST_F(MobileFolderTest, OddWidthsAreErrors) {
  // 42 values do not fill the bytes of layer 4's 2-bit rows.
  expect_fault(
      [](EditableTensors&, std::string& config) {
        replace_text(config, "\"intermediate_size\": 40", "\"intermediate_size\": 21");
      },
      {"layers.3.mlp.down_proj.weight has rows of 21 values, wanted a multiple of 2",
       "layers.4.mlp.down_proj.weight has rows of 42 values, wanted a multiple of 4"});
}

TEST_F(MobileFolderTest, AFileCutAnywhereIsAnError) {
  const auto path = temporary_ / "cut";
  testing::write_changed_golden(path, [](EditableTensors&, std::string&) {});
  const auto file = path / "model.safetensors";
  const auto size = std::filesystem::file_size(file);
  for (const uintmax_t left : {size - 1, size / 2, uintmax_t{9}, uintmax_t{3}, uintmax_t{0}}) {
    std::filesystem::resize_file(file, left);
    expect_error([&] { MobileFolder folder(path); }, {"model.safetensors"});
  }
}

TEST_F(MobileFolderTest, ATiedHeadIsAnError) {
  expect_fault(
      [](EditableTensors&, std::string& config) {
        for (int i = 0; i < 2; ++i)
          replace_text(config, "\"tie_word_embeddings\": false", "\"tie_word_embeddings\": true");
      },
      {"tie_word_embeddings is true"});
}

TEST_F(MobileFolderTest, TheLeftmostMatchGivesTheWidth) {
  const MobileWidths found = widths(R"({"quant_method": "gemma", "num_bits": 8, "quantize_embeddings": true,
      "module_quant_configs": {"z_proj": {"num_bits": 2}, "mlp": {"num_bits": 4}, "layers\\.1\\.": {"num_bits": 2},
                               "layers": {}, "^head$": {"num_bits": 4}}})");
  EXPECT_EQ(found.of("x.mlp.z_proj", false).bits, 4);
  EXPECT_EQ(found.of("x.z_proj.mlp", false).bits, 2);
  EXPECT_EQ(found.of("model.layers.1.mlp.z_proj", false).bits, 2);
  EXPECT_EQ(found.of("model.layers.11.mlp.z_proj", false).bits, 8);
  EXPECT_EQ(found.of("head", false).bits, 4);
  EXPECT_EQ(found.of("a.head", true).bits, 8);
  EXPECT_EQ(found.of("lm_head", false).bits, 0);
}

TEST_F(MobileFolderTest, ExclusionsMatchFromTheStartOrAtTheEnd) {
  const MobileWidths found = widths(R"json({"quant_method": "gemma",
      "modules_to_not_convert": ["model.tower", "layers.*.gate", "last_proj", "^audio(?!.*keep)"]})json");
  const auto bits = [&](const char* module) { return found.of(module, false).bits; };
  EXPECT_EQ(bits("model.tower"), 0);
  EXPECT_EQ(bits("model.tower.linear"), 0);
  EXPECT_EQ(bits("model.tower2.linear"), 4);
  EXPECT_EQ(bits("a.model.tower"), 0);
  EXPECT_EQ(bits("layers.3.gate.linear"), 0);
  EXPECT_EQ(bits("layers.3.gate_proj"), 4);
  EXPECT_EQ(bits("x.layers.3.gate.linear"), 4);
  EXPECT_EQ(bits("a.b.last_proj"), 0);
  EXPECT_EQ(bits("lm_head"), 4);
  EXPECT_EQ(bits("audio.x"), 0);
  EXPECT_EQ(found.of("model.embed", true).bits, 0);
}

TEST_F(MobileFolderTest, WrongQuantizationConfigsAreErrors) {
  expect_error([&] { widths(R"("x")"); }, {"quantization_config is missing"});
  expect_error([&] { widths(R"({"quant_method": "awq"})"); }, {"quant_method is \"awq\", wanted \"gemma\""});
  expect_error([&] { widths(R"({"quant_method": "gemma", "num_bits": 3})"); }, {"num_bits is 3, wanted 2, 4 or 8"});
  expect_error([&] { widths(R"({"quant_method": "gemma", "module_quant_configs": {"a(": {"num_bits": 4}}})"); },
               {"\"a(\" is no regular expression"});
  expect_error([&] { widths(R"({"quant_method": "gemma", "module_quant_configs": {"a": {"num_bits": 5}}})"); },
               {"module_quant_configs[\"a\"]: num_bits is 5"});
  expect_error([&] { widths(R"({"quant_method": "gemma", "modules_to_not_convert": [1]})"); }, {"has 1, wanted names"});
  expect_error([&] { widths(R"({"quant_method": "gemma", "quantize_embeddings": 1})"); }, {"wanted true or false"});
}

}  // namespace
}  // namespace qat
