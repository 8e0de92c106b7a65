// Gradients against transformers on tiny models of every kind, whole and with layers recomputed one at a time.
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include "model/chunked_head.h"
#include "model/golden_models.h"

namespace qat {
namespace {

using testing::Expected;
using testing::golden_model;
using testing::relative_difference;

class GradientGolden : public testing::GoldenTest {};

constexpr int64_t kSampleStep = 5;
constexpr int64_t kLargestWholeGradient = 256;

std::unique_ptr<Gemma4Model> trained_model(const std::string& kind, const Expected& expected, int64_t chunk_tokens) {
  auto model = golden_model(kind);
  testing::require_gradients(*model);
  const at::Tensor hidden = model->hidden_states(PackedTokens::single(expected["tokens"]));
  torch::autograd::backward({cross_entropy_sum(*model, hidden, expected["targets"], chunk_tokens)}, {});
  return model;
}

TEST_P(GradientGolden, EqualThoseOfTransformers) {
  const Expected expected(kind());
  auto model = golden_model(kind());
  testing::require_gradients(*model);
  const at::Tensor hidden = model->hidden_states(PackedTokens::single(expected["tokens"]));
  const at::Tensor loss = cross_entropy_sum(*model, hidden, expected["targets"], 7);
  EXPECT_NEAR(loss.item<float>(), expected["loss"].item<float>(), 1e-5 * expected["loss"].item<float>());
  torch::autograd::backward({loss}, {});

  double largest = 0;
  // The final norm undoes any scale before it, so the last layer's scalar has a gradient of nothing but rounding
  // errors.
  const std::string last = "layers." + std::to_string(model->config().layer_count() - 1) + ".layer_scalar";
  for (const auto& [name, parameter] : model->parameters()) {
    ASSERT_TRUE(parameter.grad().defined()) << name;
    ASSERT_TRUE(expected.has("gradient." + name)) << name;
    const at::Tensor flat = parameter.grad().reshape({-1});
    if (name == last) {
      EXPECT_LE(testing::largest_difference(flat, expected["gradient." + name]), 1e-4);
      continue;
    }
    const at::Tensor sample = flat.numel() > kLargestWholeGradient ? flat.slice(0, 0, std::nullopt, kSampleStep) : flat;
    const double difference = relative_difference(sample, expected["gradient." + name]);
    largest = std::max(largest, difference);
    EXPECT_LE(difference, 1e-3) << name;
    EXPECT_LE(relative_difference(flat.norm().reshape({1}), expected["norm." + name]), 1e-3) << name;
  }
  RecordProperty("largest_relative_difference", std::to_string(largest));
}

TEST_P(GradientGolden, RunsAreBitwiseEqual) {
  const Expected expected(kind());
  const auto first = trained_model(kind(), expected, 16);
  const auto second = trained_model(kind(), expected, 16);
  for (const auto& [name, parameter] : first->parameters()) {
    EXPECT_TRUE(parameter.grad().equal(second->parameter(name).grad())) << name;
  }
}

// A state whose tensors are leaves, so that gradients stop there and can be read.
LayerInputs detached(const LayerInputs& state) {
  const auto leaf = [](const at::Tensor& x) { return x.defined() ? x.detach().requires_grad_(true) : x; };
  LayerInputs result{leaf(state.hidden), {}, {}};
  for (const at::Tensor& input : state.per_layer_inputs) result.per_layer_inputs.push_back(leaf(input));
  for (const auto& pair : state.donated) {
    result.donated.push_back(pair ? std::optional(KeyValue{leaf(pair->key), leaf(pair->value)}) : std::nullopt);
  }
  return result;
}

void add(at::Tensor& total, const at::Tensor& gradient) {
  if (gradient.defined()) total = total.defined() ? total + gradient : gradient;
}

// Gradients with respect to a layer's outputs, handed back from layer to layer.
struct OutputGradients {
  at::Tensor hidden;
  std::vector<at::Tensor> per_layer_inputs;
  std::vector<KeyValue> donated;
};

// Recomputes one layer from its saved inputs and turns gradients of its outputs into gradients of its inputs.
void backward_through_layer(const Gemma4Model& model, int64_t layer, const LayerInputs& saved,
                            const PackedTokens& batch, OutputGradients& gradients) {
  const LayerInputs inputs = detached(saved);
  LayerInputs outputs = inputs;
  model.run_layer(layer, outputs, batch);
  std::vector<at::Tensor> roots{outputs.hidden};
  std::vector<at::Tensor> of_roots{gradients.hidden};
  const auto own = static_cast<size_t>(layer);
  if (!inputs.donated[own] && outputs.donated[own]) {
    roots.insert(roots.end(), {outputs.donated[own]->key, outputs.donated[own]->value});
    of_roots.insert(of_roots.end(), {gradients.donated[own].key, gradients.donated[own].value});
  }
  torch::autograd::backward(roots, of_roots);
  gradients.hidden = inputs.hidden.grad();
  if (!inputs.per_layer_inputs.empty()) gradients.per_layer_inputs[own] = inputs.per_layer_inputs[own].grad();
  for (size_t donor = 0; donor < inputs.donated.size(); ++donor) {
    if (!inputs.donated[donor]) continue;
    add(gradients.donated[donor].key, inputs.donated[donor]->key.grad());
    add(gradients.donated[donor].value, inputs.donated[donor]->value.grad());
  }
}

TEST_P(GradientGolden, RecomputedLayersGiveTheSameGradients) {
  const Expected expected(kind());
  const PackedTokens batch = PackedTokens::single(expected["tokens"]);
  const auto whole = trained_model(kind(), expected, 16);
  const auto model = golden_model(kind());
  testing::require_gradients(*model);

  const LayerInputs embedded = model->embed(batch);
  std::vector<LayerInputs> saved{detached(embedded)};
  {
    const at::NoGradGuard no_gradients;
    for (int64_t layer = 0; layer < model->config().layer_count(); ++layer) {
      saved.push_back(saved.back());
      model->run_layer(layer, saved.back(), batch);
    }
  }
  const LayerInputs last = detached(saved.back());
  torch::autograd::backward({cross_entropy_sum(*model, model->final_norm(last.hidden), expected["targets"], 16)}, {});
  OutputGradients gradients{last.hidden.grad(), std::vector<at::Tensor>(embedded.per_layer_inputs.size()),
                            std::vector<KeyValue>(last.donated.size())};
  for (int64_t layer = model->config().layer_count() - 1; layer >= 0; --layer) {
    backward_through_layer(*model, layer, saved[static_cast<size_t>(layer)], batch, gradients);
  }
  std::vector<at::Tensor> roots{embedded.hidden};
  std::vector<at::Tensor> of_roots{gradients.hidden};
  roots.insert(roots.end(), embedded.per_layer_inputs.begin(), embedded.per_layer_inputs.end());
  of_roots.insert(of_roots.end(), gradients.per_layer_inputs.begin(), gradients.per_layer_inputs.end());
  torch::autograd::backward(roots, of_roots);

  for (const auto& [name, parameter] : model->parameters()) {
    ASSERT_TRUE(parameter.grad().defined()) << name;
    EXPECT_LE(relative_difference(parameter.grad(), whole->parameter(name).grad()), 1e-4) << name;
  }
}

TEST(GradientOfPadding, OnlyTheTiedHeadReachesThePadRow) {
  const Expected expected("e2b");
  const auto model = golden_model("e2b");
  testing::require_gradients(*model);
  const at::Tensor tokens = expected["tokens"];
  ASSERT_TRUE(tokens.eq(0).any().item<bool>());
  const at::Tensor hidden = model->hidden_states(PackedTokens::single(tokens));
  torch::autograd::backward({hidden.square().sum()}, {});
  EXPECT_EQ(model->parameter("embed_tokens.weight").grad()[0].abs().max().item<float>(), 0);
  EXPECT_EQ(model->parameter("embed_tokens_per_layer.weight").grad()[0].abs().max().item<float>(), 0);
  EXPECT_GT(model->parameter("embed_tokens.weight").grad()[2].abs().max().item<float>(), 0);
  const at::Tensor again = model->hidden_states(PackedTokens::single(tokens));
  torch::autograd::backward({cross_entropy_sum(*model, again, expected["targets"])}, {});
  EXPECT_GT(model->parameter("embed_tokens.weight").grad()[0].abs().max().item<float>(), 0);
}

INSTANTIATE_TEST_SUITE_P(Kinds, GradientGolden, ::testing::ValuesIn(testing::kKinds), testing::name_of_kind);

}  // namespace
}  // namespace qat
