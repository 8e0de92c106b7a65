#include "reference/forward.h"

#include <cmath>

#include "core/error.h"
#include "reference/experts.h"

namespace qat {

namespace {

void rotate_groups(Matrix& x, int64_t size) {
  if (size > 0) rotate_hadamard({x.data(), static_cast<size_t>(x.size())}, size);
}

Matrix rows_of(const Matrix& x, const std::vector<int64_t>& rows) { return x(rows, Eigen::all); }

}  // namespace

Forward::Forward(const ReferenceWeights& weights, const Arithmetic& arithmetic)
    : weights_(weights),
      config_(weights.config()),
      arithmetic_(arithmetic),
      epsilon_(static_cast<float>(config_.norm_epsilon)),
      embedding_(weights.weight("embed_tokens.weight")),
      head_(config_.tied_head ? embedding_ : weights.weight("lm_head.weight")),
      final_norm_(weights.vector("norm.weight")) {
  if (config_.has_per_layer_inputs()) {
    per_layer_tables_ = weights.per_layer_tables();
    per_layer_projection_ = weights.weight("per_layer_model_projection.weight");
    per_layer_norm_ = weights.vector("per_layer_projection_norm.weight");
  }
  for (const LayerConfig& facts : config_.layers) layers_.push_back(resolve(facts));
}

Forward::Layer Forward::resolve(const LayerConfig& facts) const {
  const std::string prefix = "layers." + std::to_string(facts.index) + ".";
  const auto matrix = [&](const char* name) { return weights_.weight(prefix + name); };
  const auto vector = [&](const char* name) { return weights_.vector(prefix + name); };
  Layer layer;
  layer.facts = facts;
  layer.attention_norm = vector("input_layernorm.weight");
  layer.query = matrix("self_attn.q_proj.weight");
  layer.query_norm = vector("self_attn.q_norm.weight");
  if (!facts.key_value_donor) {
    layer.key = matrix("self_attn.k_proj.weight");
    layer.key_norm = vector("self_attn.k_norm.weight");
    if (!facts.value_is_key) layer.value = matrix("self_attn.v_proj.weight");
  }
  layer.output = matrix("self_attn.o_proj.weight");
  layer.attention_post_norm = vector("post_attention_layernorm.weight");
  layer.mlp_norm = vector("pre_feedforward_layernorm.weight");
  layer.gate = matrix("mlp.gate_proj.weight");
  layer.up = matrix("mlp.up_proj.weight");
  layer.down = matrix("mlp.down_proj.weight");
  layer.mlp_post_norm = vector("post_feedforward_layernorm.weight");
  if (facts.has_experts) {
    layer.experts = Experts{matrix("router.proj.weight"),
                            matrix("experts.gate_up_proj"),
                            matrix("experts.down_proj"),
                            vector("router.scale"),
                            vector("router.per_expert_scale"),
                            vector("post_feedforward_layernorm_1.weight"),
                            vector("pre_feedforward_layernorm_2.weight"),
                            vector("post_feedforward_layernorm_2.weight")};
  }
  if (config_.has_per_layer_inputs()) {
    layer.per_layer = PerLayerInput{matrix("per_layer_input_gate.weight"), matrix("per_layer_projection.weight"),
                                    vector("post_per_layer_input_norm.weight")};
  }
  if (config_.has_layer_scalar) layer.scalar = vector("layer_scalar").at(0);
  return layer;
}

SequenceState Forward::start(CacheType type) const {
  SequenceState state;
  for (const Layer& layer : layers_) {
    state.caches.emplace_back();
    if (layer.facts.key_value_donor) continue;
    const CacheScales scales = weights_.cache_scales(layer.facts.index);
    if (type == CacheType::Int8 && (scales.key == 0 || scales.value == 0)) {
      fail(weights_.where(), ": layer ", layer.facts.index,
           " has no static scales of its keys and values, which an int8 cache needs; use a float cache");
    }
    state.caches.back().emplace(type, layer.facts.key_value_heads, layer.facts.head_dim, layer.facts.window, scales);
  }
  return state;
}

void Forward::norm(Matrix& x, const std::vector<float>& weight) const {
  arithmetic_.norm(x, x.cols(), weight, epsilon_);
}

Matrix Forward::linear(const Matrix& x, const WeightView& weight, const SequenceState& state) const {
  if (state.linears == nullptr) return product(x, weight);
  Matrix input = x;
  state.linears->entering(weight.name, input);
  Matrix y = product(input, weight);
  state.linears->computed(weight.name, input, y);
  return y;
}

Matrix Forward::product(const Matrix& x, const WeightView& weight) const {
  Matrix y = arithmetic_.linear(x, weight);
  if (weight.change == nullptr) return y;
  Matrix change = arithmetic_.linear(arithmetic_.linear(x, weight.change->a), weight.change->b);
  change *= weight.change->scaling;
  y += change;
  return y;
}

Matrix Forward::per_layer_rows(std::span<const int32_t> tokens) const {
  if (per_layer_tables_.size() == 1) return arithmetic_.gather(per_layer_tables_.front(), tokens);
  Matrix rows(static_cast<int64_t>(tokens.size()), config_.layer_count() * config_.per_layer_input_size);
  int64_t column = 0;
  for (const WeightView& table : per_layer_tables_) {
    rows.middleCols(column, table.columns()) = arithmetic_.gather(table, tokens);
    column += table.columns();
  }
  return rows;
}

Matrix Forward::per_layer_inputs(std::span<const int32_t> tokens, const Matrix& embedded,
                                 const SequenceState& state) const {
  const auto hidden = static_cast<float>(config_.hidden_size);
  const auto width = static_cast<float>(config_.per_layer_input_size);
  Matrix context = linear(embedded, per_layer_projection_, state);
  context *= 1.0f / std::sqrt(hidden);
  arithmetic_.norm(context, config_.per_layer_input_size, per_layer_norm_, epsilon_);
  Matrix table_rows = per_layer_rows(tokens);
  table_rows *= std::sqrt(width);
  context += table_rows;
  context *= 1.0f / std::sqrt(2.0f);
  return context;
}

KeyValueRotation Forward::rotation_of(const Layer& layer, const KeyValueCache& cache) const {
  if (cache.type() != CacheType::Q8_0) return {};
  return key_value_rotation(layers_.front().facts.head_dim, layer.facts.head_dim);
}

void Forward::append_keys(const Layer& layer, const Matrix& x, SequenceState& state, KeyValueCache& cache) const {
  Matrix keys = linear(x, layer.key, state);
  Matrix values = layer.facts.value_is_key ? keys : linear(x, layer.value, state);
  arithmetic_.norm(keys, layer.facts.head_dim, layer.key_norm, epsilon_);
  arithmetic_.rotate(keys, layer.facts.rope, state.length);
  if (config_.value_norm) arithmetic_.norm(values, layer.facts.head_dim, {}, epsilon_);
  const KeyValueRotation rotation = rotation_of(layer, cache);
  rotate_groups(keys, rotation.key);
  rotate_groups(values, rotation.value);
  cache.append(keys, values);
  if (state.observer == nullptr) return;
  state.observer->appended(layer.facts.index, state.length, keys.rows(), cache.newest_keys(keys.rows()),
                           cache.newest_values(keys.rows()));
}

Matrix Forward::attention(const Layer& layer, const Matrix& x, SequenceState& state) const {
  const LayerConfig& facts = layer.facts;
  KeyValueCache& cache = *state.caches[static_cast<size_t>(facts.key_value_donor.value_or(facts.index))];
  Matrix queries = linear(x, layer.query, state);
  arithmetic_.norm(queries, facts.head_dim, layer.query_norm, epsilon_);
  arithmetic_.rotate(queries, facts.rope, state.length);
  if (config_.attention_scale != 1.0) queries *= static_cast<float>(config_.attention_scale);
  if (!facts.key_value_donor) append_keys(layer, x, state, cache);
  const KeyValueRotation rotation = rotation_of(layer, cache);
  rotate_groups(queries, rotation.key);
  Matrix mixed = arithmetic_.attend(queries, cache,
                                    {facts.heads, facts.key_value_heads, facts.head_dim, facts.window, state.length});
  rotate_groups(mixed, rotation.value);
  return linear(mixed, layer.output, state);
}

Matrix Forward::mlp(const Layer& layer, const Matrix& x, const SequenceState& state) const {
  Matrix gate = linear(x, layer.gate, state);
  arithmetic_.gate(gate, linear(x, layer.up, state));
  return linear(gate, layer.down, state);
}

Matrix Forward::expert_outputs(const Experts& experts, const Matrix& residual, Matrix x) const {
  Matrix routed = residual;
  arithmetic_.norm(routed, routed.cols(), {}, epsilon_);
  routed *= 1.0f / std::sqrt(static_cast<float>(config_.hidden_size));
  routed = routed * Eigen::Map<const Eigen::VectorXf>(experts.router_scale.data(), routed.cols()).asDiagonal();
  const Matrix router_logits = product(routed, experts.router);

  struct Use {
    int64_t token, rank;
    float weight;
  };
  const int64_t ranks = config_.experts_per_token;
  std::vector<std::vector<Use>> uses(static_cast<size_t>(config_.experts));
  for (int64_t token = 0; token < x.rows(); ++token) {
    const auto choices = choose_experts(arithmetic_, row_of(router_logits, token), ranks);
    for (int64_t rank = 0; rank < ranks; ++rank) {
      const ExpertChoice& choice = choices[static_cast<size_t>(rank)];
      uses[static_cast<size_t>(choice.expert)].push_back({token, rank, choice.weight});
    }
  }

  // Terms are kept apart by rank so that each token's sum runs in falling order of weight.
  Matrix terms(x.rows() * ranks, x.cols());
  for (int64_t expert = 0; expert < config_.experts; ++expert) {
    const auto& used_by = uses[static_cast<size_t>(expert)];
    if (used_by.empty()) continue;
    std::vector<int64_t> tokens;
    for (const Use& use : used_by) tokens.push_back(use.token);
    const Matrix both = arithmetic_.linear(rows_of(x, tokens), experts.gate_up.slice(expert), true);
    const int64_t width = both.cols() / 2;
    Matrix gate = both.leftCols(width);
    arithmetic_.gate(gate, both.rightCols(width));
    Matrix down = arithmetic_.linear(gate, experts.down.slice(expert), true);
    down *= experts.expert_scale[static_cast<size_t>(expert)];
    for (size_t i = 0; i < used_by.size(); ++i) {
      terms.row(used_by[i].token * ranks + used_by[i].rank) = down.row(static_cast<int64_t>(i)) * used_by[i].weight;
    }
  }
  for (int64_t token = 0; token < x.rows(); ++token) {
    x.row(token) = terms.row(token * ranks);
    for (int64_t rank = 1; rank < ranks; ++rank) x.row(token) += terms.row(token * ranks + rank);
  }
  return x;
}

Matrix Forward::mlp_with_experts(const Layer& layer, const Matrix& residual, const SequenceState& state) const {
  Matrix x = residual;
  norm(x, layer.mlp_norm);
  x = mlp(layer, x, state);
  if (!layer.experts) return x;
  norm(x, layer.experts->dense_post_norm);
  Matrix routed = residual;
  norm(routed, layer.experts->pre_norm);
  routed = expert_outputs(*layer.experts, residual, std::move(routed));
  norm(routed, layer.experts->post_norm);
  return x + routed;
}

void Forward::run_layer(const Layer& layer, const Matrix& per_layer_inputs, Rows wanted, Matrix& x,
                        SequenceState& state) const {
  Matrix branch = x;
  norm(branch, layer.attention_norm);
  branch = attention(layer, branch, state);
  if (wanted == Rows::Last) {
    branch = Matrix(branch.bottomRows(1));
    x = Matrix(x.bottomRows(1));
  }
  norm(branch, layer.attention_post_norm);
  x += branch;

  branch = mlp_with_experts(layer, x, state);
  norm(branch, layer.mlp_post_norm);
  x += branch;

  if (layer.per_layer) {
    const int64_t width = config_.per_layer_input_size;
    Matrix gate = linear(x, layer.per_layer->gate, state);
    arithmetic_.gate(gate, per_layer_inputs.bottomRows(x.rows()).middleCols(layer.facts.index * width, width));
    branch = linear(gate, layer.per_layer->projection, state);
    norm(branch, layer.per_layer->post_norm);
    x += branch;
  }
  if (config_.has_layer_scalar) x *= layer.scalar;
}

Matrix Forward::hidden(std::span<const int32_t> tokens, SequenceState& state, Rows wanted) const {
  for (const int32_t token : tokens) {
    if (token < 0 || token >= config_.vocabulary_size) {
      fail(weights_.where(), ": token id ", token, " is outside the vocabulary of ", config_.vocabulary_size);
    }
  }
  Matrix x = arithmetic_.gather(embedding_, tokens);
  x *= std::sqrt(static_cast<float>(config_.hidden_size));
  const Matrix per_layer = config_.has_per_layer_inputs() ? per_layer_inputs(tokens, x, state) : Matrix();
  // Rows that nobody asks for stop after the last layer's attention, as llama.cpp's do.
  for (const Layer& layer : layers_) {
    run_layer(layer, per_layer, &layer == &layers_.back() ? wanted : Rows::All, x, state);
  }
  state.length += static_cast<int64_t>(tokens.size());
  norm(x, final_norm_);
  return x;
}

Matrix Forward::logits(const Matrix& hidden) const {
  Matrix result = product(hidden, head_);
  if (config_.final_logit_softcap != 0) arithmetic_.softcap(result, static_cast<float>(config_.final_logit_softcap));
  return result;
}

}  // namespace qat
