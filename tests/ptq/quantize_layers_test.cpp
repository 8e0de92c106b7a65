// Quantization layer by layer: what it leaves in the model is what its scales encode, and other weights keep their
// bits.
#include "ptq/quantize_layers.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randint.h>
#include <gtest/gtest.h>

#include <limits>
#include <map>
#include <string>

#include "quant/block_codec.h"
#include "support/expect_error.h"
#include "support/tiny_model_folder.h"

namespace qat {
namespace {

std::vector<PackedTokens> batches_of(const Gemma4Model& model, int64_t count) {
  std::vector<PackedTokens> batches;
  for (int64_t i = 0; i < count; ++i) {
    batches.push_back(PackedTokens::single(at::randint(1, model.config().vocabulary_size, {96}, at::kLong)));
  }
  return batches;
}

struct TinyModel {
  explicit TinyModel(const char* kind) : model(testing::tiny_config_of_kind(kind), at::kFloat) {
    initialize_weights(model, 5);
    for (auto& [name, parameter] : model.parameters()) parameter.copy_(parameter.to(at::kBFloat16));
    plan = QuantPlan::load("q4_0").resolve(model.weights());
    for (const auto& [name, parameter] : model.parameters()) before.emplace(name, parameter.clone());
  }

  Gemma4Model model;
  ResolvedPlan plan;
  std::map<std::string, at::Tensor> before;
};

class QuantizeLayers : public ::testing::TestWithParam<std::tuple<const char*, PtqMethod>> {};

TEST_P(QuantizeLayers, LeavesNumbersThatEncodeToThemselvesAndLowersOutputErrors) {
  const auto [kind, method] = GetParam();
  TinyModel tiny(kind);
  const auto calibration = batches_of(tiny.model, 6);
  const auto held_out = batches_of(tiny.model, 2);
  LayerPtqOptions options;
  options.method = method;
  options.sign_descent.steps = 50;
  const LayerPtqResult result = quantize_layers(tiny.model, tiny.plan, calibration, held_out, options);

  size_t expected = 0;
  for (const WeightSpec& weight : tiny.model.weights().weights()) {
    const at::Tensor now = tiny.model.parameter(weight.name);
    if (!is_quantized_by_layer(weight, tiny.plan)) {
      const bool scales = method == PtqMethod::Awq || method == PtqMethod::AwqGptq;
      const bool may_change = scales && weight.role == WeightRole::Norm;
      EXPECT_TRUE(may_change || now.equal(tiny.before.at(weight.name))) << weight.name;
      EXPECT_TRUE(now.to(at::kBFloat16).to(at::kFloat).equal(now)) << weight.name;
      EXPECT_FALSE(result.scales.contains(weight.name));
      continue;
    }
    ++expected;
    const at::Tensor masters = now.to(at::kBFloat16);
    EXPECT_TRUE(masters.to(at::kFloat).equal(now)) << weight.name;
    const at::Tensor& scales = result.scales.at(weight.name);
    const at::Tensor read = at::empty(now.sizes(), at::kFloat);
    const auto count = static_cast<size_t>(now.numel());
    fake_quantize_blocks(Scheme::Q4_0, {static_cast<const BFloat16*>(masters.const_data_ptr()), count},
                         {static_cast<const Float16*>(scales.const_data_ptr()), count / 32},
                         {read.mutable_data_ptr<float>(), count});
    EXPECT_TRUE(read.equal(now)) << weight.name;
    EXPECT_EQ(tiny.model.projection(weight.name).input_transform, nullptr);
  }
  ASSERT_EQ(result.linears.size(), expected);
  double error = 0, by_rounding = 0;
  for (const LinearOutcome& linear : result.linears) {
    EXPECT_FALSE(linear.is_fallback) << linear.weight;
    error += linear.error;
    by_rounding += linear.rounding_error;
  }
  EXPECT_LT(error, 0.95 * by_rounding) << describe(result);
}

const std::map<PtqMethod, std::string> kNames{{PtqMethod::Importance, "Importance"},
                                              {PtqMethod::Gptq, "Gptq"},
                                              {PtqMethod::Awq, "Awq"},
                                              {PtqMethod::AwqGptq, "AwqGptq"},
                                              {PtqMethod::SignDescent, "SignDescent"}};

INSTANTIATE_TEST_SUITE_P(Kinds, QuantizeLayers,
                         ::testing::Combine(::testing::Values("shared", "dense", "value_is_key", "experts"),
                                            ::testing::Values(PtqMethod::Importance, PtqMethod::Gptq, PtqMethod::Awq,
                                                              PtqMethod::AwqGptq, PtqMethod::SignDescent)),
                         [](const auto& test) { return std::get<0>(test.param) + kNames.at(std::get<1>(test.param)); });

TEST(QuantizeLayersTest, AModelThatComputesNaNIsNamed) {
  TinyModel tiny("dense");
  tiny.model.parameter("layers.1.input_layernorm.weight").fill_(std::numeric_limits<float>::quiet_NaN());
  const auto batches = batches_of(tiny.model, 1);
  for (const auto& [method, name] : kNames) {
    SCOPED_TRACE(name);
    LayerPtqOptions options;
    options.method = method;
    options.sign_descent.steps = 1;
    testing::expect_error([&] { quantize_layers(tiny.model, tiny.plan, batches, batches, options); },
                          {"layers.1.self_attn", "NaN"});
  }
}

}  // namespace
}  // namespace qat
