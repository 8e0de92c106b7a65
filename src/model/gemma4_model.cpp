#include "model/gemma4_model.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "model/layer.h"
#include "model/rms_norm.h"

namespace qat {

namespace {

// The square root rounded to the weights' dtype, as transformers keeps it: 39.25 instead of 39.19 for 1536 in BF16.
double rounded_root(int64_t size, at::ScalarType dtype) {
  return at::scalar_tensor(std::sqrt(static_cast<double>(size)), at::TensorOptions(dtype)).item<double>();
}

void check_batch(const PackedTokens& batch, int64_t vocabulary_size) {
  const auto& starts = batch.document_starts;
  QAT_CHECK(batch.tokens.dim() == 1 && batch.tokens.scalar_type() == at::kLong);
  QAT_CHECK(starts.size() >= 2 && starts.front() == 0 && starts.back() == batch.tokens.size(0));
  QAT_CHECK(std::adjacent_find(starts.begin(), starts.end(), std::greater_equal<>()) == starts.end());
  const auto largest = batch.tokens.max().item<int64_t>();
  const auto smallest = batch.tokens.min().item<int64_t>();
  if (smallest < 0 || largest >= vocabulary_size) {
    fail("token ", smallest < 0 ? smallest : largest, " is not in the model's vocabulary of ", vocabulary_size,
         " tokens; the data were tokenized for another model");
  }
}

// Positions start at 0 in every document.
at::Tensor positions_of(const PackedTokens& batch) {
  at::Tensor positions = at::arange(batch.tokens.size(0), batch.tokens.options().dtype(at::kFloat));
  for (size_t d = 0; d + 1 < batch.document_starts.size(); ++d) {
    const int64_t start = batch.document_starts[d];
    positions.narrow(0, start, batch.document_starts[d + 1] - start).sub_(static_cast<double>(start));
  }
  return positions;
}

// Rows of a table; those of the pad token give no gradient (padding_idx in transformers).
at::Tensor look_up(const Projection& table, const at::Tensor& tokens, int64_t pad_token) {
  const at::Tensor rows = table.effective_rows(tokens);
  const at::Tensor is_pad = tokens.eq(pad_token);
  if (!rows.requires_grad() || !is_pad.any().item<bool>()) return rows;
  return at::where(is_pad.unsqueeze(1), rows.detach(), rows);
}

}  // namespace

PackedTokens PackedTokens::single(at::Tensor tokens) {
  const int64_t length = tokens.size(0);
  return {std::move(tokens), {0, length}};
}

Gemma4Model::~Gemma4Model() = default;

Gemma4Model::Gemma4Model(Gemma4Config config, at::ScalarType dtype, const WeightChoice& without_memory,
                         at::Device device)
    : config_(std::move(config)), weights_(config_), dtype_(dtype), device_(device) {
  QAT_CHECK(dtype_ == at::kBFloat16 || dtype_ == at::kFloat);
  for (const WeightSpec& spec : weights_.weights()) {
    const auto allocate = [&] { return at::empty(spec.shape, at::TensorOptions(dtype_).device(device_)); };
    if (is_matrix(spec.role)) {
      Projection& projection = projections_.emplace_back();
      projection.name = spec.name;
      projection.computes_in = dtype_;
      if (!without_memory || !without_memory(spec)) projection.weight = allocate();
    } else {
      vectors_.emplace_back(spec.name, allocate());
    }
  }
  for (const LayerConfig& layer_config : config_.layers) layers_.push_back(make_layer(layer_config));
  for (const LayerConfig& layer_config : config_.layers) {
    if (layer_config.key_value_donor) layers_.at(static_cast<size_t>(*layer_config.key_value_donor)).is_donor = true;
  }
}

Gemma4Model::Layer Gemma4Model::make_layer(const LayerConfig& layer_config) {
  const std::string prefix = "layers." + std::to_string(layer_config.index) + ".";
  const auto matrix = [&](const char* name) {
    return weights_.find(prefix + name) == nullptr ? nullptr : &projection(prefix + name);
  };
  const auto vector = [&](const char* name) {
    return weights_.find(prefix + name) == nullptr ? at::Tensor() : parameter(prefix + name);
  };
  Layer layer;
  layer.config = layer_config;
  layer.query = matrix("self_attn.q_proj.weight");
  layer.key = matrix("self_attn.k_proj.weight");
  layer.value = matrix("self_attn.v_proj.weight");
  layer.attention_output = matrix("self_attn.o_proj.weight");
  layer.mlp_gate = matrix("mlp.gate_proj.weight");
  layer.mlp_up = matrix("mlp.up_proj.weight");
  layer.mlp_down = matrix("mlp.down_proj.weight");
  layer.per_layer_gate = matrix("per_layer_input_gate.weight");
  layer.per_layer_projection = matrix("per_layer_projection.weight");
  layer.router = matrix("router.proj.weight");
  layer.expert_gate_up = matrix("experts.gate_up_proj");
  layer.expert_down = matrix("experts.down_proj");
  layer.input_norm = vector("input_layernorm.weight");
  layer.query_norm = vector("self_attn.q_norm.weight");
  layer.key_norm = vector("self_attn.k_norm.weight");
  layer.post_attention_norm = vector("post_attention_layernorm.weight");
  layer.pre_mlp_norm = vector("pre_feedforward_layernorm.weight");
  layer.post_mlp_norm = vector("post_feedforward_layernorm.weight");
  layer.post_dense_norm = vector("post_feedforward_layernorm_1.weight");
  layer.pre_experts_norm = vector("pre_feedforward_layernorm_2.weight");
  layer.post_experts_norm = vector("post_feedforward_layernorm_2.weight");
  layer.post_per_layer_norm = vector("post_per_layer_input_norm.weight");
  layer.router_scale = vector("router.scale");
  layer.expert_scale = vector("router.per_expert_scale");
  layer.layer_scalar = vector("layer_scalar");
  return layer;
}

std::vector<std::pair<std::string, at::Tensor>> Gemma4Model::parameters() const {
  std::vector<std::pair<std::string, at::Tensor>> result;
  auto matrix = projections_.begin();
  auto vector = vectors_.begin();
  for (const WeightSpec& spec : weights_.weights()) {
    result.emplace_back(spec.name, is_matrix(spec.role) ? (matrix++)->weight : (vector++)->second);
  }
  return result;
}

at::Tensor Gemma4Model::parameter(std::string_view name) const {
  for (const Projection& projection : projections_) {
    if (projection.name == name) return projection.weight;
  }
  for (const auto& [vector_name, vector] : vectors_) {
    if (vector_name == name) return vector;
  }
  fail("the model has no weight named ", name);
}

at::Tensor Gemma4Model::merged_parameter(std::string_view name) const {
  const WeightSpec* weight = weights_.find(name);
  return weight != nullptr && is_matrix(weight->role) ? projection(name).merged_weight() : parameter(name);
}

const Projection& Gemma4Model::projection(std::string_view name) const {
  const auto found =
      std::find_if(projections_.begin(), projections_.end(), [&](const auto& p) { return p.name == name; });
  if (found == projections_.end()) fail("the model has no matrix or table named ", name);
  return *found;
}

Projection& Gemma4Model::projection(std::string_view name) {
  return const_cast<Projection&>(std::as_const(*this).projection(name));
}

std::shared_ptr<ActivationTransform>& Gemma4Model::key_transform(int64_t layer) {
  return layers_.at(static_cast<size_t>(layer)).key_transform;
}

std::shared_ptr<ActivationTransform>& Gemma4Model::value_transform(int64_t layer) {
  return layers_.at(static_cast<size_t>(layer)).value_transform;
}

const Projection& Gemma4Model::head() const { return projection(weights_.head().name); }

LayerInputs Gemma4Model::embed(const PackedTokens& batch) const {
  check_batch(batch, config_.vocabulary_size);
  LayerInputs state;
  state.donated.resize(layers_.size());
  state.hidden = look_up(projection("embed_tokens.weight"), batch.tokens, config_.pad_token) *
                 rounded_root(config_.hidden_size, dtype_);
  if (!config_.has_per_layer_inputs()) return state;

  const std::vector<int64_t> shape{batch.tokens.size(0), config_.layer_count(), config_.per_layer_input_size};
  const at::Tensor of_token = look_up(projection("embed_tokens_per_layer.weight"), batch.tokens, config_.pad_token) *
                              rounded_root(config_.per_layer_input_size, dtype_);
  const at::Tensor of_context = projection("per_layer_model_projection.weight")(state.hidden) *
                                (1.0 / std::sqrt(static_cast<double>(config_.hidden_size)));
  const at::Tensor normed = rms_norm(of_context.view(shape), parameter("per_layer_projection_norm.weight"),
                                     config_.norm_epsilon, config_.norm_offset);
  state.per_layer_inputs = ((normed + of_token.view(shape)) * std::sqrt(0.5)).unbind(1);
  return state;
}

void Gemma4Model::run_layer(int64_t layer, LayerInputs& state, const PackedTokens& batch) const {
  const Layer& wanted = layers_.at(static_cast<size_t>(layer));
  const TokenRows rows{positions_of(batch), batch.document_starts};
  if (recomputes_layers_ && at::GradMode::is_enabled()) {
    wanted.forward_keeping_inputs(config_, state, rows, [this, layer](bool again) {
      return borrow_weights(layer, again ? layer - 1 : layer + 1);
    });
  } else {
    const auto weights = borrow_weights(layer, layer + 1);
    wanted.forward(config_, state, rows, nullptr);
  }
}

struct Gemma4Model::LayerLoan {
  LayerLoan(int64_t index, const Layer& of_layer) : layer(index) {
    for (const Projection* projection : of_layer.projections()) {
      if (auto loan = projection->borrow_for_product()) loans.push_back(std::move(loan));
    }
  }

  int64_t layer;
  std::vector<std::unique_ptr<WeightLoan>> loans;
};

std::shared_ptr<void> Gemma4Model::borrow_weights(int64_t layer, int64_t next) const {
  const auto start = [&](int64_t wanted) {
    return std::make_shared<LayerLoan>(wanted, layers_.at(static_cast<size_t>(wanted)));
  };
  auto loan = std::exchange(next_loan_, nullptr);
  if (loan == nullptr || loan->layer != layer) loan = start(layer);
  if (next >= 0 && next < config_.layer_count()) next_loan_ = start(next);
  for (const auto& weight : loan->loans) weight->arrive();
  return loan;
}

void Gemma4Model::lend_weights() const {
  for (int64_t layer = 0; layer < config_.layer_count(); ++layer) borrow_weights(layer, layer + 1);
}

at::Tensor Gemma4Model::final_norm(const at::Tensor& hidden) const {
  return rms_norm(hidden, parameter("norm.weight"), config_.norm_epsilon, config_.norm_offset);
}

at::Tensor Gemma4Model::hidden_states(const PackedTokens& batch) const {
  LayerInputs state = embed(batch);
  for (int64_t layer = 0; layer < config_.layer_count(); ++layer) run_layer(layer, state, batch);
  return final_norm(state.hidden);
}

at::Tensor Gemma4Model::logits(const at::Tensor& hidden) const {
  const double softcap = config_.final_logit_softcap;
  at::Tensor result = head()(hidden);
  if (softcap > 0) result = (result / softcap).tanh() * softcap;
  return result.to(at::kFloat);
}

}  // namespace qat
