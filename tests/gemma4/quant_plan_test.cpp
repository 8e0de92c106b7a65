#include "gemma4/quant_plan.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/json.h"
#include "support/expect_error.h"

namespace qat {
namespace {

using nlohmann::json;
using testing::expect_error;

Gemma4Config tiny_config(int64_t hidden = 256, bool experts = false) {
  json text = {{"model_type", "gemma4_text"},   {"num_hidden_layers", 4},   {"hidden_size", hidden},
               {"num_attention_heads", 4},      {"num_key_value_heads", 2}, {"head_dim", 32},
               {"global_head_dim", 64},         {"intermediate_size", 512}, {"sliding_window", 16},
               {"vocab_size", 512},             {"hidden_size_per_layer_input", 64},
               {"layer_types", {"sliding_attention", "full_attention", "sliding_attention", "full_attention"}}};
  if (experts) {
    text.update({{"enable_moe_block", true}, {"num_experts", 4}, {"top_k_experts", 2}, {"moe_intermediate_size", 32}});
  }
  return Gemma4Config::parse(text, "config.json");
}

TEST(QuantPlan, EveryPlanThatComesAlongResolves) {
  const auto plans = known_plans();
  ASSERT_GE(plans.size(), 8U);
  for (const std::string& name : plans) {
    // Mobile formats know no experts.
    const WeightTable table(tiny_config(256, !name.starts_with("mobile")));
    const ResolvedPlan plan = QuantPlan::load(name).resolve(table);
    EXPECT_EQ(plan.weights.size(), table.weights().size());
    if (name.starts_with("mobile")) continue;
    EXPECT_EQ(plan.of("layers.0.router.proj.weight").scheme == Scheme::Q4_0, false) << name;
  }
}

TEST(QuantPlan, Q4_0IsTheLayoutOfLlamaQuantizePure) {
  const WeightTable table(tiny_config(256, true));
  const ResolvedPlan plan = QuantPlan::load("q4_0").resolve(table);
  EXPECT_EQ(plan.of("embed_tokens.weight").scheme, Scheme::Q4_0);
  EXPECT_EQ(plan.of("embed_tokens_per_layer.weight").scheme, Scheme::Q4_0);
  EXPECT_EQ(plan.of("per_layer_model_projection.weight").scheme, Scheme::BF16);
  EXPECT_EQ(plan.of("layers.0.router.proj.weight").scheme, Scheme::F32);
  EXPECT_EQ(plan.of("layers.0.experts.down_proj").scheme, Scheme::Q4_0);
  EXPECT_EQ(plan.of("layers.0.input_layernorm.weight").scheme, Scheme::F32);
  EXPECT_TRUE(QuantPlan::load("q4_0-google").resolve(table).of("embed_tokens.weight").frozen);
}

TEST(QuantPlan, WhatIsSavedReadsBack) {
  const WeightTable table(tiny_config());
  ResolvedPlan plan = QuantPlan::load("q4_0").resolve(table);
  plan.weights["layers.1.mlp.up_proj.weight"].scales = ScaleSource::Stored;
  plan.key_value_cache = Scheme::Q8_0;
  const auto again = ResolvedPlan::from_json(json::parse(plan.to_json().dump()), table, "quantization.json");
  EXPECT_EQ(again.to_json(), plan.to_json());
  EXPECT_EQ(again.of("layers.1.mlp.up_proj.weight").scales, ScaleSource::Stored);
}

TEST(QuantPlan, RowsThatDoNotDivideAreAnErrorNotAFallback) {
  const WeightTable table(tiny_config(96));
  expect_error([&] { QuantPlan::load("q4_0-google").resolve(table); },
               {"embed_tokens.weight", "96 columns", "multiple of 256", "token_embedding"});
  EXPECT_NO_THROW(QuantPlan::load("q4_0-q8-tables").resolve(table));
}

TEST(QuantPlan, FaultsAreNamed) {
  const auto parse = [](const char* text) {
    return [text] { QuantPlan::parse(json::parse(text), "mine", "mine.json"); };
  };
  expect_error(parse(R"({"weight": {}})"), {"weight", "did you mean \"weights\""});
  expect_error(parse(R"({"weights": {"mlp_upp": "q4_0"}})"), {"mlp_upp", "did you mean \"mlp_up\""});
  expect_error(parse(R"({"weights": {"mlp_up": "q4_1"}})"), {"q4_1", "no such quantization scheme"});
  expect_error(parse(R"({"weights": {"norm": "q4_0"}})"), {"norm", "no such role of matrices"});
  expect_error(parse(R"({"weights": {"mlp_up": {"scheme": "q8_0", "scales": "stored"}}})"), {"no stored scales"});
  expect_error(parse(R"({"weights": {"mlp_up": "q4_0"}, "kv_cache": "q4_0"})"), {"kv_cache"});
  expect_error([] { QuantPlan::load("q4_O"); }, {"did you mean \"q4_0\"", "known plans"});
  const WeightTable table(tiny_config());
  expect_error([&] { QuantPlan::parse(json::parse(R"({"weights": {"mlp_up": "q4_0"}})"), "mine", "x").resolve(table); },
               {"embed_tokens.weight", "no rule for the role \"token_embedding\""});
}

// As E2B: the last layers share keys and have MLPs of twice the width.
WeightTable table_like_e2b(int64_t hidden = 256) {
  json text = {{"model_type", "gemma4_text"},   {"num_hidden_layers", 4},      {"hidden_size", hidden},
               {"num_attention_heads", 4},      {"num_key_value_heads", 2},    {"head_dim", 32},
               {"global_head_dim", 64},         {"intermediate_size", 512},    {"sliding_window", 16},
               {"vocab_size", 512},             {"num_kv_shared_layers", 2},   {"use_double_wide_mlp", true},
               {"hidden_size_per_layer_input", 64},
               {"layer_types", {"sliding_attention", "full_attention", "sliding_attention", "full_attention"}}};
  return WeightTable(Gemma4Config::parse(text, "config.json"));
}

TEST(MobilePlans, DoubleWideLayersOfE2bHaveTwoBitsAndTheOthersFour) {
  const WeightTable table = table_like_e2b();
  for (const char* name : {"mobile-e2b", "mobile-e2b-litert"}) {
    const ResolvedPlan plan = QuantPlan::load(name).resolve(table);
    for (const char* linear : {"gate_proj", "up_proj", "down_proj"}) {
      const std::string weight = ".mlp." + std::string(linear) + ".weight";
      EXPECT_EQ(plan.of("layers.1" + weight).scheme, Scheme::Int4) << name << weight;
      EXPECT_EQ(plan.of("layers.2" + weight).scheme, Scheme::Int2) << name << weight;
    }
    EXPECT_EQ(plan.of("layers.3.self_attn.q_proj.weight").scheme, Scheme::Int4);
    EXPECT_EQ(plan.of("embed_tokens.weight").scheme, Scheme::Int2);
    EXPECT_EQ(plan.of("layers.0.per_layer_input_gate.weight").scheme, Scheme::Int8);
    const WeightPlan& per_layer = plan.of("embed_tokens_per_layer.weight");
    EXPECT_EQ(per_layer.scheme, Scheme::Int4);
    EXPECT_TRUE(per_layer.frozen && per_layer.one_scale_per_row);
    EXPECT_FALSE(per_layer.quantizes_input || per_layer.quantizes_output);
    EXPECT_EQ(plan.key_value_cache, Scheme::Int8);
    EXPECT_TRUE(plan.has_static_scales());
  }
  const std::string projection = "per_layer_model_projection.weight";
  EXPECT_EQ(QuantPlan::load("mobile-e2b").resolve(table).of(projection).scheme, Scheme::BF16);
  EXPECT_FALSE(QuantPlan::load("mobile-e2b").resolve(table).of(projection).quantizes_input);
  EXPECT_EQ(QuantPlan::load("mobile-e2b-litert").resolve(table).of(projection).scheme, Scheme::Int8);
  EXPECT_TRUE(QuantPlan::load("mobile-e2b-litert").resolve(table).of(projection).quantizes_input);
}

TEST(MobilePlans, WhatIsSavedReadsBack) {
  const WeightTable table = table_like_e2b();
  ResolvedPlan plan = QuantPlan::load("mobile-e2b").resolve(table);
  plan.weights["layers.1.mlp.up_proj.weight"].quantizes_output = false;
  const auto again = ResolvedPlan::from_json(json::parse(plan.to_json().dump()), table, "quantization.json");
  EXPECT_EQ(again.to_json(), plan.to_json());
  EXPECT_TRUE(again.of("layers.1.mlp.up_proj.weight").quantizes_input);
  EXPECT_FALSE(again.of("layers.1.mlp.up_proj.weight").quantizes_output);
  EXPECT_TRUE(again.of("layers.1.mlp.gate_proj.weight").quantizes_output);
  EXPECT_EQ(again.of("layers.1.mlp.gate_proj.weight").scales, ScaleSource::Stored);
  EXPECT_TRUE(again.of("embed_tokens_per_layer.weight").one_scale_per_row);
  EXPECT_EQ(again.key_value_cache, Scheme::Int8);
}

TEST(QuantPlan, ReadsBackWhatItWrites) {
  for (const std::string& name : known_plans()) {
    const WeightTable table = name.starts_with("mobile") ? table_like_e2b() : WeightTable(tiny_config(256, true));
    const QuantPlan plan = QuantPlan::load(name);
    const QuantPlan again = QuantPlan::parse(json::parse(plan.to_json().dump()), name, "plan.json");
    EXPECT_EQ(again.resolve(table).to_json(), plan.resolve(table).to_json()) << name;
    EXPECT_EQ(again.about, plan.about);
    EXPECT_EQ(again.to_json(), plan.to_json());
  }
}

TEST(MobilePlans, RowsThatDoNotFillTheirBytesAreAnError) {
  expect_error([] { QuantPlan::load("mobile-e2b").resolve(table_like_e2b(66)); },
               {"66 columns", "int2", "multiple of 4", "token_embedding"});
  EXPECT_NO_THROW(QuantPlan::load("mobile-w4").resolve(table_like_e2b(66)));
  expect_error([] { QuantPlan::load("mobile-w4").resolve(table_like_e2b(65)); }, {"65 columns", "int4", "multiple of 2"});
}

// mobile-w4 with one rule changed.
QuantPlan changed(const char* role, const json& rule) {
  json document = load_json(configs_folder() / "plans" / "mobile-w4.json");
  document["weights"][role] = rule;
  return QuantPlan::parse(document, "mine", "mine.json");
}

TEST(MobilePlans, OnlyLinearsWithIntegerWeightsHaveQuantizedEnds) {
  const WeightTable table = table_like_e2b();
  EXPECT_NO_THROW(changed("mlp_up", {{"scheme", "int8"}}).resolve(table));
  for (const char* role : {"token_embedding", "per_layer_embedding"}) {
    const QuantPlan plan = changed(role, {{"scheme", "int4"}, {"input", "int8"}});
    // "activations" has set the ends of linears only; the rule of a table says it itself.
    EXPECT_TRUE(plan.rules.at(*role_by_name(role)).quantizes_input);
    expect_error([&] { plan.resolve(table); }, {"embed_tokens", "only linears"});
  }
  for (const char* scheme : {"q8_0", "bf16"}) {
    const QuantPlan plan = changed("mlp_up", {{"scheme", scheme}, {"output", "int8"}});
    expect_error([&] { plan.resolve(table); }, {"layers.0.mlp.up_proj.weight", "int2, int4 or int8"});
  }
  // A checkpoint's own file is held to the same.
  auto saved = QuantPlan::load("mobile-w4").resolve(table).to_json();
  saved["weights"]["embed_tokens.weight"]["output"] = "int8";
  expect_error([&] { ResolvedPlan::from_json(json::parse(saved.dump()), table, "quantization.json"); },
               {"quantization.json", "embed_tokens.weight", "only linears"});
}

TEST(MobilePlans, FaultsAreNamed) {
  expect_error([] { changed("mlp_up", "int3"); }, {"int3", "no such quantization scheme"});
  expect_error([] { changed("mlp_up", {{"scheme", "int4"}, {"double_wide", "int3"}}); }, {"int3", "no such quantization scheme"});
  expect_error([] { changed("attention_query", {{"scheme", "int4"}, {"double_wide", "int2"}}); },
               {"attention_query", "double_wide is for mlp_gate"});
  expect_error([] { changed("mlp_up", {{"scheme", "int4"}, {"input", "int4"}}); }, {"mlp_up", "input", "int8, none"});
  expect_error([] { changed("per_layer_embedding", {{"scheme", "int4"}, {"scale_per", "block"}}); }, {"scale_per", "block"});
  json document = load_json(configs_folder() / "plans" / "mobile-w4.json");
  document["activations"] = {{"inputs", "int8"}};
  expect_error([&] { QuantPlan::parse(document, "mine", "mine.json"); }, {"activations.inputs", "no such field"});
  document["activations"] = "int8";
  expect_error([&] { QuantPlan::parse(document, "mine", "mine.json"); }, {"activations", "wanted"});
}

}  // namespace
}  // namespace qat
