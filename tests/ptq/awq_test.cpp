// AWQ: what it folds leaves the function as it was, what it cannot fold is named and rounded, and scales pay where few
// channels are large.
#include "ptq/awq.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include <set>

#include "fake_quant/block_values.h"
#include "ptq/input_statistics.h"
#include "ptq/on_grid.h"
#include "ptq/quantize_layers.h"
#include "support/tiny_model_folder.h"

namespace qat {
namespace {

// "gemma3": norms multiply by 1 + weight, values pass no norm, and every query head has values of its own.
Gemma4Config config_of(const std::string& kind) {
  if (kind != "gemma3") return testing::tiny_config_of_kind(kind);
  Gemma4Config config = testing::tiny_config_of_kind("dense");
  config.family = Family::Gemma3;
  config.norm_offset = 1;
  config.value_norm = false;
  config.has_layer_scalar = false;
  for (LayerConfig& layer : config.layers) layer.key_value_heads = layer.heads;
  return config;
}

struct TinyModel {
  explicit TinyModel(const std::string& kind) : model(config_of(kind), at::kFloat) {
    initialize_weights(model, 5);
    for (const WeightSpec& weight : model.weights().weights()) {
      at::Tensor values = model.parameter(weight.name);
      if (weight.role == WeightRole::Norm) values.add_(at::rand(values.sizes(), at::kFloat) - 0.5);
      values.copy_(values.to(at::kBFloat16));
      before.emplace(weight.name, values.clone());
    }
  }
  std::vector<LinearInput> inputs(int64_t layer) const {
    return inputs_of_layer(model, layer, [&](const WeightSpec& weight) { return !frozen.contains(weight.name); });
  }
  at::Tensor logits(const PackedTokens& batch) const { return model.logits(model.hidden_states(batch)); }

  at::NoGradGuard no_grad;
  Gemma4Model model;
  std::map<std::string, at::Tensor> before;
  std::set<std::string> frozen;
};

PackedTokens batch_for(const Gemma4Model& model) {
  return PackedTokens::single(at::randint(1, model.config().vocabulary_size, {96}, at::kLong));
}

// By name of the reader; "" where nothing is in the way.
std::map<std::string, std::string> obstacles_of(const std::vector<LinearInput>& inputs) {
  std::map<std::string, std::string> obstacles;
  for (const LinearInput& input : inputs) {
    for (const WeightSpec* reader : input.readers) {
      obstacles.emplace(reader->name.substr(reader->name.find('.', 7) + 1), input.obstacle);
    }
  }
  return obstacles;
}

class Folding : public ::testing::TestWithParam<const char*> {};

TEST_P(Folding, LeavesTheFunctionAsItWasBeforeAnythingIsRounded) {
  TinyModel tiny(GetParam());
  const PackedTokens batch = batch_for(tiny.model);
  const at::Tensor wanted = tiny.logits(batch);
  std::map<std::string, LinearScaling> linears;
  size_t folded_norms = 0;
  for (int64_t layer = 0; layer < tiny.model.config().layer_count(); ++layer) {
    for (const LinearInput& input : tiny.inputs(layer)) {
      if (!input.obstacle.empty()) continue;
      at::Tensor scales = (at::randn({input.readers.front()->columns()}, at::kFloat)).exp();
      scales[3] = 1;
      fold_scales(tiny.model, input, scales, linears);
      if (input.norm == nullptr) continue;
      ++folded_norms;
      const at::Tensor norm = tiny.model.parameter(input.norm->name);
      EXPECT_TRUE(norm.to(at::kBFloat16).to(at::kFloat).equal(norm)) << input.norm->name << ": stored as it is";
      EXPECT_EQ(norm[3].item<float>(), tiny.before.at(input.norm->name)[3].item<float>());
      EXPECT_FALSE(norm.equal(tiny.before.at(input.norm->name)));
    }
  }
  EXPECT_EQ(folded_norms, 2 * tiny.model.config().layers.size());
  const at::Tensor changed = tiny.logits(batch);
  EXPECT_GT(at::abs(changed - wanted).max().item<float>(), 1e-2F) << "norms alone change the function";
  for (const auto& [name, scaling] : linears) {
    at::Tensor weight = tiny.model.parameter(name);
    const at::Tensor scaled = scaling.apply(weight);
    EXPECT_LE(at::abs(scaling.undo(scaled) - weight).max().item<float>(), 1e-6F) << name;
    weight.copy_(scaled);
  }
  EXPECT_LE(at::abs(tiny.logits(batch) - wanted).max().item<float>(), 1e-4F * at::abs(wanted).max().item<float>());
}

INSTANTIATE_TEST_SUITE_P(Kinds, Folding, ::testing::Values("shared", "dense", "value_is_key", "experts", "gemma3"),
                         [](const auto& test) { return std::string(test.param); });

TEST(LinearInputs, WhatCannotBeScaledIsNamed) {
  const TinyModel shared("shared");
  auto obstacles = obstacles_of(shared.inputs(0));
  for (const char* legal : {"self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight",
                            "mlp.gate_proj.weight", "mlp.up_proj.weight", "mlp.down_proj.weight"}) {
    EXPECT_EQ(obstacles.at(legal), "") << legal;
  }
  EXPECT_EQ(obstacles.at("self_attn.o_proj.weight"), "the values that it mixes pass a norm");
  EXPECT_EQ(obstacles.at("per_layer_input_gate.weight"), "it reads the residual stream, as others do");
  EXPECT_EQ(obstacles.at("per_layer_projection.weight"), "no norm and no linear makes its input");
  obstacles = obstacles_of(shared.inputs(3));  // reads the keys and values of layer 1
  EXPECT_FALSE(obstacles.contains("self_attn.v_proj.weight"));
  EXPECT_EQ(obstacles.at("self_attn.q_proj.weight"), "");
  EXPECT_EQ(obstacles.at("self_attn.o_proj.weight"), "it mixes the values of another layer");

  EXPECT_EQ(obstacles_of(TinyModel("gemma3").inputs(0)).at("self_attn.o_proj.weight"), "");
  Gemma4Config grouped = config_of("gemma3");
  grouped.layers.front().key_value_heads = 1;
  const Gemma4Model model(grouped, at::kFloat);
  EXPECT_EQ(obstacles_of(inputs_of_layer(model, 0, [](const auto&) { return true; })).at("self_attn.o_proj.weight"),
            "several query heads share the values that it mixes");
}

TEST(LinearInputs, NothingIsScaledThatSomethingElseReadsOrThatCannotTakeTheInverse) {
  TinyModel tiny("dense");
  tiny.frozen = {"layers.1.self_attn.k_proj.weight", "layers.1.mlp.gate_proj.weight"};
  const auto obstacles = obstacles_of(tiny.inputs(1));
  for (const char* reader : {"self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight"}) {
    EXPECT_EQ(obstacles.at(reader), "layers.1.self_attn.k_proj.weight reads it, too, and must stay as it is");
  }
  EXPECT_EQ(obstacles.at("mlp.up_proj.weight"), "layers.1.mlp.gate_proj.weight reads it, too, and must stay as it is");
  EXPECT_EQ(obstacles.at("mlp.down_proj.weight"), "layers.1.mlp.up_proj.weight, which makes its input, is left alone");
}

// Inputs in few directions, of which some channels are much larger.
at::Tensor moments_of(int64_t width) {
  const at::Tensor inputs = (at::mm(at::randn({600, 24}, at::kFloat), at::randn({24, width}, at::kFloat)) +
                             at::randn({600, width}, at::kFloat)) *
                            (at::rand({width}, at::kFloat).pow(8) * 30 + 0.1);
  return at::mm(inputs.t(), inputs) / 600;
}

TEST(Awq, LowersOutputErrorsBelowThoseOfTheSearchWithoutScales) {
  for (const char* kind : {"dense", "gemma3"}) {
    TinyModel tiny(kind);
    const auto inputs = tiny.inputs(0);
    std::map<std::string, at::Tensor> moments;
    for (const LinearInput& input : inputs) moments.emplace(input.name, moments_of(input.readers.front()->columns()));
    const auto linears = awq(tiny.model, inputs, moments, {});
    for (const LinearInput& input : inputs) {
      if (!input.obstacle.empty()) continue;
      const at::Tensor& of_input = moments.at(input.name);
      double error = 0, without_scales = 0;
      for (const WeightSpec* reader : input.readers) {
        const at::Tensor& weight = tiny.before.at(reader->name);
        EXPECT_TRUE(tiny.model.parameter(reader->name).equal(weight)) << "the caller's to change";
        const double output = output_error(weight, of_input);
        const auto error_with = [&](const LinearScaling& scaling) {
          const OnGrid found = by_importance(scaling.apply(weight), scaling.squares(of_input.diagonal()));
          return output_error(scaling.undo(found.values) - weight, of_input) / output;
        };
        error += error_with(linears.at(reader->name));
        without_scales += error_with({});
      }
      EXPECT_LT(error, 0.9 * without_scales) << kind << ' ' << input.name;
    }
  }
}

TEST(Awq, ChannelsThatNeverLiveAndNormsOfZeroDoNoHarm) {
  TinyModel tiny("dense");
  tiny.model.parameter("layers.0.input_layernorm.weight").narrow(0, 5, 1).zero_();
  std::map<std::string, at::Tensor> moments;
  const auto inputs = tiny.inputs(0);
  for (const LinearInput& input : inputs) {
    at::Tensor of_input = moments_of(input.readers.front()->columns());
    of_input.select(0, 5).zero_();
    of_input.select(1, 5).zero_();
    moments.emplace(input.name, input.name == "layers.0.mlp" ? at::zeros_like(of_input) : of_input);
  }
  for (const auto& [name, scaling] : awq(tiny.model, inputs, moments, {})) {
    if (!scaling.obstacle.empty()) continue;
    EXPECT_TRUE(scaling.columns.isfinite().logical_and(scaling.columns.gt(0)).all().item<bool>()) << name;
  }
  EXPECT_EQ(tiny.model.parameter("layers.0.input_layernorm.weight")[5].item<float>(), 0);
  EXPECT_TRUE(tiny.model.parameter("layers.0.input_layernorm.weight").isfinite().all().item<bool>());
}

TEST(Awq, WhatItLeavesAloneIsRoundedByTheRuleAndListed) {
  TinyModel tiny("shared");
  const ResolvedPlan plan = QuantPlan::load("q4_0").resolve(tiny.model.weights());
  LayerPtqOptions options;
  options.method = PtqMethod::Awq;
  const std::vector<PackedTokens> calibration{batch_for(tiny.model), batch_for(tiny.model)};
  const LayerPtqResult result = quantize_layers(tiny.model, plan, calibration, {batch_for(tiny.model)}, options);
  const std::string description = describe(result);
  size_t left_alone = 0;
  for (const LinearOutcome& linear : result.linears) {
    if (linear.obstacle.empty()) continue;
    ++left_alone;
    EXPECT_EQ(linear.error, linear.rounding_error) << linear.weight;
    EXPECT_TRUE(
        tiny.model.parameter(linear.weight).equal(block_values(Scheme::Q4_0, tiny.before.at(linear.weight), {})))
        << linear.weight;
    EXPECT_NE(description.find(linear.weight), std::string::npos) << description;
  }
  EXPECT_EQ(left_alone, 4U * 3U);  // o_proj and the per-layer branch's two, in 4 layers
  EXPECT_NE(description.find("of 20 linears have a lower output error"), std::string::npos) << description;
  EXPECT_NE(description.find("12 are left as rounding does"), std::string::npos) << description;
}

}  // namespace
}  // namespace qat
