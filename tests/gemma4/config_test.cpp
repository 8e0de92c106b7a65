#include "gemma4/config.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "gemma4/weight_table.h"
#include "support/expect_error.h"
#include "support/published_models.h"

namespace qat {
namespace {

using nlohmann::json;
using testing::expect_error;
using testing::gemma4_text;
using testing::published_e2b;

struct KnownModel {
  const char* name;
  json text;
  int64_t parameters;  // gemma4_architecture.md 1.5; Gemma 3 270M: its model.safetensors
  size_t tensors;      // the same, without redundant K and V
};

class KnownModels : public ::testing::TestWithParam<KnownModel> {};

TEST_P(KnownModels, ParameterAndTensorCountsAreThePublishedOnes) {
  const auto config = Gemma4Config::parse(GetParam().text, "config.json");
  const WeightTable table(config);
  EXPECT_EQ(table.elements(), GetParam().parameters);
  EXPECT_EQ(table.weights().size(), GetParam().tensors);
}

std::vector<KnownModel> known_models() {
  return {{"E2B", published_e2b(), 4628569379, 540},
          {"E4B", testing::published_e4b(), 7463013418, 665},
          {"12B", testing::published_12b(), 11907350320, 666},
          {"31B", testing::published_31b(), 30697345340, 832},
          {"26B", testing::published_26b_a4b(), 25233141790, 657},
          {"Gemma3_270M", testing::published_gemma3_270m(), 268098176, 236}};
}
INSTANTIATE_TEST_SUITE_P(Published, KnownModels, ::testing::ValuesIn(known_models()),
                         [](const auto& test) { return test.param.name; });

TEST(Gemma4Config, E2BSharesKeysOfLayers13And14AndIsDoubleWideAbove) {
  const auto config = Gemma4Config::parse(json{{"model_type", "gemma4"}, {"text_config", published_e2b()}}, "config.json");
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
  const auto config = Gemma4Config::parse(published_e2b(), "config.json");
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
  json text = gemma4_text(6, 64, 4, 2, 128, 16, 6);
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
  EXPECT_EQ(WeightTable(config).elements(), 268098176);
}

TEST(Gemma4Config, FaultsAreNamed) {
  const auto with = [](const char* key, json value) {
    json text = published_e2b();
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
  json missing = published_e2b();
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
  const WeightTable table(Gemma4Config::parse(published_e2b(), "config.json"));
  EXPECT_TRUE(table.is_redundant("layers.20.self_attn.k_proj.weight"));
  EXPECT_FALSE(table.is_redundant("layers.2.self_attn.k_proj.weight"));
  EXPECT_TRUE(table.is_redundant("blk.20.attn_k_norm.weight"));
  EXPECT_FALSE(table.is_redundant("blk.2.attn_k_norm.weight"));
  EXPECT_EQ(table.find("layers.20.self_attn.k_proj.weight"), nullptr);
}

}  // namespace
}  // namespace qat
