#include "ptq/input_scaling.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/where.h>

#include <algorithm>

#include "core/error.h"

namespace qat {

namespace {

// Why an attention output's input cannot be divided by way of the value projection, or nothing.
std::string obstacle_of_values(const Gemma4Config& config, const LayerConfig& layer) {
  if (layer.key_value_donor) return "it mixes the values of another layer";
  if (config.value_norm) return "the values that it mixes pass a norm";
  if (layer.value_is_key) return "the values that it mixes are the keys, too";
  if (layer.heads != layer.key_value_heads) return "several query heads share the values that it mixes";
  const bool is_donor = std::any_of(config.layers.begin(), config.layers.end(),
                                    [&](const LayerConfig& other) { return other.key_value_donor == layer.index; });
  return is_donor ? "other layers mix the same values" : "";
}

void find_maker(LinearInput& input, const Gemma4Model& model, const LayerConfig& layer) {
  const std::string prefix = "layers." + std::to_string(layer.index) + ".";
  const auto weight = [&](const char* name) { return model.weights().find(prefix + name); };
  switch (input.readers.front()->role) {
    case WeightRole::AttentionQuery:
    case WeightRole::AttentionKey:
    case WeightRole::AttentionValue:
      input.norm = weight("input_layernorm.weight");
      return;
    case WeightRole::MlpGate:
    case WeightRole::MlpUp:
      input.norm = weight("pre_feedforward_layernorm.weight");
      return;
    case WeightRole::MlpDown:  // reads gelu(gate) * up
      input.producer = weight("mlp.up_proj.weight");
      return;
    case WeightRole::AttentionOutput:
      input.obstacle = obstacle_of_values(model.config(), layer);
      if (input.obstacle.empty()) input.producer = weight("self_attn.v_proj.weight");
      return;
    case WeightRole::PerLayerInputGate:
      input.obstacle = "it reads the residual stream, as others do";
      return;
    default:
      input.obstacle = "no norm and no linear makes its input";
  }
}

// A norm's weight divided by scales, and the scales that this comes to.
struct FoldedNorm {
  at::Tensor weight;  // BF16 numbers
  at::Tensor scales;
};

FoldedNorm fold_into_norm(const at::Tensor& weight, const at::Tensor& wanted, double offset) {
  const at::Tensor factor = weight + offset;
  const at::Tensor divided = (factor / wanted - offset).to(at::kBFloat16).to(at::kFloat);
  const at::Tensor scales = factor / (divided + offset);
  // A channel whose factor is 0, or would round to 0, keeps it.
  const at::Tensor stays = wanted.eq(1).logical_or(scales.isfinite().logical_and(scales.gt(0)).logical_not());
  return {at::where(stays, weight, divided), scales.masked_fill(stays, 1)};
}

FoldedNorm fold_into_norm(const Gemma4Model& model, const LinearInput& input, const at::Tensor& wanted) {
  return fold_into_norm(model.parameter(input.norm->name), wanted, model.config().norm_offset);
}

}  // namespace

std::vector<LinearInput> inputs_of_layer(const Gemma4Model& model, int64_t layer,
                                         const std::function<bool(const WeightSpec&)>& may_change) {
  std::vector<LinearInput> inputs;
  const auto find = [&](const std::string& name) {
    return std::find_if(inputs.begin(), inputs.end(), [&](const LinearInput& input) { return input.name == name; });
  };
  for (const WeightSpec& weight : model.weights().weights()) {
    if (weight.layer != layer || !is_linear(weight.role)) continue;
    auto input = find(weight.input_name());
    if (input == inputs.end()) {
      input = inputs.emplace(inputs.end());
      input->name = weight.input_name();
    }
    input->readers.push_back(&weight);
  }
  for (LinearInput& input : inputs) {
    find_maker(input, model, model.config().layers.at(static_cast<size_t>(layer)));
    for (const WeightSpec* reader : input.readers) {
      if (input.obstacle.empty() && !may_change(*reader)) {
        input.obstacle = reader->name + " reads it, too, and must stay as it is";
      }
    }
  }
  // A producer takes part in the scaling of its own input, too: it is left alone as a whole or not at all.
  for (LinearInput& input : inputs) {
    if (input.producer == nullptr || !input.obstacle.empty()) continue;
    const auto of_producer = find(input.producer->input_name());
    if (!of_producer->obstacle.empty())
      input.obstacle = input.producer->name + ", which makes its input, is left alone";
  }
  return inputs;
}

at::Tensor LinearScaling::apply(const at::Tensor& weight) const {
  at::Tensor result = weight;
  if (columns.defined()) result = result * columns;
  if (rows.defined()) result = result / rows.unsqueeze(1);
  return result;
}

at::Tensor LinearScaling::undo(const at::Tensor& scaled) const {
  at::Tensor result = scaled;
  if (columns.defined()) result = result / columns;
  if (rows.defined()) result = result * rows.unsqueeze(1);
  return result;
}

at::Tensor LinearScaling::squares(const at::Tensor& of_input) const {
  return columns.defined() ? of_input / columns.square() : of_input.contiguous();
}

at::Tensor LinearScaling::moments(const at::Tensor& of_input) const {
  return columns.defined() ? of_input / columns / columns.unsqueeze(1) : of_input;
}

at::Tensor possible_scales(const Gemma4Model& model, const LinearInput& input, const at::Tensor& wanted) {
  QAT_CHECK(input.obstacle.empty());
  return input.norm == nullptr ? wanted : fold_into_norm(model, input, wanted).scales;
}

void fold_scales(Gemma4Model& model, const LinearInput& input, const at::Tensor& wanted,
                 std::map<std::string, LinearScaling>& linears) {
  QAT_CHECK(input.obstacle.empty());
  at::Tensor scales = wanted;
  if (input.norm != nullptr) {
    const FoldedNorm folded = fold_into_norm(model, input, wanted);
    model.parameter(input.norm->name).copy_(folded.weight);
    scales = folded.scales;
  } else {
    linears[input.producer->name].rows = scales;
  }
  for (const WeightSpec* reader : input.readers) linears[reader->name].columns = scales;
}

}  // namespace qat
