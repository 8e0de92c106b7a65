#include "model/layer.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "model/attention.h"
#include "model/branched_attention.h"
#include "model/experts.h"
#include "model/gated_gelu.h"
#include "model/rms_norm.h"
#include "model/rotary.h"

namespace qat {

namespace {

constexpr int64_t kFirstCapacity = 256;

at::Tensor with_room(const at::Tensor& stored, const at::Tensor& like, int64_t used, int64_t capacity) {
  auto shape = like.sizes().vec();
  shape[0] = capacity;
  at::Tensor larger = at::empty(shape, like.options());
  if (used > 0) larger.narrow(0, 0, used).copy_(stored.narrow(0, 0, used));
  return larger;
}

}  // namespace

KeyValue KeyValueCache::extend(const KeyValue& added) { return window_ > 0 ? extend_window(added) : extend_all(added); }

KeyValue KeyValueCache::extend_window(const KeyValue& added) {
  KeyValue all = added;
  if (length_ > 0) all = {at::cat({stored_.key, added.key}), at::cat({stored_.value, added.value})};
  const int64_t seen = all.key.size(0);
  length_ = std::min(seen, window_ - 1);
  stored_ = {all.key.narrow(0, seen - length_, length_).clone(), all.value.narrow(0, seen - length_, length_).clone()};
  return all;
}

KeyValue KeyValueCache::extend_all(const KeyValue& added) {
  const int64_t needed = length_ + added.key.size(0);
  if (!stored_.key.defined() || stored_.key.size(0) < needed) {
    const int64_t capacity = std::max({kFirstCapacity, needed, 2 * length_});
    stored_ = {with_room(stored_.key, added.key, length_, capacity),
               with_room(stored_.value, added.value, length_, capacity)};
  }
  stored_.key.narrow(0, length_, needed - length_).copy_(added.key);
  stored_.value.narrow(0, length_, needed - length_).copy_(added.value);
  length_ = needed;
  return {stored_.key.narrow(0, 0, length_), stored_.value.narrow(0, 0, length_)};
}

at::Tensor Gemma4Model::Layer::norm(const Gemma4Config& model, const at::Tensor& x, const at::Tensor& weight) const {
  return rms_norm(x, weight, model.norm_epsilon, model.norm_offset);
}

KeyValue Gemma4Model::Layer::own_key_value(const Gemma4Config& model, const at::Tensor& normed,
                                           const TokenRows& rows) const {
  const auto heads_of = [&](const at::Tensor& x) { return x.view({-1, config.key_value_heads, config.head_dim}); };
  const at::Tensor raw_key = heads_of((*key)(normed));
  const at::Tensor raw_value = config.value_is_key ? raw_key : heads_of((*value)(normed));
  KeyValue result;
  result.key = rotate(norm(model, raw_key, key_norm), rotary_angles(config.rope, rows.positions, normed.scalar_type()));
  result.value = model.value_norm ? rms_norm(raw_value, std::nullopt, model.norm_epsilon, 0) : raw_value;
  if (key_transform) result.key = key_transform->apply(result.key);
  if (value_transform) result.value = value_transform->apply(result.value);
  return result;
}

at::Tensor Gemma4Model::Layer::attend(const Gemma4Config& model, LayerInputs& state, const at::Tensor& normed,
                                      const TokenRows& rows, KeyValueCache* cache) const {
  const at::Tensor raw_queries = (*query)(normed).view({-1, config.heads, config.head_dim});
  const at::Tensor queries =
      rotate(norm(model, raw_queries, query_norm), rotary_angles(config.rope, rows.positions, normed.scalar_type()));
  KeyValue visible;
  if (config.key_value_donor) {
    const auto& donated = state.donated.at(static_cast<size_t>(*config.key_value_donor));
    QAT_CHECK(donated.has_value());
    visible = *donated;
  } else {
    visible = own_key_value(model, normed, rows);
    if (cache != nullptr) visible = cache->extend(visible);
    if (is_donor) state.donated.at(static_cast<size_t>(config.index)) = visible;
  }
  const int64_t past = visible.key.size(0) - queries.size(0);
  const AttentionReach reach{rows.document_starts, config.window, past};
  const at::Tensor mixed =
      rows.continued.empty()
          ? attention(queries, visible.key, visible.value, reach, model.attention_scale)
          : attention_of_branches(queries, visible.key, visible.value, reach, rows.continued, model.attention_scale);
  return (*attention_output)(mixed.reshape({-1, config.query_width()}));
}

at::Tensor Gemma4Model::Layer::experts(const Gemma4Config& model, const at::Tensor& residual) const {
  const double root = 1.0 / std::sqrt(static_cast<double>(model.hidden_size));
  const at::Tensor scaled = rms_norm(residual, std::nullopt, model.norm_epsilon, 0) * router_scale * root;
  const ExpertChoice choice = choose_experts(scaled, *router, expert_scale, model.experts_per_token);
  return run_experts(norm(model, residual, pre_experts_norm), choice, model.experts, *expert_gate_up, *expert_down);
}

at::Tensor Gemma4Model::Layer::feed_forward(const Gemma4Config& model, const at::Tensor& residual) const {
  const at::Tensor normed = norm(model, residual, pre_mlp_norm);
  at::Tensor result = (*mlp_down)(gated_gelu((*mlp_gate)(normed), (*mlp_up)(normed)));
  if (config.has_experts) {
    result = norm(model, result, post_dense_norm) + norm(model, experts(model, residual), post_experts_norm);
  }
  return norm(model, result, post_mlp_norm);
}

at::Tensor Gemma4Model::Layer::per_layer_branch(const Gemma4Config& model, const at::Tensor& hidden,
                                                const at::Tensor& input) const {
  return norm(model, (*per_layer_projection)(gated_gelu((*per_layer_gate)(hidden), input)), post_per_layer_norm);
}

void Gemma4Model::Layer::forward(const Gemma4Config& model, LayerInputs& state, const TokenRows& rows,
                                 KeyValueCache* cache) const {
  const at::Tensor attended = attend(model, state, norm(model, state.hidden, input_norm), rows, cache);
  at::Tensor hidden = state.hidden + norm(model, attended, post_attention_norm);
  hidden = hidden + feed_forward(model, hidden);
  if (model.has_per_layer_inputs()) {
    hidden = hidden + per_layer_branch(model, hidden, state.per_layer_inputs.at(static_cast<size_t>(config.index)));
  }
  if (layer_scalar.defined()) hidden = hidden * layer_scalar;
  state.hidden = hidden;
}

void Gemma4Model::Layer::forward_keeping_inputs(const Gemma4Config& model, LayerInputs& state, const TokenRows& rows,
                                                const Provision& weights) const {
  // Inputs: hidden states, then per-layer input and a donor's keys and values where there are such. Outputs: hidden
  // states, then a donor's own keys and values.
  std::vector<at::Tensor> inputs{state.hidden};
  if (model.has_per_layer_inputs()) inputs.push_back(state.per_layer_inputs.at(static_cast<size_t>(config.index)));
  if (config.key_value_donor) {
    const auto& donated = state.donated.at(static_cast<size_t>(*config.key_value_donor));
    QAT_CHECK(donated.has_value());
    inputs.insert(inputs.end(), {donated->key, donated->value});
  }
  const auto compute = [this, &model, positions = rows.positions, starts = rows.document_starts,
                        layers = state.donated.size()](const std::vector<at::Tensor>& given) {
    LayerInputs own;
    own.hidden = given.front();
    own.donated.resize(layers);
    if (model.has_per_layer_inputs()) {
      own.per_layer_inputs.resize(layers);
      own.per_layer_inputs[static_cast<size_t>(config.index)] = given[1];
    }
    if (config.key_value_donor) {
      own.donated[static_cast<size_t>(*config.key_value_donor)] = {given[given.size() - 2], given.back()};
    }
    forward(model, own, {positions, starts}, nullptr);
    std::vector<at::Tensor> outputs{own.hidden};
    if (is_donor) {
      const KeyValue& donated = *own.donated[static_cast<size_t>(config.index)];
      outputs.insert(outputs.end(), {donated.key, donated.value});
    }
    return outputs;
  };
  const std::vector<at::Tensor> outputs = recompute_in_backward(compute, inputs, weights);
  state.hidden = outputs.front();
  if (is_donor) state.donated.at(static_cast<size_t>(config.index)) = KeyValue{outputs[1], outputs[2]};
}

std::vector<const Projection*> Gemma4Model::Layer::projections() const {
  std::vector<const Projection*> result{query,          key,        value,  attention_output, mlp_gate,
                                        mlp_up,         mlp_down,   router, per_layer_gate,   per_layer_projection,
                                        expert_gate_up, expert_down};
  std::erase(result, nullptr);
  return result;
}

}  // namespace qat
