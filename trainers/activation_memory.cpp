#include "trainers/activation_memory.h"

#include <algorithm>
#include <numeric>
#include <set>

namespace qat {

namespace {

constexpr int64_t kFloat = 4;

// What static quantization adds to each layer (the last entry: outside of layers): an edge keeps its input as well as
// its result.
std::vector<int64_t> edge_values(const Gemma4Config& config, const ResolvedPlan* plan) {
  std::vector<int64_t> values(static_cast<size_t>(config.layer_count() + 1));
  if (plan == nullptr) return values;
  std::set<std::string> inputs;  // shared ones count once
  const WeightTable table(config);
  for (const WeightSpec& weight : table.weights()) {
    if (!is_matrix(weight.role)) continue;
    const WeightPlan& rule = plan->of(weight.name);
    int64_t& target = values[static_cast<size_t>(weight.layer.value_or(config.layer_count()))];
    if (rule.quantizes_input && inputs.insert(weight.input_name()).second) target += weight.columns();
    if (rule.quantizes_output) target += weight.rows();
    // Rows of a table with scales of their own are kept before and after.
    if (is_table(weight.role) && scheme(rule.scheme).has_row_scales()) target += weight.columns();
  }
  if (plan->key_value_cache == Scheme::Int8) {
    for (const LayerConfig& layer : config.layers) {
      if (!layer.key_value_donor) values[static_cast<size_t>(layer.index)] += 2 * layer.key_value_width();
    }
  }
  return values;
}

int64_t attention_bytes(const Gemma4Config& config, const LayerConfig& layer, int64_t value) {
  // Queries before their norm and after rotation, the mixed values, cosines and sines; norms and log-sum-exps in fp32.
  int64_t bytes = value * (3 * layer.query_width() + 2 * layer.rope.rotated_pairs) + kFloat * 2 * layer.heads;
  if (layer.key_value_donor) return bytes;
  // Keys before and after, values before and after.
  const int64_t tensors = 2 + (layer.value_is_key ? 0 : 1) + (config.value_norm ? 1 : 0);
  bytes += value * (tensors * layer.key_value_width() + 2 * layer.rope.rotated_pairs);
  return bytes + kFloat * layer.key_value_heads * (config.value_norm ? 2 : 1);
}

int64_t expert_bytes(const Gemma4Config& config, int64_t value) {
  // The router's input in two stages, its probabilities; then of every chosen expert the input, gate and up, their
  // product, and the output; then the output of the experts and the sum with the dense branch.
  const int64_t per_expert =
      value * (2 * config.hidden_size + 3 * config.expert_intermediate_size) + 4 * kFloat + 2 * 8;
  return value * 4 * config.hidden_size + kFloat * (config.experts + 4) + config.experts_per_token * per_expert;
}

int64_t layer_bytes(const Gemma4Config& config, const LayerConfig& layer, int64_t value) {
  // Hidden states: the layer's input, normed; after attention, then added, normed; after the MLP.
  int64_t bytes = value * (6 * config.hidden_size + 3 * layer.intermediate_size) + kFloat * 4;
  bytes += attention_bytes(config, layer, value);
  if (layer.has_experts) bytes += expert_bytes(config, value);
  if (config.has_per_layer_inputs()) {
    bytes += value * (2 * config.hidden_size + 2 * config.per_layer_input_size) + kFloat;
  }
  if (config.has_layer_scalar) bytes += value * config.hidden_size;
  return bytes;
}

}  // namespace

int64_t ActivationBytes::kept(bool recomputed) const {
  const std::vector<int64_t>& of_layers = recomputed ? inputs : layers;
  return std::accumulate(of_layers.begin(), of_layers.end(), ends);
}

ActivationBytes activation_bytes(const Gemma4Config& config, const ResolvedPlan* plan, int64_t value_bytes) {
  const std::vector<int64_t> edges = edge_values(config, plan);
  std::vector<bool> is_donor(config.layers.size());
  for (const LayerConfig& layer : config.layers) {
    if (layer.key_value_donor) is_donor[static_cast<size_t>(*layer.key_value_donor)] = true;
  }
  ActivationBytes result;
  for (const LayerConfig& layer : config.layers) {
    const auto index = static_cast<size_t>(layer.index);
    result.layers.push_back(layer_bytes(config, layer, value_bytes) + value_bytes * edges[index]);
    result.inputs.push_back(value_bytes * (config.hidden_size + (is_donor[index] ? 2 * layer.key_value_width() : 0)));
    int64_t inner = layer.intermediate_size;
    if (layer.has_experts) inner = std::max(inner, 2 * config.experts_per_token * config.expert_intermediate_size);
    result.widest = std::max({result.widest, inner, layer.query_width(), config.hidden_size});
  }
  // The last hidden states, before and after the final norm; tokens and positions.
  result.ends = value_bytes * (2 * config.hidden_size + edges.back()) + kFloat + 8;
  if (config.has_per_layer_inputs()) {
    const int64_t width = config.layer_count() * config.per_layer_input_size;
    result.ends += value_bytes * 2 * width + kFloat * config.layer_count();
  }
  return result;
}

}  // namespace qat
