#include "gemma4/quant_plan.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

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

}  // namespace
}  // namespace qat
