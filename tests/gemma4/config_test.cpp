#include "gemma4/config.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "gemma4/weight_table.h"
#include "support/expect_error.h"

namespace qat {
namespace {

using nlohmann::json;
using testing::expect_error;

json layer_types(int64_t count, int64_t period) {
  json types = json::array();
  for (int64_t i = 0; i < count; ++i) types.push_back((i + 1) % period == 0 ? "full_attention" : "sliding_attention");
  return types;
}

json base(int64_t layers, int64_t hidden, int64_t heads, int64_t kv, int64_t intermediate, int64_t window, int64_t period) {
  return {{"model_type", "gemma4_text"},      {"num_hidden_layers", layers},     {"hidden_size", hidden},
          {"num_attention_heads", heads},     {"num_key_value_heads", kv},       {"head_dim", 256},
          {"global_head_dim", 512},           {"intermediate_size", intermediate}, {"sliding_window", window},
          {"vocab_size", 262144},             {"final_logit_softcapping", 30.0}, {"layer_types", layer_types(layers, period)}};
}

json e2b() {
  json text = base(35, 1536, 8, 1, 6144, 512, 5);
  text.update({{"hidden_size_per_layer_input", 256}, {"num_kv_shared_layers", 20}, {"use_double_wide_mlp", true}});
  return text;
}

int64_t parameters(const Gemma4Config& config) {
  int64_t total = 0;
  const WeightTable table(config);
  for (const WeightSpec& weight : table.weights()) total += weight.elements();
  return total;
}

struct KnownModel {
  const char* name;
  json text;
  int64_t parameters;  // gemma4_architecture.md 1.5
  size_t tensors;      // the same, without redundant K and V
};

class KnownModels : public ::testing::TestWithParam<KnownModel> {};

TEST_P(KnownModels, ParameterAndTensorCountsAreThePublishedOnes) {
  const auto config = Gemma4Config::parse(GetParam().text, "config.json");
  EXPECT_EQ(parameters(config), GetParam().parameters);
  EXPECT_EQ(WeightTable(config).weights().size(), GetParam().tensors);
}

std::vector<KnownModel> known_models() {
  json e4b = base(42, 2560, 8, 2, 10240, 512, 6);
  e4b.update({{"hidden_size_per_layer_input", 256}, {"num_kv_shared_layers", 18}});
  json b12 = base(48, 3840, 16, 8, 15360, 1024, 6);
  b12.update({{"attention_k_eq_v", true}, {"num_global_key_value_heads", 1}});
  json b31 = base(60, 5376, 32, 16, 21504, 1024, 6);
  b31.update({{"attention_k_eq_v", true}, {"num_global_key_value_heads", 4}});
  json b26 = base(30, 2816, 16, 8, 2112, 1024, 6);
  b26.update({{"attention_k_eq_v", true}, {"num_global_key_value_heads", 2}, {"enable_moe_block", true}, {"num_experts", 128},
              {"top_k_experts", 8}, {"moe_intermediate_size", 704}});
  return {{"E2B", e2b(), 4628569379, 540},
          {"E4B", e4b, 7463013418, 665},
          {"12B", b12, 11907350320, 666},
          {"31B", b31, 30697345340, 832},
          {"26B", b26, 25233141790, 657}};
}
INSTANTIATE_TEST_SUITE_P(Published, KnownModels, ::testing::ValuesIn(known_models()),
                         [](const auto& test) { return test.param.name; });

TEST(Gemma4Config, E2BSharesKeysOfLayers13And14AndIsDoubleWideAbove) {
  const auto config = Gemma4Config::parse(json{{"model_type", "gemma4"}, {"text_config", e2b()}}, "config.json");
  EXPECT_EQ(config.layers[15].key_value_donor, 13);
  EXPECT_EQ(config.layers[19].key_value_donor, 14);
  EXPECT_EQ(config.layers[14].key_value_donor, std::nullopt);
  EXPECT_EQ(config.layers[14].intermediate_size, 6144);
  EXPECT_EQ(config.layers[15].intermediate_size, 12288);
  EXPECT_EQ(config.layers[4].head_dim, 512);
  EXPECT_EQ(config.layers[4].window, 0);
  EXPECT_EQ(config.layers[3].window, 512);
}

// gemma4_architecture.md 2.6.
TEST(Gemma4Config, FrequenciesAreThoseOfTheArchitecture) {
  const auto config = Gemma4Config::parse(e2b(), "config.json");
  const auto sliding = config.layers[0].rope.frequencies();
  EXPECT_FLOAT_EQ(sliding[1], 0.930572041F);
  EXPECT_FLOAT_EQ(sliding[64], 0.01F);
  EXPECT_FLOAT_EQ(sliding[127], 1.07460783e-4F);
  const auto full = config.layers[4].rope.frequencies();
  ASSERT_EQ(full.size(), 256U);
  EXPECT_FLOAT_EQ(full[1], 0.947463526F);
  EXPECT_FLOAT_EQ(full[63], 0.033376247F);
  EXPECT_EQ(full[64], 0.0F);
}

TEST(Gemma4Config, BothSpellingsOfPerLayerFactsAgreeAndContradictionsAreRefused) {
  json text = base(6, 64, 4, 2, 128, 16, 6);
  text.update({{"attention_k_eq_v", true}, {"num_global_key_value_heads", 1}});
  const auto old_form = Gemma4Config::parse(text, "config.json");

  json newer = text;
  newer.erase("global_head_dim");
  newer.erase("num_global_key_value_heads");
  newer["per_layer_config"] = {{"05", {{"head_dim", 512}, {"num_key_value_heads", 1}}}};
  const auto new_form = Gemma4Config::parse(newer, "config.json");
  EXPECT_EQ(new_form.layers[5].head_dim, old_form.layers[5].head_dim);
  EXPECT_EQ(new_form.layers[5].key_value_heads, old_form.layers[5].key_value_heads);

  json both = text;
  both["per_layer_config"] = {{"5", {{"head_dim", 128}}}};
  expect_error([&] { Gemma4Config::parse(both, "config.json"); }, {"layer 5", "128", "512", "global_head_dim"});
}

TEST(Gemma4Config, Gemma3IsTheSameDescriptionWithOtherFacts) {
  const json text = {{"model_type", "gemma3_text"}, {"num_hidden_layers", 18}, {"hidden_size", 640},
                     {"num_attention_heads", 4},    {"num_key_value_heads", 1}, {"head_dim", 256},
                     {"intermediate_size", 2048},   {"sliding_window", 512},    {"vocab_size", 262144},
                     {"query_pre_attn_scalar", 256}, {"rope_theta", 1e6},       {"rope_local_base_freq", 1e4},
                     {"final_logit_softcapping", nullptr}};
  const auto config = Gemma4Config::parse(text, "config.json");
  EXPECT_EQ(config.architecture(), "gemma3");
  EXPECT_EQ(config.norm_offset, 1);
  EXPECT_DOUBLE_EQ(config.attention_scale, 1.0 / 16);
  EXPECT_EQ(config.final_logit_softcap, 0);
  EXPECT_FALSE(config.value_norm);
  EXPECT_EQ(config.layers[5].type, LayerType::Full);
  EXPECT_EQ(config.layers[5].rope.rotated_pairs, 128);
  EXPECT_EQ(config.layers[0].rope.theta, 1e4);
  EXPECT_EQ(parameters(config), 268098176);
}

TEST(Gemma4Config, FaultsAreNamed) {
  const auto with = [](const char* key, json value) {
    json text = e2b();
    text[key] = std::move(value);
    return text;
  };
  const auto parse = [](const json& text) { return [text] { Gemma4Config::parse(text, "config.json"); }; };
  expect_error(parse(with("model_type", "llama")), {"llama", "not supported", "gemma4"});
  expect_error(parse(with("hidden_size", -5)), {"hidden_size", "-5"});
  expect_error(parse(with("hidden_size", 1e30)), {"hidden_size"});
  expect_error(parse(with("num_hidden_layers", 34)), {"layer_types"});
  expect_error(parse(with("num_kv_shared_layers", 35)), {"num_kv_shared_layers"});
  expect_error(parse(with("num_kv_shared_layers", 33)), {"no earlier layer"});
  expect_error(parse(with("num_key_value_heads", 3)), {"do not divide"});
  expect_error(parse(with("use_bidirectional_attention", "all")), {"use_bidirectional_attention"});
  json missing = e2b();
  missing.erase("hidden_size");
  expect_error(parse(missing), {"hidden_size is missing"});
}

TEST(WeightTable, NamesGoBothWaysAndAreUnique) {
  for (const KnownModel& model : known_models()) {
    const WeightTable table(Gemma4Config::parse(model.text, "config.json"));
    for (const WeightSpec& weight : table.weights()) {
      EXPECT_EQ(table.find(weight.name), &weight);
      EXPECT_EQ(table.find_gguf(weight.gguf_name), &weight);
    }
  }
  const WeightTable table(Gemma4Config::parse(e2b(), "config.json"));
  EXPECT_TRUE(table.is_redundant("layers.20.self_attn.k_proj.weight"));
  EXPECT_FALSE(table.is_redundant("layers.2.self_attn.k_proj.weight"));
  EXPECT_EQ(table.find("layers.20.self_attn.k_proj.weight"), nullptr);
}

}  // namespace
}  // namespace qat
